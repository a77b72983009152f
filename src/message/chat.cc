#include "message/chat.h"

#include <boost/json.hpp>

#include "message/chat_tools.h"
#include "message/parameters.h"

namespace waystation::message {
namespace {

using fields::bad;
using fields::find;
using fields::item;
using fields::Object;
using fields::Value;
using fields::wrong_type;

constexpr std::int64_t kTopLogprobsMax = 20;

// Why a part that isn't text can't be taken.
std::string part_refusal(std::string_view type) {
  const std::string what = "is " + fields::quoted(type);
  if (type == "image_url" || type == "input_image") {
    return what + ", but the model has no vision; only text parts are supported";
  }
  if (type == "input_audio") {
    return what + ", but the model can't hear; only text parts are supported";
  }
  if (type == "file" || type == "input_file") {
    return what + ", but the model can't read files; put their text into a text part";
  }
  return what + "; only text parts are supported";
}

// Parts of type "text" joined (an assistant's refusals too); any other kind is named in the error.
Result<std::string> joined_parts(const boost::json::array& parts, const std::string& param,
                                 bool is_assistant) {
  if (parts.empty()) return bad(param, "must have at least one part");
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string at = item(param, i);
    const auto* part = parts[i].if_object();
    if (part == nullptr) return wrong_type(at, "an object", parts[i]);
    auto type = fields::required_text(*part, at + ".type", "type");
    if (!type) return type.error();
    if (*type != "text" && !(is_assistant && *type == "refusal")) {
      return bad(at + ".type", part_refusal(*type));
    }
    auto text = fields::required_text(*part, at + "." + *type, *type);
    if (!text) return text.error();
    out += *text;
  }
  return out;
}

Result<std::string> parse_content(const Value& content, const std::string& param,
                                  bool is_assistant) {
  if (const auto* parts = content.if_array()) return joined_parts(*parts, param, is_assistant);
  if (const auto* text = content.if_string()) return std::string(std::string_view(*text));
  return wrong_type(param, "a string or an array of parts", content);
}

// What only an assistant's message has: calls, a refusal, its thinking.
Status parse_assistant(const Object& object, const std::string& param, ChatMessage& out) {
  if (const Value* calls = find(object, "tool_calls")) {
    auto parsed = parse_tool_calls(*calls, param + ".tool_calls");
    if (!parsed) return parsed.error();
    out.tool_calls = std::move(*parsed);
  }
  for (const char* name : {"reasoning_content", "reasoning"}) {
    if (!out.reasoning.empty() || find(object, name) == nullptr) continue;
    auto reasoning = fields::text(object, param + "." + name, name);
    if (!reasoning) return reasoning.error();
    out.reasoning = std::move(*reasoning);
  }
  auto refusal = fields::text(object, param + ".refusal", "refusal");
  if (!refusal) return refusal.error();
  if (find(object, "content") == nullptr) out.content = std::move(*refusal);
  return {};
}

Result<std::string> parse_role(const Object& object, const std::string& param) {
  auto role = fields::one_of(object, param, "role",
                             {"system", "developer", "user", "assistant", "tool", "function"});
  if (!role) return role;
  if (role->empty()) return bad(param, "is required");
  if (*role == "function") {
    return bad(param, "is 'function', the form before tools; send a tool's answer as 'tool'");
  }
  return role;
}

Result<ChatMessage> parse_message(const Value& value, const std::string& param) {
  const auto* object = value.if_object();
  if (object == nullptr) return wrong_type(param, "an object", value);
  ChatMessage message;
  auto role = parse_role(*object, param + ".role");
  if (!role) return role.error();
  message.role = std::move(*role);
  if (find(*object, "function_call") != nullptr) {
    return bad(param + ".function_call", "is the form before tools; send tool_calls instead");
  }
  if (find(*object, "audio") != nullptr) {
    return bad(param + ".audio", "is not supported: the model can't hear");
  }
  const bool is_assistant = message.role == "assistant";
  if (is_assistant) {
    if (auto status = parse_assistant(*object, param, message); !status) return status.error();
  }
  if (const Value* content = find(*object, "content")) {
    auto text = parse_content(*content, param + ".content", is_assistant);
    if (!text) return text.error();
    message.content = std::move(*text);
  } else if (message.tool_calls.empty() && message.content.empty()) {
    return bad(param + ".content", "is required");
  }
  if (message.role == "tool") {
    auto id = fields::required_text(*object, param + ".tool_call_id", "tool_call_id");
    if (!id) return id.error();
    message.tool_call_id = std::move(*id);
  }
  auto name = fields::text(*object, param + ".name", "name");
  if (!name) return name.error();
  message.name = std::move(*name);
  return message;
}

Status parse_messages(const Object& body, ChatRequest& out) {
  const Value* messages = find(body, "messages");
  if (messages == nullptr) return bad("messages", "is required");
  const auto* array = messages->if_array();
  if (array == nullptr) return wrong_type("messages", "an array", *messages);
  if (array->empty()) return bad("messages", "must have at least one message");
  out.messages.reserve(array->size());
  for (std::size_t i = 0; i < array->size(); ++i) {
    auto message = parse_message((*array)[i], item("messages", i));
    if (!message) return message.error();
    out.messages.push_back(std::move(*message));
  }
  return {};
}

Status parse_sampling(const Object& body, ChatRequest& out) {
  if (auto status = parse_generation(body, out); !status) return status;
  auto newer_name = parse_token_limit(body, "max_completion_tokens");
  if (!newer_name) return newer_name.error();
  if (*newer_name) out.max_tokens = *newer_name;
  auto wanted = fields::flag(body, "logprobs", "logprobs");
  if (!wanted) return wanted.error();
  auto top = fields::integer(body, "top_logprobs", "top_logprobs", 0, kTopLogprobsMax);
  if (!top) return top.error();
  if (!*wanted && top->value_or(0) > 0) return bad("top_logprobs", "needs logprobs: true");
  if (*wanted) out.logprobs = static_cast<std::uint32_t>(top->value_or(0));
  auto effort = fields::one_of(body, "reasoning_effort", "reasoning_effort",
                               {"none", "minimal", "low", "medium", "high", "xhigh", "max"});
  if (!effort) return effort.error();
  out.reasoning_effort = std::move(*effort);
  return {};
}

// Parameters whose effect can't be had here: refused, since without it the answer would be another
// than the one asked for.
Status refuse_unsupported(const Object& body) {
  const auto is_empty = [](const Value& value) {
    return value.is_array() && value.get_array().empty();
  };
  if (const Value* functions = find(body, "functions");
      functions != nullptr && !is_empty(*functions)) {
    return bad("functions", "is the form before tools; send tools instead");
  }
  if (const Value* call = find(body, "function_call");
      call != nullptr && !(call->is_string() && call->get_string() == "none")) {
    return bad("function_call", "is the form before tools; send tool_choice instead");
  }
  for (const char* name : {"audio", "web_search_options", "moderation"}) {
    if (find(body, name) != nullptr) return bad(name, "is not supported; leave it out");
  }
  if (const Value* modalities = find(body, "modalities")) {
    const auto* array = modalities->if_array();
    if (array == nullptr) return wrong_type("modalities", "an array", *modalities);
    for (const auto& modality : *array) {
      if (modality.is_string() && modality.get_string() == "text") continue;
      return bad("modalities", "must be [\"text\"]: the model answers in text only");
    }
  }
  auto verbosity = fields::one_of(body, "verbosity", "verbosity", {"low", "medium", "high"});
  if (!verbosity) return verbosity.error();
  if (!verbosity->empty() && *verbosity != "medium") {
    return bad("verbosity", "can't be set for this model; ask for short or long answers in words");
  }
  return refuse_foreign(body);
}

}  // namespace

Result<ChatRequest> parse_chat_request(std::string_view body) {
  auto document = fields::parse_body(body);
  if (!document) return document.error();
  const Object& object = document->get_object();
  ChatRequest out;
  auto model = parse_model(object);
  if (!model) return model.error();
  out.model = std::move(*model);
  using Step = Status (*)(const Object&, ChatRequest&);
  for (const Step step : {Step(parse_messages), Step(parse_sampling), Step(parse_tools),
                          Step(parse_response_format)}) {
    if (auto status = step(object, out); !status) return status.error();
  }
  if (auto status = parse_stream(object, out); !status) return status.error();
  if (auto status = check_labels(object); !status) return status.error();
  if (auto status = refuse_unsupported(object); !status) return status.error();
  return out;
}

}  // namespace waystation::message
