#include "message/responses.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>

#include "message/json.h"
#include "message/parameters.h"
#include "message/response_items_value.h"
#include "message/response_tools.h"

namespace waystation::message {
namespace {

namespace json = boost::json;
using fields::bad;
using fields::find;
using fields::Object;
using fields::Value;
using fields::wrong_type;

// Parameters of the Responses API that would change the answer and can't be done here.
constexpr const char* kRefused[] = {"prompt", "moderation", "context_management"};

// Parameters of the chat body that the Responses API doesn't have, but our models do.
constexpr const char* kPassedOn[] = {
    "seed", "top_k", "min_p", "stop", "presence_penalty", "frequency_penalty", "logit_bias"};

constexpr const char* kIncludable[] = {"file_search_call.results",
                                       "web_search_call.results",
                                       "web_search_call.action.sources",
                                       "message.input_image.image_url",
                                       "computer_call_output.output.image_url",
                                       "code_interpreter_call.outputs",
                                       "reasoning.encrypted_content",
                                       "message.output_text.logprobs"};
constexpr std::string_view kLogprobs = "message.output_text.logprobs";

// Shortest text that reads back as the same number.
std::string number_text(double number) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), number).ptr;
  return {text.data(), end};
}

std::string or_null(std::string_view text) {
  return text.empty() ? "null" : json_string(text);
}

