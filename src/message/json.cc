#include "message/json.h"

#include <algorithm>
#include <boost/json.hpp>
#include <vector>

#include "message/json_value.h"

namespace waystation::message {
namespace {

void append_canonical(std::string& out, const boost::json::value& value);

void append_object(std::string& out, const boost::json::object& object) {
  std::vector<const boost::json::key_value_pair*> members;
  members.reserve(object.size());
  for (const auto& member : object) members.push_back(&member);
  std::sort(members.begin(), members.end(), [](const auto* a, const auto* b) {
    return std::string_view(a->key()) < std::string_view(b->key());
  });
  out.push_back('{');
  for (const auto* member : members) {
    if (member != members.front()) out.push_back(',');
    append_json_string(out, member->key());
    out.push_back(':');
    append_canonical(out, member->value());
  }
  out.push_back('}');
}

void append_canonical(std::string& out, const boost::json::value& value) {
  if (const auto* object = value.if_object()) {
    append_object(out, *object);
  } else if (const auto* array = value.if_array()) {
    out.push_back('[');
    for (const auto& item : *array) {
      if (&item != array->begin()) out.push_back(',');
      append_canonical(out, item);
    }
    out.push_back(']');
  } else if (const auto* text = value.if_string()) {
    append_json_string(out, *text);
  } else {
    out += boost::json::serialize(value);
  }
}

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  out.push_back('"');
  std::size_t plain_from = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(text, plain_from, i - plain_from);
    plain_from = i + 1;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        out += "\\u00";
        out.push_back(kHex[c >> 4]);
        out.push_back(kHex[c & 15]);
    }
  }
  out.append(text, plain_from);
  out.push_back('"');
}

std::string json_string(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

Result<boost::json::value> parse_json(std::string_view document) {
  boost::json::parse_options options;
  options.max_depth = kJsonDepthMax;
  boost::json::parser parser({}, options);
  boost::json::error_code ec;
  const std::size_t used = parser.write_some(document, ec);
  if (!ec && used < document.size()) ec = boost::json::error::extra_data;
  if (ec == boost::json::error::too_deep) {
    return Error{Code::kInvalidArgument, "the JSON body is nested deeper than " +
                                             std::to_string(kJsonDepthMax) + " levels"};
  }
  if (ec) {
    return Error{Code::kInvalidArgument, "the body is not valid UTF-8 JSON: " + ec.message() +
                                             " near byte " + std::to_string(used)};
  }
  return parser.release();
}

Result<std::string> canonical_json(std::string_view document,
                                   std::initializer_list<std::string_view> without) {
  auto value = parse_json(document);
  if (!value) return value.error();
  if (auto* object = value->if_object()) {
    for (const std::string_view name : without) object->erase(name);
  }
  std::string out;
  out.reserve(document.size());
  append_canonical(out, *value);
  return out;
}

}  // namespace waystation::message
