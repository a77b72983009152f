#include "message/chat.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <limits>

#include "message/json_value.h"

namespace waystation::message {
namespace {

namespace json = boost::json;

constexpr std::size_t kStopsMax = 4;

Error bad(std::string param, const std::string& what) {
  std::string message = param + " " + what;
  return Error{Code::kInvalidArgument, std::move(message), std::move(param)};
}

Error unsupported(std::string param) {
  return bad(std::move(param), "is not supported yet; leave it out");
}

std::string_view kind_name(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a boolean";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
    default:
      return "a number";
  }
}

Error wrong_type(std::string param, std::string_view wanted, const json::value& got) {
  return bad(std::move(param),
             "must be " + std::string(wanted) + ", not " + std::string(kind_name(got)));
}

// The member, or null when it is absent or JSON's null: clients send null for "not set".
const json::value* find(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

Result<double> number_in(const json::object& object, const char* name, double low, double high,
                         double otherwise) {
  const json::value* value = find(object, name);
  if (value == nullptr) return otherwise;
  if (!value->is_number()) return wrong_type(name, "a number", *value);
  const double number = value->to_number<double>();
  if (!(number >= low && number <= high)) {
    return bad(name, "must be between " + std::to_string(static_cast<int>(low)) + " and " +
                         std::to_string(static_cast<int>(high)));
  }
  return number;
}

Result<bool> flag(const json::object& object, std::string_view name, std::string param) {
  const json::value* value = find(object, name);
  if (value == nullptr) return false;
  if (!value->is_bool()) return wrong_type(std::move(param), "a boolean", *value);
  return value->get_bool();
}

// A whole number; 5.0 counts as one, as in JSON Schema.
std::optional<std::int64_t> whole(const json::value& value) {
  if (const auto* i = value.if_int64()) return *i;
  if (const auto* u = value.if_uint64()) {
    // Above int64's range; its bits are kept. Only a seed may be that large.
    return static_cast<std::int64_t>(*u);
  }
  if (const auto* d = value.if_double();
      d != nullptr && std::abs(*d) < 9e15 && std::trunc(*d) == *d) {
    return static_cast<std::int64_t>(*d);
  }
  return std::nullopt;
}

Result<std::optional<std::uint32_t>> token_limit(const json::object& object, const char* name) {
  const json::value* value = find(object, name);
  if (value == nullptr) return std::optional<std::uint32_t>();
  const auto number = whole(*value);
  if (!number) return wrong_type(name, "an integer", *value);
  if (value->is_uint64() || *number < 1) return bad(name, "must be a positive integer");
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  return std::optional(static_cast<std::uint32_t>(std::min(*number, kMost)));
}

// Parts of type "text" joined; any other kind of part is named in the refusal.
Result<std::string> joined_parts(const json::array& parts, const std::string& param) {
  if (parts.empty()) return bad(param, "must have at least one part");
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string at = param + "[" + std::to_string(i) + "]";
    const auto* part = parts[i].if_object();
    if (part == nullptr) return wrong_type(at, "an object", parts[i]);
    const json::value* type = find(*part, "type");
    if (type == nullptr) return bad(at + ".type", "is required");
    if (!type->is_string()) return wrong_type(at + ".type", "a string", *type);
    if (type->get_string() != "text") {
      return bad(at + ".type", "is '" + std::string(type->get_string()).substr(0, 40) +
                                   "'; only text parts are supported");
    }
    const json::value* text = find(*part, "text");
    if (text == nullptr) return bad(at + ".text", "is required");
    if (!text->is_string()) return wrong_type(at + ".text", "a string", *text);
    out += std::string_view(text->get_string());
  }
  return out;
}

Result<ChatMessage> parse_message(const json::value& value, const std::string& param) {
  constexpr std::array<std::string_view, 5> kRoles{"system", "developer", "user", "assistant",
                                                   "tool"};
  const auto* object = value.if_object();
  if (object == nullptr) return wrong_type(param, "an object", value);

  const json::value* role = find(*object, "role");
  if (role == nullptr) return bad(param + ".role", "is required");
  if (!role->is_string()) return wrong_type(param + ".role", "a string", *role);
  if (std::find(kRoles.begin(), kRoles.end(), std::string_view(role->get_string())) ==
      kRoles.end()) {
    return bad(param + ".role", "must be one of system, developer, user, assistant, tool");
  }
  for (const char* name : {"tool_calls", "function_call", "audio"}) {
    const json::value* extra = find(*object, name);
    if (extra == nullptr || (extra->is_array() && extra->get_array().empty())) continue;
    return unsupported(param + "." + name);
  }

  ChatMessage message;
  message.role = std::string_view(role->get_string());
  const json::value* content = find(*object, "content");
  if (content == nullptr) return bad(param + ".content", "is required");
  if (const auto* parts = content->if_array()) {
    auto text = joined_parts(*parts, param + ".content");
    if (!text) return text.error();
    message.content = std::move(*text);
  } else if (const auto* text = content->if_string()) {
    message.content = std::string_view(*text);
  } else {
    return wrong_type(param + ".content", "a string or an array of parts", *content);
  }
  if (const json::value* name = find(*object, "name")) {
    if (!name->is_string()) return wrong_type(param + ".name", "a string", *name);
    message.name = std::string_view(name->get_string());
  }
  return message;
}

Status parse_messages(const json::object& body, ChatRequest& out) {
  const json::value* messages = find(body, "messages");
  if (messages == nullptr) return bad("messages", "is required");
  const auto* array = messages->if_array();
  if (array == nullptr) return wrong_type("messages", "an array", *messages);
  if (array->empty()) return bad("messages", "must have at least one message");
  out.messages.reserve(array->size());
  for (std::size_t i = 0; i < array->size(); ++i) {
    auto message = parse_message((*array)[i], "messages[" + std::to_string(i) + "]");
    if (!message) return message.error();
    out.messages.push_back(std::move(*message));
  }
  return {};
}

Status parse_stop(const json::object& body, ChatRequest& out) {
  const json::value* stop = find(body, "stop");
  if (stop == nullptr) return {};
  if (const auto* text = stop->if_string()) {
    if (text->empty()) return bad("stop", "must not be empty");
    out.stop.emplace_back(std::string_view(*text));
    return {};
  }
  const auto* array = stop->if_array();
  if (array == nullptr) return wrong_type("stop", "a string or an array of strings", *stop);
  if (array->size() > kStopsMax) {
    return bad("stop", "may have at most " + std::to_string(kStopsMax) + " strings");
  }
  for (std::size_t i = 0; i < array->size(); ++i) {
    const std::string at = "stop[" + std::to_string(i) + "]";
    const auto* text = (*array)[i].if_string();
    if (text == nullptr) return wrong_type(at, "a string", (*array)[i]);
    if (text->empty()) return bad(at, "must not be empty");
    out.stop.emplace_back(std::string_view(*text));
  }
  return {};
}

Status parse_sampling(const json::object& body, ChatRequest& out) {
  struct Field {
    const char* name;
    double low;
    double high;
    double* value;
  };
  const Field fields[] = {{"temperature", 0, 2, &out.temperature},
                          {"top_p", 0, 1, &out.top_p},
                          {"presence_penalty", -2, 2, &out.presence_penalty},
                          {"frequency_penalty", -2, 2, &out.frequency_penalty}};
  for (const Field& field : fields) {
    auto number = number_in(body, field.name, field.low, field.high, *field.value);
    if (!number) return number.error();
    *field.value = *number;
  }
  if (const json::value* seed = find(body, "seed")) {
    const auto number = whole(*seed);
    if (!number) return wrong_type("seed", "an integer", *seed);
    out.seed = static_cast<std::uint64_t>(*number);
  }
  if (const json::value* n = find(body, "n")) {
    const auto number = whole(*n);
    if (!number) return wrong_type("n", "an integer", *n);
    if (*number != 1) return bad("n", "must be 1; several choices are not supported yet");
  }
  auto old_name = token_limit(body, "max_tokens");
  if (!old_name) return old_name.error();
  auto new_name = token_limit(body, "max_completion_tokens");
  if (!new_name) return new_name.error();
  out.max_tokens = *new_name ? *new_name : *old_name;
  return {};
}

Status parse_stream(const json::object& body, ChatRequest& out) {
  auto stream = flag(body, "stream", "stream");
  if (!stream) return stream.error();
  out.stream = *stream;
  const json::value* options = find(body, "stream_options");
  if (options == nullptr) return {};
  const auto* object = options->if_object();
  if (object == nullptr) return wrong_type("stream_options", "an object", *options);
  if (!out.stream) return bad("stream_options", "is only allowed together with stream: true");
  auto usage = flag(*object, "include_usage", "stream_options.include_usage");
  if (!usage) return usage.error();
  out.include_usage = *usage;
  return {};
}

// Fields that change the answer and would be silently half-honoured are refused, not ignored.
Status refuse_unsupported(const json::object& body) {
  const auto is_empty = [](const json::value& value) {
    if (const auto* array = value.if_array()) return array->empty();
    if (const auto* object = value.if_object()) return object->empty();
    return false;
  };
  for (const char* name : {"tools", "functions", "logit_bias"}) {
    const json::value* value = find(body, name);
    if (value != nullptr && !is_empty(*value)) return unsupported(name);
  }
  for (const char* name : {"audio", "web_search_options"}) {
    if (find(body, name) != nullptr) return unsupported(name);
  }
  auto logprobs = flag(body, "logprobs", "logprobs");
  if (!logprobs) return logprobs.error();
  if (*logprobs) return unsupported("logprobs");
  if (const json::value* top = find(body, "top_logprobs"); top != nullptr && whole(*top) != 0) {
    return unsupported("top_logprobs");
  }
  if (const json::value* format = find(body, "response_format")) {
    const auto* object = format->if_object();
    if (object == nullptr) return wrong_type("response_format", "an object", *format);
    const json::value* type = find(*object, "type");
    if (type == nullptr || !type->is_string()) return bad("response_format.type", "is required");
    if (type->get_string() != "text") {
      return bad("response_format.type", "is not supported yet unless it is 'text'");
    }
  }
  if (const json::value* modalities = find(body, "modalities")) {
    const auto* array = modalities->if_array();
    if (array == nullptr) return wrong_type("modalities", "an array", *modalities);
    for (const auto& item : *array) {
      if (!item.is_string() || item.get_string() != "text") return unsupported("modalities");
    }
  }
  return {};
}

}  // namespace

Result<ChatRequest> parse_chat_request(std::string_view body) {
  auto document = parse_json(body);
  if (!document) return document.error();
  const auto* object = document->if_object();
  if (object == nullptr) {
    return Error{Code::kInvalidArgument,
                 "the body must be a JSON object, not " + std::string(kind_name(*document))};
  }
  ChatRequest out;
  const json::value* model = find(*object, "model");
  if (model == nullptr) return bad("model", "is required");
  if (!model->is_string()) return wrong_type("model", "a string", *model);
  if (model->get_string().empty()) return bad("model", "must not be empty");
  out.model = std::string_view(model->get_string());

  using Step = Status (*)(const json::object&, ChatRequest&);
  for (const Step step :
       {Step(parse_messages), Step(parse_sampling), Step(parse_stop), Step(parse_stream)}) {
    if (auto status = step(*object, out); !status) return status.error();
  }
  if (auto status = refuse_unsupported(*object); !status) return status.error();
  return out;
}

}  // namespace waystation::message