// Members of a JSON object, written one after the other.
class Members {
 public:
  void add(std::string_view name, std::string_view value) {
    if (!text_.empty()) text_ += ",";
    text_ += "\"" + std::string(name) + "\":" + std::string(value);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

// Reads a body into a request, its parameters and its chat options side by side.
class Parser {
 public:
  Parser(const Object& body, RequestId id) : body_(body), id_(id) {}

  Result<ResponseRequest> parse() {
    for (const auto step : {&Parser::parse_flags, &Parser::parse_model, &Parser::parse_labels,
                            &Parser::parse_input, &Parser::parse_history, &Parser::parse_sampling,
                            &Parser::parse_include, &Parser::parse_tools, &Parser::parse_text,
                            &Parser::parse_reasoning, &Parser::refuse_the_rest}) {
      if (auto status = (this->*step)(); !status) return status.error();
    }
    out_.parameters = shown_.take();
    out_.options = "{" + chat_.take() + "}";
    return std::move(out_);
  }

 private:
  Status parse_model() {
    auto model = message::parse_model(body_);
    if (!model) return model.error();
    out_.model = std::move(*model);
    shown_.add("model", json_string(out_.model));
    chat_.add("model", json_string(out_.model));
    return {};
  }

  Status parse_labels() {
    if (auto status = check_labels(body_); !status) return status;
    const Value* metadata = find(body_, "metadata");
    shown_.add("metadata", metadata == nullptr ? "{}" : json::serialize(*metadata));
    for (const char* name : {"user", "safety_identifier", "prompt_cache_key"}) {
      const Value* label = find(body_, name);
      if (label != nullptr) shown_.add(name, json_string(label->get_string()));
    }
    return {};
  }

  Status parse_flags() {
    struct Flag {
      const char* name;
      bool* value;
    };
    for (const Flag& flag : {Flag{"background", &out_.background}, Flag{"store", &out_.store}}) {
      auto value = fields::flag(body_, flag.name, flag.name, *flag.value);
      if (!value) return value.error();
      *flag.value = *value;
      shown_.add(flag.name, *value ? "true" : "false");
    }
    if (out_.background && !out_.store) {
      return bad("background", "needs store: a response that isn't kept can't be fetched later");
    }
    Generation ignored;
    if (auto status = parse_stream(body_, ignored); !status) return status;
    out_.stream = ignored.stream;
    return {};
  }

  Status parse_input() {
    auto instructions = fields::text(body_, "instructions", "instructions");
    if (!instructions) return instructions.error();
    out_.instructions = std::move(*instructions);
    shown_.add("instructions", or_null(out_.instructions));
    const Value* input = find(body_, "input");
    if (input == nullptr) {
      return find(body_, "previous_response_id") ? Status() : Status(bad("input", "is required"));
    }
    if (const auto* text = input->if_string()) {
      out_.input.push_back(user_message(*text, id_));
      return {};
    }
    if (!input->is_array()) return wrong_type("input", "a string or an array of items", *input);
    auto items = parse_items(*input, "input", id_);
    if (!items) return items.error();
    if (items->empty() && !find(body_, "previous_response_id")) {
      return bad("input", "must have at least one item");
    }
    out_.input = std::move(*items);
    return {};
  }

  Status parse_history() {
    auto previous = fields::text(body_, "previous_response_id", "previous_response_id");
    if (!previous) return previous.error();
    out_.previous_response_id = std::move(*previous);
    shown_.add("previous_response_id", or_null(out_.previous_response_id));
    const Value* conversation = find(body_, "conversation");
    if (conversation == nullptr) {
      shown_.add("conversation", "null");
      return {};
    }
    if (const auto* name = conversation->if_string()) {
      out_.conversation = std::string_view(*name);
    } else if (const auto* object = conversation->if_object()) {
      auto name_member = fields::required_text(*object, "conversation.id", "id");
      if (!name_member) return name_member.error();
      out_.conversation = std::move(*name_member);
    } else {
      return wrong_type("conversation", "a string or an object with an id", *conversation);
    }
    if (out_.conversation.empty()) return bad("conversation", "must not be empty");
    if (!out_.previous_response_id.empty()) {
      return bad("previous_response_id", "can't be used together with conversation; send one");
    }
    shown_.add("conversation", "{\"id\":" + json_string(out_.conversation) + "}");
    return {};
  }

  Status parse_sampling() {
    Generation generation;
    if (auto status = parse_generation(body_, generation); !status) return status;
    if (generation.choices != 1)
      return bad("n", "is not a parameter here; a response has one output");
    if (generation.max_tokens) return bad("max_tokens", "is called max_output_tokens here");
    shown_.add("temperature", number_text(generation.temperature));
    shown_.add("top_p", number_text(generation.top_p));
    chat_.add("temperature", number_text(generation.temperature));
    chat_.add("top_p", number_text(generation.top_p));
    for (const char* name : kPassedOn) {
      if (const Value* value = find(body_, name)) chat_.add(name, json::serialize(*value));
    }
    constexpr std::int64_t kMost = 2'147'483'647;
    auto most = fields::integer(body_, "max_output_tokens", "max_output_tokens", 1, kMost);
    if (!most) return most.error();
    shown_.add("max_output_tokens", *most ? std::to_string(**most) : "null");
    if (*most) chat_.add("max_completion_tokens", std::to_string(**most));
    // Bounds calls of built-in tools, of which there are none.
    auto calls = fields::integer(body_, "max_tool_calls", "max_tool_calls", 1, kMost);
    if (!calls) return calls.error();
    shown_.add("max_tool_calls", *calls ? std::to_string(**calls) : "null");
    out_.service_tier = generation.service_tier;
    const bool is_default = out_.service_tier.empty() || out_.service_tier == "auto";
    shown_.add("service_tier", is_default ? "\"default\"" : json_string(out_.service_tier));
    if (!out_.service_tier.empty()) chat_.add("service_tier", json_string(out_.service_tier));
    return {};
  }

  Status parse_include() {
    bool logprobs = false;
    if (const Value* include = find(body_, "include")) {
      if (!include->is_array()) return wrong_type("include", "an array", *include);
      for (std::size_t i = 0; i < include->get_array().size(); ++i) {
        const Value& name = include->get_array()[i];
        const std::string at = fields::item("include", i);
        if (!name.is_string()) return wrong_type(at, "a string", name);
        const std::string_view text = name.get_string();
        if (std::find(std::begin(kIncludable), std::end(kIncludable), text) ==
            std::end(kIncludable)) {
          return bad(at, "is " + fields::quoted(text) + ", which nothing is known of");
        }
        logprobs = logprobs || text == kLogprobs;
      }
    }
    auto top = fields::integer(body_, "top_logprobs", "top_logprobs", 0, 20);
    if (!top) return top.error();
    shown_.add("top_logprobs", std::to_string(top->value_or(0)));
    if (!logprobs && top->value_or(0) > 0) {
      return bad("top_logprobs", "needs include: [\"" + std::string(kLogprobs) + "\"]");
    }
    if (logprobs) {
      chat_.add("logprobs", "true");
      chat_.add("top_logprobs", std::to_string(top->value_or(0)));
    }
    return {};
  }

  Status parse_tools() {
    auto tools = parse_response_tools(body_);
    if (!tools) return tools.error();
    shown_.add("tools", tools->shown);
    shown_.add("tool_choice", tools->choice_shown);
    shown_.add("parallel_tool_calls", tools->parallel ? "true" : "false");
    if (tools->chat.empty()) return {};
    chat_.add("tools", tools->chat);
    chat_.add("tool_choice", tools->chat_choice);
    chat_.add("parallel_tool_calls", tools->parallel ? "true" : "false");
    return {};
  }

  Status parse_text() {
    const Value* text = find(body_, "text");
    if (text != nullptr && !text->is_object()) return wrong_type("text", "an object", *text);
    const Object none;
    const Object& object = text == nullptr ? none : text->get_object();
    auto verbosity =
        fields::one_of(object, "text.verbosity", "verbosity", {"low", "medium", "high"});
    if (!verbosity) return verbosity.error();
    if (!verbosity->empty() && *verbosity != "medium") {
      return bad("text.verbosity", "must be 'medium'; the models served here don't have others");
    }
    const Value* format = find(object, "format");
    if (format == nullptr) {
      shown_.add("text", R"({"format":{"type":"text"}})");
      return {};
    }
    if (!format->is_object()) return wrong_type("text.format", "an object", *format);
    auto type = fields::required_text(format->get_object(), "text.format.type", "type");
    if (!type) return type.error();
    auto known = fields::one_of(format->get_object(), "text.format.type", "type",
                                {"text", "json_object", "json_schema"});
    if (!known) return known.error();
    shown_.add("text", "{\"format\":" + json::serialize(*format) + "}");
    if (*type == "json_object") chat_.add("response_format", R"({"type":"json_object"})");
    return *type == "json_schema" ? parse_schema(format->get_object()) : Status();
  }

  Status parse_schema(const Object& format) {
    auto name = fields::required_text(format, "text.format.name", "name");
    if (!name) return name.error();
    if (!fields::is_plain_name(*name)) {
      return bad("text.format.name", "must be 1 to 64 letters, digits, '_' and '-'");
    }
    const Value* schema = find(format, "schema");
    if (schema == nullptr) return bad("text.format.schema", "is required");
    if (!schema->is_object()) return wrong_type("text.format.schema", "an object", *schema);
    Object inner(format);
    inner.erase("type");
    chat_.add("response_format",
              "{\"type\":\"json_schema\",\"json_schema\":" + json::serialize(inner) + "}");
    return {};
  }

  Status parse_reasoning() {
    const Value* reasoning = find(body_, "reasoning");
    if (reasoning == nullptr) {
      shown_.add("reasoning", R"({"effort":null,"summary":null})");
      return {};
    }
    if (!reasoning->is_object()) return wrong_type("reasoning", "an object", *reasoning);
    const Object& object = reasoning->get_object();
    auto effort = fields::text(object, "reasoning.effort", "effort");
    if (!effort) return effort.error();
    for (const char* name : {"summary", "generate_summary"}) {
      const std::string at = std::string("reasoning.") + name;
      auto summary = fields::one_of(object, at, name, {"auto", "concise", "detailed"});
      if (!summary) return summary.error();
      if (!summary->empty() && *summary != "auto") {
        return bad(at, "must be 'auto' or left out: the reasoning itself is shown, not a summary");
      }
    }
    if (!effort->empty()) chat_.add("reasoning_effort", json_string(*effort));
    shown_.add("reasoning", "{\"effort\":" + or_null(*effort) + ",\"summary\":null}");
    return {};
  }

  Status refuse_the_rest() {
    for (const char* name : kRefused) {
      if (find(body_, name) != nullptr) return bad(name, "is not supported; leave it out");
    }
    auto truncation = fields::one_of(body_, "truncation", "truncation", {"auto", "disabled"});
    if (!truncation) return truncation.error();
    if (*truncation == "auto") {
      return bad("truncation", "must be 'disabled': nothing is left out of the input silently");
    }
    shown_.add("truncation", "\"disabled\"");
    return refuse_foreign(body_);
  }

  const Object& body_;
  const RequestId id_;
  ResponseRequest out_;
  Members shown_;
  Members chat_;
};

}  // namespace

Result<ResponseRequest> parse_response_request(std::string_view body, RequestId id) {
  auto document = fields::parse_body(body);
  if (!document) return document.error();
  return Parser(document->get_object(), id).parse();
}

Result<std::string> response_chat_body(const ResponseRequest& request,
                                       const std::vector<Item>& earlier) {
  std::vector<Item> all = earlier;
  all.insert(all.end(), request.input.begin(), request.input.end());
  auto messages = chat_messages(all, request.instructions, !request.conversation.empty());
  if (!messages) return messages.error();
  std::string out = request.options;
  out.pop_back();
  return out + ",\"messages\":" + *messages + "}";
}

Error as_response_error(Error error) {
  struct Name {
    std::string_view chat;
    std::string_view response;
  };
  constexpr Name kNames[] = {{"max_completion_tokens", "max_output_tokens"},
                             {"response_format.json_schema", "text.format"},
                             {"response_format", "text.format"},
                             {"reasoning_effort", "reasoning.effort"},
                             {"messages", "input"}};
  const auto rename = [](std::string& text, std::string_view from, std::string_view to) {
    if (!text.starts_with(from)) return false;
    text.replace(0, from.size(), to);
    return true;
  };
  const std::string before = error.param;
  for (const Name& name : kNames) {
    if (rename(error.param, name.chat, name.response)) break;
  }
  if (error.param.starts_with("tools[")) {
    if (const auto at = error.param.find(".function."); at != std::string::npos) {
      error.param.erase(at, std::string_view(".function").size());
    }
  }
  if (!before.empty()) rename(error.message, before, error.param);
  return error;
}

Result<std::string> parse_metadata(std::string_view body) {
  auto document = fields::parse_body(body);
  if (!document) return document.error();
  const Object& object = document->get_object();
  if (auto status = check_labels(object); !status) return status.error();
  const Value* metadata = find(object, "metadata");
  return metadata == nullptr ? std::string("{}") : json::serialize(*metadata);
}

}  // namespace waystation::message
