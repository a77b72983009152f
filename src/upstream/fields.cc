#include "upstream/fields.h"

#include <boost/json.hpp>
#include <cmath>

#include "base/utf8.h"

namespace waystation::upstream {
namespace {

namespace json = boost::json;

constexpr std::size_t kShownMax = 100;

std::string_view kind_of(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "true or false";
    case json::kind::string:
      return "text";
    case json::kind::array:
      return "a list";
    case json::kind::object:
      return "an object";
    default:
      return "a number";
  }
}

Error wrong(std::string_view name, const json::value& value, std::string_view wanted) {
  return Error{Code::kUnavailable, std::string(name) + " is " + std::string(kind_of(value)) +
                                       ", not " + std::string(wanted)};
}

// Null when it is missing or null.
const json::value* value_in(const json::object& from, std::string_view name) {
  const json::value* value = from.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

// The text of one part of a message's content.
Result<std::string_view> part_text(const json::object& part) {
  auto type = text_in(part, "type");
  if (!type) return type.error();
  if (*type == "text" || *type == "refusal") return text_in(part, *type);
  return Error{Code::kUnavailable, "type is '" + cut(*type, kShownMax) + "', not 'text'"};
}

}  // namespace

const json::object* object_at(const json::object& from, std::string_view name) {
  const json::value* value = from.if_contains(name);
  return value == nullptr ? nullptr : value->if_object();
}

const json::array* array_at(const json::object& from, std::string_view name) {
  const json::value* value = from.if_contains(name);
  return value == nullptr ? nullptr : value->if_array();
}

std::string_view string_at(const json::object& from, std::string_view name) {
  const json::value* value = from.if_contains(name);
  const json::string* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::string_view() : std::string_view(*text);
}

double number_of(const json::value& value, double otherwise) {
  if (const auto* number = value.if_int64()) return static_cast<double>(*number);
  if (const auto* number = value.if_uint64()) return static_cast<double>(*number);
  if (const auto* number = value.if_double()) return *number;
  return otherwise;
}

double number_at(const json::object& from, std::string_view name, double otherwise) {
  const json::value* value = from.if_contains(name);
  return value == nullptr ? otherwise : number_of(*value, otherwise);
}

std::optional<std::uint32_t> count_of(const json::value& value, std::uint32_t most) {
  const double number = number_of(value, -1);
  if (!(number >= 0 && number <= static_cast<double>(most)) || number != std::floor(number)) {
    return std::nullopt;
  }
  return static_cast<std::uint32_t>(number);
}

Result<std::string_view> text_in(const json::object& from, std::string_view name) {
  const json::value* value = value_in(from, name);
  if (value == nullptr) return std::string_view();
  const json::string* text = value->if_string();
  if (text == nullptr) return wrong(name, *value, "text");
  return std::string_view(*text);
}

Result<std::string_view> content_in(const json::object& from, std::string_view name,
                                    std::string& joined) {
  const json::array* parts = array_at(from, name);
  if (parts == nullptr) return text_in(from, name);
  joined.clear();
  for (std::size_t i = 0; i < parts->size(); ++i) {
    const json::object* part = (*parts)[i].if_object();
    if (part == nullptr) {
      return wrong(std::string(name) + "[" + std::to_string(i) + "]", (*parts)[i], "an object");
    }
    auto text = part_text(*part);
    if (!text) return within(place_in(name, i), text.error());
    joined += *text;
  }
  return std::string_view(joined);
}

Result<const json::object*> object_in(const json::object& from, std::string_view name) {
  const json::value* value = value_in(from, name);
  if (value != nullptr && !value->is_object()) return wrong(name, *value, "an object");
  return value == nullptr ? nullptr : value->if_object();
}

Result<const json::array*> array_in(const json::object& from, std::string_view name) {
  const json::value* value = value_in(from, name);
  if (value != nullptr && !value->is_array()) return wrong(name, *value, "a list");
  return value == nullptr ? nullptr : value->if_array();
}

Result<std::uint32_t> index_in(const json::object& from, std::string_view name,
                               std::size_t otherwise, std::size_t size) {
  const json::value* value = value_in(from, name);
  if (value == nullptr && otherwise < size) return static_cast<std::uint32_t>(otherwise);
  const auto index = value == nullptr || size == 0
                         ? std::nullopt
                         : count_of(*value, static_cast<std::uint32_t>(size - 1));
  if (index) return *index;
  return Error{
      Code::kUnavailable,
      std::string(name) + " is " +
          (value == nullptr ? std::to_string(otherwise) : cut(json::serialize(*value), kShownMax)) +
          ", but there can be " + std::to_string(size)};
}

std::string cut(std::string_view text, std::size_t bytes_max) {
  if (text.size() <= bytes_max) return std::string(text);
  return utf8_prefix(text, bytes_max) + "…";
}

Error within(std::string place, Error error) {
  error.message = std::move(place) + error.message;
  return error;
}

std::string place_in(std::string_view list, std::size_t position) {
  return std::string(list) + "[" + std::to_string(position) + "].";
}

}  // namespace waystation::upstream
