// The parts of a chat request that shape the answer: tools and response_format. For this folder's
// sources only. Pure.
#pragma once

#include "message/chat.h"
#include "message/fields.h"

namespace waystation::message {

// tools, tool_choice, parallel_tool_calls.
Status parse_tools(const fields::Object& body, ChatRequest& out);

// response_format.
Status parse_response_format(const fields::Object& body, ChatRequest& out);

// An assistant's tool_calls in a message of the history.
Result<std::vector<ToolCall>> parse_tool_calls(const fields::Value& value,
                                               const std::string& param);

}  // namespace waystation::message
