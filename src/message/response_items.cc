#include "message/response_items.h"

#include <algorithm>
#include <boost/json.hpp>
#include <set>

#include "message/json.h"
#include "message/json_value.h"
#include "message/response_items_value.h"

namespace waystation::message {
namespace {

namespace json = boost::json;
using fields::bad;
using fields::find;
using fields::Object;
using fields::Value;
using fields::wrong_type;

constexpr std::string_view kResponsePrefix = "resp_";
constexpr std::size_t kIdBytesMax = 128;
constexpr std::size_t kUuidHexDigits = 32;

std::string hex_of(RequestId id) {
  std::string text = id.to_string();
  std::erase(text, '-');
  return text;
}

Error unsupported_part(const std::string& param, std::string_view type) {
  if (type == "input_image" || type == "input_file" || type == "input_audio") {
    return bad(param, "is " + fields::quoted(type) + "; the models served here read text only");
  }
  return bad(param, "is " + fields::quoted(type) + "; only text parts are supported");
}

// What a text part of an item says: its text, and whether it is a refusal.
struct Part {
  std::string text;
  bool refusal = false;
};

Result<Part> parse_part(const Value& value, const std::string& param) {
  const auto* part = value.if_object();
  if (part == nullptr) return wrong_type(param, "an object", value);
  auto type = fields::required_text(*part, param + ".type", "type");
  if (!type) return type.error();
  const bool refusal = *type == "refusal";
  if (!refusal && *type != "input_text" && *type != "output_text" && *type != "text") {
    return unsupported_part(param + ".type", *type);
  }
  const char* member = refusal ? "refusal" : "text";
  auto text = fields::required_text(*part, param + "." + member, member);
  if (!text) return text.error();
  return Part{std::move(*text), refusal};
}

Result<std::vector<Part>> parse_content(const Object& object, const std::string& param,
                                        const char* member) {
  const std::string at = param + "." + member;
  const Value* content = find(object, member);
  if (content == nullptr) return bad(at, "is required");
  if (const auto* text = content->if_string()) {
    return std::vector<Part>{{std::string(std::string_view(*text)), false}};
  }
  const auto* array = content->if_array();
  if (array == nullptr) return wrong_type(at, "a string or an array of parts", *content);
  std::vector<Part> parts;
  for (std::size_t i = 0; i < array->size(); ++i) {
    auto part = parse_part((*array)[i], fields::item(at, i));
    if (!part) return part.error();
    parts.push_back(std::move(*part));
  }
  return parts;
}

void append_part(std::string& out, const Part& part, bool is_output) {
  if (part.refusal) {
    out += "{\"type\":\"refusal\",\"refusal\":";
    append_json_string(out, part.text);
  } else {
    out += is_output ? "{\"type\":\"output_text\",\"text\":" : "{\"type\":\"input_text\",\"text\":";
    append_json_string(out, part.text);
    if (is_output) out += ",\"annotations\":[],\"logprobs\":[]";
  }
  out += "}";
}

std::string head_of(const std::string& id, std::string_view type) {
  std::string out = "{\"id\":";
  append_json_string(out, id);
  out += ",\"type\":\"" + std::string(type) + "\",\"status\":\"completed\"";
  return out;
}

Item message_item(std::string id, std::string_view role, const std::vector<Part>& parts) {
  std::string out =
      head_of(id, "message") + ",\"role\":\"" + std::string(role) + "\",\"content\":[";
  for (const Part& part : parts) {
    if (&part != &parts.front()) out += ",";
    append_part(out, part, role == "assistant");
  }
  out += "]}";
  return {std::move(id), "message", std::move(out)};
}

Item call_item(std::string id, std::string_view call_id, std::string_view name,
               std::string_view arguments) {
  std::string out = head_of(id, "function_call") + ",\"call_id\":" + json_string(call_id) +
                    ",\"name\":" + json_string(name) + ",\"arguments\":" + json_string(arguments) +
                    "}";
  return {std::move(id), "function_call", std::move(out)};
}

// `output`: JSON, a string or an array of parts.
Item call_output_item(std::string id, std::string_view call_id, std::string_view output) {
  std::string out = head_of(id, "function_call_output") + ",\"call_id\":" + json_string(call_id) +
                    ",\"output\":" + std::string(output) + "}";
  return {std::move(id), "function_call_output", std::move(out)};
}

// Reads the items of one array; each needs its place for its id.
class ItemParser {
 public:
  ItemParser(const Value& value, std::string param, RequestId request, std::size_t place)
      : value_(value), param_(std::move(param)), request_(request), place_(place) {}

