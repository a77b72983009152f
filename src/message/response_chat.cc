// Items to chat messages, and chat bodies put together from both.
#include <boost/json.hpp>
#include <set>
#include <string>

#include "message/fields.h"
#include "message/json.h"
#include "message/json_value.h"
#include "message/response_items.h"

namespace waystation::message {
namespace {

namespace json = boost::json;
using fields::find;
using fields::Object;
using fields::Value;

std::string text_of(const Object& item, std::string_view member) {
  const Value* value = find(item, member);
  if (value == nullptr) return {};
  if (value->is_string()) return std::string(std::string_view(value->get_string()));
  std::string out;
  if (!value->is_array()) return out;
  for (const Value& part : value->get_array()) {
    for (const char* name : {"text", "refusal"}) {
      const Value* text = part.is_object() ? find(part.get_object(), name) : nullptr;
      if (text != nullptr && text->is_string()) out += std::string_view(text->get_string());
    }
  }
  return out;
}

struct Spoken {
  std::string role;
  std::string content = {};
  bool has_content = true;
  std::string calls = {};    // members of tool_calls
  std::string call_id = {};  // of a tool's answer
};

std::string to_json(const Spoken& message) {
  std::string out = "{\"role\":" + json_string(message.role) + ",\"content\":";
  if (message.has_content) {
    append_json_string(out, message.content);
  } else {
    out += "null";
  }
  if (!message.calls.empty()) out += ",\"tool_calls\":[" + message.calls + "]";
  if (!message.call_id.empty()) out += ",\"tool_call_id\":" + json_string(message.call_id);
  out += "}";
  return out;
}

class Speaker {
 public:
  explicit Speaker(bool is_part) : is_part_(is_part) {}

  Status add(const Object& item) {
    const std::string type = text_of(item, "type");
    if (type == "message") {
      messages_.push_back({.role = text_of(item, "role"), .content = text_of(item, "content")});
    } else if (type == "function_call") {
      add_call(item);
    } else if (type == "function_call_output") {
      const std::string call_id = text_of(item, "call_id");
      if (!is_part_ && !calls_.contains(call_id)) {
        return Error{Code::kInvalidArgument,
                     "input has an output for the function call " + fields::quoted(call_id) +
                         ", but no such call comes before it",
                     "input"};
      }
      messages_.push_back({.role = "tool", .content = text_of(item, "output"), .call_id = call_id});
    }
    return {};
  }

  void instruct(std::string_view instructions) {
    if (instructions.empty()) return;
    messages_.push_back({.role = "system", .content = std::string(instructions)});
  }

  std::string messages() const {
    std::string out = "[";
    for (const Spoken& message : messages_) {
      if (&message != &messages_.front()) out += ",";
      out += to_json(message);
    }
    return out + "]";
  }

 private:
  // Calls belong to the assistant's message that they follow.
  void add_call(const Object& item) {
    if (messages_.empty() || messages_.back().role != "assistant") {
      messages_.push_back({.role = "assistant", .has_content = false});
    }
    const std::string call_id = text_of(item, "call_id");
    std::string& calls = messages_.back().calls;
    if (!calls.empty()) calls += ",";
    calls += "{\"id\":" + json_string(call_id) +
             ",\"type\":\"function\",\"function\":{\"name\":" + json_string(text_of(item, "name")) +
             ",\"arguments\":" + json_string(text_of(item, "arguments")) + "}}";
    calls_.insert(call_id);
  }

  const bool is_part_;
  std::vector<Spoken> messages_;
  std::set<std::string> calls_;
};

bool leads_with_system(const json::array& messages) {
  if (messages.empty() || !messages.front().is_object()) return false;
  const std::string role = text_of(messages.front().get_object(), "role");
  return role == "system" || role == "developer";
}

Result<std::string> replace_messages(std::string_view chat_body, std::string_view messages,
                                     bool keep_own) {
  auto body = fields::parse_body(chat_body);
  if (!body) return body.error();
  auto given = parse_json(messages);
  if (!given) return given.error();
  json::array& all = given->as_array();
  Object& object = body->as_object();
  if (const Value* own = find(object, "messages"); keep_own && own != nullptr && own->is_array()) {
    const json::array& news = own->get_array();
    auto later = news.begin();
    if (leads_with_system(news)) {
      if (leads_with_system(all)) all.erase(all.begin());
      all.insert(all.begin(), *later++);
    }
    all.insert(all.end(), later, news.end());
  }
  object["messages"] = std::move(all);
  return json::serialize(object);
}

}  // namespace

Result<std::string> chat_messages(const std::vector<Item>& items, std::string_view instructions,
                                  bool is_part) {
  Speaker speaker(is_part);
  speaker.instruct(instructions);
  for (const Item& item : items) {
    auto value = parse_json(item.json);
    if (!value) return value.error();
    if (auto status = speaker.add(value->as_object()); !status) return status.error();
  }
  return speaker.messages();
}

Result<std::string> with_messages(std::string_view chat_body, std::string_view messages) {
  return replace_messages(chat_body, messages, false);
}

Result<std::string> with_earlier_messages(std::string_view chat_body, std::string_view messages) {
  return replace_messages(chat_body, messages, true);
}

}  // namespace waystation::message
