#include "message/fields.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>

#include "base/utf8.h"
#include "message/json_value.h"

namespace waystation::message::fields {
namespace {

std::string_view kind_name(const Value& value) {
  switch (value.kind()) {
    case boost::json::kind::null:
      return "null";
    case boost::json::kind::bool_:
      return "a boolean";
    case boost::json::kind::string:
      return "a string";
    case boost::json::kind::array:
      return "an array";
    case boost::json::kind::object:
      return "an object";
    default:
      return "a number";
  }
}

}  // namespace

Error bad(std::string param, const std::string& what) {
  std::string message = param + " " + what;
  return Error{Code::kInvalidArgument, std::move(message), std::move(param)};
}

Error wrong_type(std::string param, std::string_view wanted, const Value& got) {
  return bad(std::move(param),
             "must be " + std::string(wanted) + ", not " + std::string(kind_name(got)));
}

std::string quoted(std::string_view text) {
  constexpr std::size_t kBytesMax = 60;
  if (text.size() <= kBytesMax) return "'" + std::string(text) + "'";
  return "'" + utf8_prefix(text, kBytesMax) + "…'";
}

std::string item(const std::string& param, std::size_t index) {
  return param + "[" + std::to_string(index) + "]";
}

const Value* find(const Object& object, std::string_view name) {
  const Value* value = object.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::optional<std::int64_t> whole(const Value& value) {
  if (const auto* i = value.if_int64()) return *i;
  if (const auto* u = value.if_uint64()) return static_cast<std::int64_t>(*u);
  if (const auto* d = value.if_double();
      d != nullptr && std::abs(*d) < 9e15 && std::trunc(*d) == *d) {
    return static_cast<std::int64_t>(*d);
  }
  return std::nullopt;
}

Result<double> number(const Object& object, const std::string& param, std::string_view name,
                      double low, double high, double otherwise) {
  const Value* value = find(object, name);
  if (value == nullptr) return otherwise;
  if (!value->is_number()) return wrong_type(param, "a number", *value);
  const double number = value->to_number<double>();
  if (!(number >= low && number <= high)) {
    return bad(param, "must be between " + std::to_string(static_cast<int>(low)) + " and " +
                          std::to_string(static_cast<int>(high)));
  }
  return number;
}

Result<bool> flag(const Object& object, const std::string& param, std::string_view name,
                  bool otherwise) {
  const Value* value = find(object, name);
  if (value == nullptr) return otherwise;
  if (!value->is_bool()) return wrong_type(param, "a boolean", *value);
  return value->get_bool();
}

Result<std::optional<std::int64_t>> integer(const Object& object, const std::string& param,
                                            std::string_view name, std::int64_t low,
                                            std::int64_t high) {
  const Value* value = find(object, name);
  if (value == nullptr) return std::optional<std::int64_t>();
  const auto number = whole(*value);
  if (!number) return wrong_type(param, "an integer", *value);
  if (value->is_uint64() || *number < low || *number > high) {
    return bad(param, "must be an integer between " + std::to_string(low) + " and " +
                          std::to_string(high));
  }
  return number;
}

Result<std::string> text(const Object& object, const std::string& param, std::string_view name) {
  const Value* value = find(object, name);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return wrong_type(param, "a string", *value);
  return std::string(std::string_view(value->get_string()));
}

Result<std::string> one_of(const Object& object, const std::string& param, std::string_view name,
                           std::initializer_list<std::string_view> allowed) {
  auto value = text(object, param, name);
  if (!value || find(object, name) == nullptr) return value;
  if (std::find(allowed.begin(), allowed.end(), *value) != allowed.end()) return value;
  std::string names;
  for (const std::string_view option : allowed) {
    names += (names.empty() ? "" : ", ") + std::string(option);
  }
  return bad(param, "must be one of " + names + ", not " + quoted(*value));
}

Result<std::string> required_text(const Object& object, const std::string& param,
                                  std::string_view name) {
  if (find(object, name) == nullptr) return bad(param, "is required");
  return text(object, param, name);
}

Result<Value> parse_body(std::string_view body) {
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return Error{Code::kInvalidArgument, "the body is empty; it must be a JSON object"};
  }
  auto document = parse_json(body);
  if (document && !document->is_object()) {
    return Error{Code::kInvalidArgument,
                 "the body must be a JSON object, not " + std::string(kind_name(*document))};
  }
  return document;
}

bool is_plain_name(std::string_view name) {
  constexpr std::size_t kBytesMax = 64;
  return !name.empty() && name.size() <= kBytesMax &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-';
         });
}

}  // namespace waystation::message::fields