  Result<Item> parse() {
    object_ = value_.if_object();
    if (object_ == nullptr) return wrong_type(param_, "an object", value_);
    auto given = fields::text(*object_, param_ + ".id", "id");
    if (!given) return given.error();
    if (given->size() > kIdBytesMax) {
      return bad(param_ + ".id", "is longer than " + std::to_string(kIdBytesMax) + " bytes");
    }
    given_id_ = std::move(*given);
    auto type = fields::text(*object_, param_ + ".type", "type");
    if (!type) return type.error();
    if (type->empty()) {
      if (find(*object_, "role") != nullptr) return parse_message();
      if (!given_id_.empty()) return Item{given_id_, "item_reference", ""};
      return bad(param_ + ".type", "is required");
    }
    if (*type == "message") return parse_message();
    if (*type == "function_call") return parse_call();
    if (*type == "function_call_output") return parse_output();
    if (*type == "reasoning") return parse_reasoning();
    if (*type == "item_reference") {
      if (given_id_.empty()) return bad(param_ + ".id", "is required");
      return Item{given_id_, *type, ""};
    }
    return bad(param_ + ".type", "is " + fields::quoted(*type) +
                                     "; supported are message, function_call, "
                                     "function_call_output, reasoning and item_reference");
  }

 private:
  std::string id(std::string_view prefix) const {
    return given_id_.empty() ? item_id(prefix, request_, "i" + std::to_string(place_)) : given_id_;
  }

  Result<Item> parse_message() {
    auto role = fields::required_text(*object_, param_ + ".role", "role");
    if (!role) return role.error();
    auto known = fields::one_of(*object_, param_ + ".role", "role",
                                {"user", "assistant", "system", "developer"});
    if (!known) return known.error();
    auto parts = parse_content(*object_, param_, "content");
    if (!parts) return parts.error();
    return message_item(id("msg"), *role, *parts);
  }

  Result<Item> parse_call() {
    std::string texts[3];
    constexpr const char* kNames[] = {"call_id", "name", "arguments"};
    for (int i = 0; i < 3; ++i) {
      auto text = fields::required_text(*object_, param_ + "." + kNames[i], kNames[i]);
      if (!text) return text.error();
      if (text->empty() && i < 2) return bad(param_ + "." + kNames[i], "must not be empty");
      texts[i] = std::move(*text);
    }
    return call_item(id("fc"), texts[0], texts[1], texts[2]);
  }

  Result<Item> parse_output() {
    auto call_id = fields::required_text(*object_, param_ + ".call_id", "call_id");
    if (!call_id) return call_id.error();
    auto parts = parse_content(*object_, param_, "output");
    if (!parts) return parts.error();
    std::string output;
    if (const Value* given = find(*object_, "output"); given->is_string()) {
      output = json_string(given->get_string());
    } else {
      output = "[";
      for (const Part& part : *parts) {
        if (&part != &parts->front()) output += ",";
        append_part(output, part, false);
      }
      output += "]";
    }
    return call_output_item(id("fco"), *call_id, output);
  }

  // Shown again as it came; no model hears it.
  Result<Item> parse_reasoning() {
    Object copy = *object_;
    const std::string name = id("rs");
    copy["id"] = name;
    if (find(copy, "summary") == nullptr) copy["summary"] = json::array();
    return Item{name, "reasoning", json::serialize(copy)};
  }

