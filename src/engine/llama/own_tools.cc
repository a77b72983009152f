#include "engine/llama/own_tools.h"

#include <algorithm>

#include <fmt/format.h>

#include "engine/llama/json_grammar.h"
#include "message/json.h"
#include "message/json_schema.h"

namespace waystation::engine {
namespace {

constexpr std::string_view kHowTo =
    "# Tools\n\nYou may call these functions to help with the user's query. Each line is one "
    "function "
    "with the JSON schema of its arguments:\n<tools>\n";
constexpr std::string_view kFormat =
    "</tools>\n\nTo call a function, write a JSON object with its name and arguments between "
    "<tool_call> tags and nothing after it:\n"
    "<tool_call>{\"name\": \"function-name\", \"arguments\": {...}}</tool_call>";

std::string tools_section(const ToolUse& use) {
  std::string out(kHowTo);
  for (const message::Tool& tool : use.tools) {
    out += fmt::format("{{\"name\": {}, \"description\": {}, \"parameters\": {}}}\n",
                       message::json_string(tool.name), message::json_string(tool.description),
                       tool.parameters);
  }
  out += kFormat;
  if (use.must_call) out += "\nAnswer with a function call.";
  return out;
}

std::string arguments_of(const message::ToolCall& call) {
  return call.arguments.empty() ? "{}" : call.arguments;
}

// A message without what only templates with tools can show.
message::ChatMessage as_text(const message::ChatMessage& message) {
  message::ChatMessage out;
  out.role = message.role;
  out.name = message.name;
  out.content = message.content;
  out.reasoning = message.reasoning;
  for (const message::ToolCall& call : message.tool_calls) {
    if (!out.content.empty()) out.content += "\n";
    out.content += call_head(call.name) + arguments_of(call) + "}" + std::string(kCallEnd);
  }
  if (message.role == "tool") {
    out.role = "user";
    out.content = "<tool_response>\n" + message.content + "\n</tool_response>";
  }
  return out;
}

}  // namespace

constexpr int kCallsMax = 32;       // in one answer
constexpr int kForcedCallsMax = 4;  // when a call must come

// Not in the middle of a longer word: the grammar would have no way on.
const char* const kCallTrigger = "(<tool_call)(?![a-zA-Z0-9_])";

std::string call_head(std::string_view name) {
  return fmt::format("{}{{\"name\": \"{}\", \"arguments\": ", kCallStart, name);
}

ToolUse tool_use_of(const message::ChatRequest& request) {
  ToolUse use;
  if (request.tool_choice == message::ToolChoice::kNone) return use;
  // A function that is asked for by name is called once.
  use.several =
      request.parallel_tool_calls && request.tool_choice != message::ToolChoice::kNamed;
  use.must_call = request.tool_choice != message::ToolChoice::kAuto;
  for (const message::Tool& tool : request.tools) {
    if (request.tool_choice == message::ToolChoice::kNamed && tool.name != request.tool_name) {
      continue;
    }
    use.tools.push_back(tool);
  }
  return use;
}

std::vector<message::ChatMessage> tell_tools(const message::ChatRequest& request,
                                             const ToolUse& use) {
  std::vector<message::ChatMessage> out;
  for (const message::ChatMessage& message : request.messages) {
    message::ChatMessage text = as_text(message);
    // Results of several calls are one turn: templates want turns to alternate.
    const bool joins = message.role == "tool" && !out.empty() && out.back().role == "user" &&
                       out.back().content.ends_with("</tool_response>");
    if (joins) {
      out.back().content += "\n" + text.content;
    } else {
      out.push_back(std::move(text));
    }
  }
  if (use.tools.empty()) return out;
  const std::string section = tools_section(use);
  if (out.empty() || (out[0].role != "system" && out[0].role != "developer")) {
    message::ChatMessage system;
    system.role = "system";
    system.content = section;
    out.insert(out.begin(), std::move(system));
  } else {
    out[0].content += (out[0].content.empty() ? "" : "\n\n") + section;
  }
  return out;
}

Result<std::string> parameters_of(const message::Tool& tool, std::size_t index) {
  const bool none = tool.parameters.empty() || tool.parameters == "{}";
  const std::string param = fmt::format("tools[{}].function.parameters", index);
  const auto use = tool.strict ? message::SchemaUse::kExact : message::SchemaUse::kLoose;
  auto normal = message::normal_json_schema(
      none ? R"({"type":"object","properties":{},"additionalProperties":false})" : tool.parameters,
      param, use, fmt::format("t{}r", index));
  // Arguments are always an object.
  const bool object =
      !normal || normal->starts_with(R"({"type":"object")") || normal->starts_with(R"({"$ref")");
  return object ? normal : R"({"type":"object"})";
}

Result<std::string> grammar_of_tools(const ToolUse& use) {
  std::vector<std::string> schemas;
  for (std::size_t i = 0; i < use.tools.size(); ++i) {
    auto schema = parameters_of(use.tools[i], i);
    if (!schema) return schema.error();
    schemas.push_back(std::move(*schema));
  }
  return make_grammar(
      [&](GrammarWriter& writer) {
        std::string any;
        for (std::size_t i = 0; i < use.tools.size(); ++i) {
          const std::string arguments =
              writer.schema(fmt::format("tool-{}-arguments", i), schemas[i]);
          const std::string head = "\"{\" gap " + grammar_literal("\"name\":") + " gap " +
                                   grammar_literal("\"" + use.tools[i].name + "\"") +
                                   " gap \",\" gap " + grammar_literal("\"arguments\":") + " gap ";
          any += (any.empty() ? "" : " | ") +
                 writer.rule(fmt::format("tool-{}", i), head + arguments + " gap \"}\"");
        }
        writer.rule("gap", "[ \\n]?");
        writer.rule("any-tool", any);
        const std::string call = writer.rule(
            "tool-call", grammar_literal(std::string(kCallStart)) + " lead any-tool gap " +
                             grammar_literal(std::string(kCallEnd)));
        // A tokenizer may have joined white space to the tag before the grammar began.
        writer.rule("lead", "[ \\n\\t\\r]{0,4}");
        std::string root = call;
        // Small models that must call go on calling: an end that they come to is better than none.
        if (use.several) {
          root += fmt::format(" (\"\\n\"? {}){{0,{}}}", call, (use.must_call ? kForcedCallsMax : kCallsMax) - 1);
        }
        if (!use.json_schema.empty() && !use.must_call) {
          root = "(" + root + ") | " + writer.schema("json", use.json_schema);
        }
        writer.rule("root", root);
      },
      "tools");
}

}  // namespace waystation::engine
