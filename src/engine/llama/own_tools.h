// Tools for models whose chat template knows nothing of them: how they are told in the prompt, how
// calls are written (<tool_call>{"name": …, "arguments": …}</tool_call>), and the grammar for that.
// See docs/adr/0006-tools-and-grammars.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "message/chat.h"

namespace waystation::engine {

inline constexpr std::string_view kCallStart = "<tool_call>";
inline constexpr std::string_view kCallEnd = "</tool_call>";

// What is wanted of the answer.
struct ToolUse {
  std::vector<message::Tool> tools;  // those that may be called
  bool must_call = false;
  bool several = true;
  std::string json_schema;  // normal; not empty: an answer without calls is JSON that follows it
};

// The tools that the request lets the model call; empty when none.
ToolUse tool_use_of(const message::ChatRequest& request);

// The messages with the tools in the system message, and with calls and their results as text.
std::vector<message::ChatMessage> tell_tools(const message::ChatRequest& request,
                                             const ToolUse& use);

// A grammar for the whole answer (must_call or json_schema), or for what follows the beginning of a
// call. kInvalidArgument names the tool whose parameters can't be used.
Result<std::string> grammar_of_tools(const ToolUse& use);

// Matches where a call begins: the first group.
extern const char* const kCallTrigger;

// The parameters as a normal schema of an object. `prefix`: see normal_json_schema.
Result<std::string> parameters_of(const message::Tool& tool, std::size_t index);

// A call as the model would write it, up to its arguments.
std::string call_head(std::string_view name);

}  // namespace waystation::engine