  const Value& value_;
  const std::string param_;
  const RequestId request_;
  const std::size_t place_;
  const Object* object_ = nullptr;
  std::string given_id_;
};

Result<std::vector<Item>> items_of_array(const json::array& array) {
  std::vector<Item> out;
  out.reserve(array.size());
  for (const Value& value : array) {
    const auto* object = value.if_object();
    if (object == nullptr || !object->contains("id") || !object->contains("type")) {
      return Error{Code::kCorruption, "a stored item has no id or no type"};
    }
    out.push_back({std::string(std::string_view(object->at("id").as_string())),
                   std::string(std::string_view(object->at("type").as_string())),
                   json::serialize(*object)});
  }
  return out;
}

// The role of a chat message; empty when it has none.
std::string_view role_of(const Value& message) {
  const auto* object = message.if_object();
  const Value* role = object == nullptr ? nullptr : find(*object, "role");
  return role != nullptr && role->is_string() ? std::string_view(role->get_string()) : "";
}

bool is_system_role(std::string_view role) {
  return role == "system" || role == "developer";
}

Result<Object> chat_object(std::string_view chat_body) {
  auto body = fields::parse_body(chat_body);
  if (!body) return body.error();
  return std::move(body->as_object());
}

}  // namespace

std::string response_id(RequestId id) {
  return std::string(kResponsePrefix) + id.to_string();
}

std::optional<RequestId> parse_response_id(std::string_view text) {
  if (!text.starts_with(kResponsePrefix)) return std::nullopt;
  return RequestId::parse(text.substr(kResponsePrefix.size()));
}

std::string item_id(std::string_view prefix, RequestId id, std::string_view place) {
  return std::string(prefix) + "_" + hex_of(id) + "_" + std::string(place);
}

std::optional<RequestId> request_of_item(std::string_view item_id) {
  const std::size_t from = item_id.find('_');
  if (from == std::string_view::npos) return std::nullopt;
  const std::string_view rest = item_id.substr(from + 1);
  if (rest.size() < kUuidHexDigits + 2 || rest[kUuidHexDigits] != '_') return std::nullopt;
  std::string uuid(rest.substr(0, kUuidHexDigits));
  for (const std::size_t at : {20, 16, 12, 8}) uuid.insert(at, "-");
  return RequestId::parse(uuid);
}

Result<std::vector<Item>> parse_items(const Value& array, const std::string& param, RequestId id) {
  if (!array.is_array()) return wrong_type(param, "an array of items", array);
  std::vector<Item> out;
  const json::array& values = array.get_array();
  out.reserve(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    auto item = ItemParser(values[i], fields::item(param, i), id, i).parse();
    if (!item) return item.error();
    out.push_back(std::move(*item));
  }
  return out;
}

Item user_message(std::string_view text, RequestId id) {
  return message_item(item_id("msg", id, "i0"), "user", {{std::string(text), false}});
}

Result<std::vector<Item>> parse_items_member(std::string_view body, std::string_view name,
                                             RequestId id) {
  auto object = chat_object(body);
  if (!object) return object.error();
  const Value* items = find(*object, name);
  if (items == nullptr) return std::vector<Item>();
  return parse_items(*items, std::string(name), id);
}

Result<std::vector<Item>> items_of_chat(std::string_view chat_body, RequestId id) {
  auto body = chat_object(chat_body);
  if (!body) return body.error();
  const Value* messages = find(*body, "messages");
  if (messages == nullptr || !messages->is_array()) return bad("messages", "must be an array");
  std::vector<Item> out;
  const auto next_id = [&](std::string_view prefix) {
    return item_id(prefix, id, "i" + std::to_string(out.size()));
  };
  for (std::size_t i = 0; i < messages->get_array().size(); ++i) {
    const std::string at = fields::item("messages", i);
    const Value& value = messages->get_array()[i];
    const auto* message = value.if_object();
    if (message == nullptr) return wrong_type(at, "an object", value);
    const std::string_view role = role_of(value);
    std::vector<Part> parts;
    if (find(*message, "content") != nullptr) {
      auto content = parse_content(*message, at, "content");
      if (!content) return content.error();
      parts = std::move(*content);
    }
    if (role == "tool") {
      auto call = fields::required_text(*message, at + ".tool_call_id", "tool_call_id");
      if (!call) return call.error();
      std::string text;
      for (const Part& part : parts) text += part.text;
      out.push_back(call_output_item(next_id("fco"), *call, json_string(text)));
      continue;
    }
    const Value* calls = find(*message, "tool_calls");
    const bool has_calls = calls != nullptr && calls->is_array() && !calls->get_array().empty();
    if (!parts.empty() || !has_calls) out.push_back(message_item(next_id("msg"), role, parts));
    if (!has_calls) continue;
    for (const Value& call : calls->get_array()) {
      const auto* object = call.if_object();
      const Value* function = object == nullptr ? nullptr : find(*object, "function");
      if (function == nullptr || !function->is_object())
        return bad(at, "has a malformed tool call");
      auto call_id = fields::required_text(*object, at + ".tool_calls.id", "id");
      if (!call_id) return call_id.error();
      auto name = fields::required_text(function->get_object(), at + ".tool_calls.name", "name");
      if (!name) return name.error();
      auto arguments = fields::text(function->get_object(), at + ".arguments", "arguments");
      if (!arguments) return arguments.error();
      out.push_back(call_item(next_id("fc"), *call_id, *name, *arguments));
    }
  }
  return out;
}

std::string items_json(const std::vector<Item>& items) {
  std::string out = "[";
  for (const Item& item : items) {
    if (&item != &items.front()) out += ",";
    out += item.json;
  }
  out += "]";
  return out;
}

Result<std::vector<Item>> parse_stored_items(std::string_view array) {
  auto value = parse_json(array);
  if (!value) return value.error();
  if (!value->is_array()) return Error{Code::kCorruption, "stored items are no array"};
  return items_of_array(value->get_array());
}

Result<std::vector<Item>> output_of_response(std::string_view response) {
  auto value = parse_json(response);
  if (!value) return value.error();
  const auto* object = value->if_object();
  const Value* output = object == nullptr ? nullptr : find(*object, "output");
  if (output == nullptr || !output->is_array()) {
    return Error{Code::kCorruption, "a stored response has no output"};
  }
  return items_of_array(output->get_array());
}

Result<Item> with_id(const Item& item, std::string id) {
  auto value = parse_json(item.json);
  if (!value) return value.error();
  value->as_object()["id"] = id;
  return Item{std::move(id), item.type, json::serialize(*value)};
}

bool is_system(const Item& item) {
  if (item.type != "message") return false;
  const auto value = parse_json(item.json);
  return value && is_system_role(role_of(*value));
}

}  // namespace waystation::message
