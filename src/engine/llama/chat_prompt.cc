#include "engine/llama/chat_prompt.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>
#include <vector>

#include <chat.h>
#include <common.h>
#include <fmt/format.h>

#include "engine/llama/json_grammar.h"
#include "engine/llama/own_tools.h"
#include "message/json.h"
#include "message/json_schema.h"

namespace waystation::engine {
namespace {

constexpr char kSchemaParam[] = "response_format.json_schema.schema";

// The normal schema that an answer's text has to follow; empty: any text will do.
Result<std::string> schema_of(const message::ChatRequest& request) {
  if (request.response_format == message::ResponseFormat::kText) return std::string();
  if (!request.stop.empty()) {
    return Error{Code::kInvalidArgument,
                 "stop can't be combined with a response_format of JSON, which "
                 "it could cut: leave one of them out",
                 "stop"};
  }
  if (request.response_format == message::ResponseFormat::kJsonObject)
    return R"({"type":"object"})";
  return message::normal_json_schema(request.json_schema, kSchemaParam, message::SchemaUse::kExact);
}

common_chat_msg turn_of(const message::ChatMessage& message,
                        const std::vector<message::ChatMessage>& all) {
  common_chat_msg turn;
  turn.role = message.role == "developer" ? "system" : message.role;
  turn.content = message.content;
  turn.reasoning_content = message.reasoning;
  turn.tool_call_id = message.tool_call_id;
  for (const message::ToolCall& call : message.tool_calls) {
    turn.tool_calls.push_back({.name = call.name,
                               .arguments = call.arguments.empty() ? "{}" : call.arguments,
                               .id = call.id});
  }
  if (message.role != "tool") return turn;
  for (const message::ChatMessage& other : all) {
    for (const message::ToolCall& call : other.tool_calls) {
      if (call.id == message.tool_call_id) turn.tool_name = call.name;
    }
  }
  return turn;
}

common_chat_templates_inputs inputs_of(const std::vector<message::ChatMessage>& messages,
                                       const std::string& effort, std::int64_t time_ms) {
  common_chat_templates_inputs inputs;
  for (const message::ChatMessage& message : messages) {
    inputs.messages.push_back(turn_of(message, messages));
  }
  inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
  inputs.enable_thinking = effort != "none";
  if (!effort.empty() && effort != "none") {
    inputs.chat_template_kwargs["reasoning_effort"] = message::json_string(effort);
  }
  // Some templates write the date; another attempt must not write another one.
  inputs.now = std::chrono::system_clock::time_point(std::chrono::milliseconds(time_ms));
  return inputs;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::string_view(" \t\r\n").contains(text.back())) text.remove_suffix(1);
  return text;
}

void set_thinking(const common_chat_params& chat, AnswerFormat& format) {
  if (!chat.supports_thinking || chat.thinking_end_tags.empty()) return;
  format.think_start = chat.thinking_start_tag;
  format.think_end = chat.thinking_end_tags.front();
  format.begins_thinking =
      !format.think_start.empty() && trimmed(chat.prompt).ends_with(format.think_start);
}

void read_by_template(const Model& model, const common_chat_params& chat, Prompt& prompt) {
  prompt.format.kind = AnswerFormat::Kind::kTemplate;
  prompt.format.template_parser = chat.parser;
  prompt.format.template_format = static_cast<int>(chat.format);
  prompt.format.generation_prompt = chat.generation_prompt;
  prompt.format.parses_reasoning = chat.supports_thinking;
  for (const std::string& text : chat.preserved_tokens) {
    const auto tokens = common_tokenize(model.vocab(), text, false, true);
    if (tokens.size() == 1) prompt.shown.push_back(tokens[0]);
  }
}

void set_stops(const common_chat_params& chat, Prompt& prompt) {
  for (const std::string& stop : chat.additional_stops) {
    if (!stop.empty()) prompt.raw_stops.push_back(stop);
  }
}

// The grammar that llama-common made for the template's way to write calls.
void set_template_grammar(const Model& model, const common_chat_params& chat, Prompt& prompt) {
  GrammarRule& rule = prompt.sampling.grammar;
  rule.text = plain_json_grammar(chat.grammar);
  rule.lazy = chat.grammar_lazy;
  rule.prefill = chat.generation_prompt;
  rule.think_start = prompt.format.think_start;
  rule.think_end = prompt.format.think_end;
  for (const common_grammar_trigger& trigger : chat.grammar_triggers) {
    if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN) {
      rule.trigger_tokens.push_back(trigger.token);
    } else if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD) {
      const auto tokens = common_tokenize(model.vocab(), trigger.value, false, true);
      if (tokens.size() == 1) {
        rule.trigger_tokens.push_back(tokens[0]);
        prompt.shown.push_back(tokens[0]);
      } else {
        rule.triggers.push_back(trigger.value);
      }
    } else {
      const bool whole = trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL;
      rule.trigger_patterns.push_back(whole ? "^" + trigger.value + "$" : trigger.value);
    }
  }
}

