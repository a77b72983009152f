// OpenAI's chat completion request as a value: parsed and checked once by `front`, parsed again
// from the envelope's data by the engine that runs it. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "message/generation.h"

namespace waystation::message {

// CloudEvents `type` of a chat request; its data is the client's JSON body as it came.
inline constexpr std::string_view kChatRequestType = "waystation.chat.request.v1";

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON, as the model wrote it
};

struct ChatMessage {
  std::string role;     // "system", "developer", "user", "assistant", "tool"
  std::string content;  // text; text parts are joined
  std::string name;
  std::string reasoning;             // an assistant's thinking, given back by the client
  std::vector<ToolCall> tool_calls;  // of an assistant
  std::string tool_call_id;          // of a tool's answer
};

struct Tool {
  std::string name;
  std::string description;
  std::string parameters;  // a JSON schema; "{}" when none was given
  bool strict = false;     // calls follow the schema exactly, or it is refused
};

enum class ToolChoice { kAuto, kNone, kRequired, kNamed };
enum class ResponseFormat { kText, kJsonObject, kJsonSchema };

struct ChatRequest : Generation {
  std::string model;
  std::vector<ChatMessage> messages;
  std::vector<Tool> tools;
  ToolChoice tool_choice = ToolChoice::kAuto;  // kNone without tools
  std::string tool_name;                       // for kNamed: one of the tools
  bool parallel_tool_calls = true;
  ResponseFormat response_format = ResponseFormat::kText;
  std::string json_schema;       // for kJsonSchema
  std::string reasoning_effort;  // "none", "low", …; empty: the model's own
};

// Parses and checks a request body. Errors: kInvalidArgument with `param` naming the field as in
// "messages[0].role".
Result<ChatRequest> parse_chat_request(std::string_view body);

}  // namespace waystation::message
