// The tools of a Responses request, for this folder's sources only (see fields.h). Pure.
#pragma once

#include <string>

#include "message/fields.h"

namespace waystation::message {

// All of it JSON.
struct ResponseTools {
  std::string shown;         // `tools` of the response object
  std::string choice_shown;  // and its `tool_choice`
  std::string chat;          // `tools` of the chat body: those that may be called; empty: none
  std::string chat_choice;   // and its `tool_choice`
  bool parallel = true;
};

// `tools`, `tool_choice` and `parallel_tool_calls` of a body. Errors: kInvalidArgument with
// `param`.
Result<ResponseTools> parse_response_tools(const fields::Object& body);

}  // namespace waystation::message