// Tools as the model's own template tells them. Empty when the template has no way to write calls,
// or none that can be forced when one must come.
Result<std::string> ask_with_template_tools(const Model& model, const message::ChatRequest& request,
                                            const ToolUse& use, std::int64_t time_ms,
                                            Prompt& prompt) {
  auto inputs = inputs_of(request.messages, request.reasoning_effort, time_ms);
  for (std::size_t i = 0; i < use.tools.size(); ++i) {
    auto parameters = parameters_of(use.tools[i], i);
    if (!parameters) return parameters.error();
    inputs.tools.push_back({use.tools[i].name, use.tools[i].description, *parameters});
  }
  // Also when a call must come: llama-common's "required" lets any text come first, but what it
  // makes for "auto" is a grammar of the calls alone.
  inputs.tool_choice = COMMON_CHAT_TOOL_CHOICE_AUTO;
  if (use.must_call) inputs.enable_thinking = false;
  inputs.parallel_tool_calls = use.several;
  const common_chat_params chat = common_chat_templates_apply(model.templates(), inputs);
  if (chat.grammar.empty() || chat.parser.empty() || !chat.grammar_lazy) return std::string();
  AnswerFormat thinking;
  set_thinking(chat, thinking);
  if (use.must_call && thinking.begins_thinking) return std::string();
  set_stops(chat, prompt);
  set_thinking(chat, prompt.format);
  read_by_template(model, chat, prompt);
  set_template_grammar(model, chat, prompt);
  if (use.must_call) prompt.sampling.grammar.lazy = false;
  return chat.prompt;
}

// The prompt without tools of the template's; `constrained`: the answer follows a grammar from its
// beginning, so the model can't think first.
std::string ask_plainly(const Model& model, const message::ChatRequest& request, const ToolUse& use,
                        bool constrained, std::int64_t time_ms, Prompt& prompt) {
  const bool as_text = !use.tools.empty() || !model.template_has_calls();
  auto inputs = inputs_of(as_text ? tell_tools(request, use) : request.messages,
                          request.reasoning_effort, time_ms);
  if (constrained || !use.tools.empty()) inputs.enable_thinking = false;
  const common_chat_params chat = common_chat_templates_apply(model.templates(), inputs);
  set_stops(chat, prompt);
  AnswerFormat& format = prompt.format;
  set_thinking(chat, format);
  if (!constrained && use.tools.empty()) {
    const bool usual = format.think_start == "<think>" && format.think_end == "</think>";
    if (chat.supports_thinking && !usual) read_by_template(model, chat, prompt);
    return chat.prompt;
  }
  std::string text = chat.prompt;
  if (format.begins_thinking) text += "\n" + format.think_end + "\n\n";  // it has thought
  format = {};
  if (!use.tools.empty()) format.kind = AnswerFormat::Kind::kOwnTools;
  return text;
}

Status set_own_grammar(const ToolUse& use, GrammarRule& rule) {
  auto grammar =
      use.tools.empty() ? grammar_of_schema(use.json_schema, kSchemaParam) : grammar_of_tools(use);
  if (!grammar) return grammar.error();
  rule.text = std::move(*grammar);
  rule.lazy = !use.must_call && use.json_schema.empty();
  if (rule.lazy) rule.trigger_patterns.emplace_back(kCallTrigger);
  return {};
}

}  // namespace

Result<std::string> ask_as_chat(const Model& model, const message::ChatRequest& request,
                                std::int64_t time_ms, Prompt& prompt) {
  auto schema = schema_of(request);
  if (!schema) return schema.error();
  ToolUse use = tool_use_of(request);
  use.json_schema = std::move(*schema);
  try {
    if (!use.tools.empty() && use.json_schema.empty() && model.template_has_tools()) {
      auto text = ask_with_template_tools(model, request, use, time_ms, prompt);
      if (!text || !text->empty()) return text;
    }
    const bool constrained = use.must_call || !use.json_schema.empty();
    if (constrained || !use.tools.empty()) {
      if (Status set = set_own_grammar(use, prompt.sampling.grammar); !set) return set.error();
    }
    return ask_plainly(model, request, use, constrained, time_ms, prompt);
  } catch (const std::exception& error) {
    return Error{Code::kInvalidArgument,
                 fmt::format("the model's chat template refuses these messages: {}", error.what()),
                 "messages"};
  }
}

}  // namespace waystation::engine
