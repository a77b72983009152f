// OpenAI's chat completion request as a value: parsed and checked once by `front`, parsed again
// from the envelope's data by the engine that runs it. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace waystation::message {

// CloudEvents `type` of a chat request; its data is the client's JSON body as it came.
inline constexpr std::string_view kChatRequestType = "waystation.chat.request.v1";

struct ChatMessage {
  std::string role;     // "system", "developer", "user", "assistant", "tool"
  std::string content;  // text; text parts are joined
  std::string name;
};

struct ChatRequest {
  std::string model;
  std::vector<ChatMessage> messages;
  double temperature = 1.0;  // 0 = greedy
  double top_p = 1.0;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;            // at most 4, none empty
  std::optional<std::uint32_t> max_tokens;  // max_completion_tokens wins over max_tokens
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
};

// Parses and checks a request body. Errors: kInvalidArgument with `param` naming the field as in
// "messages[0].role".
Result<ChatRequest> parse_chat_request(std::string_view body);

}  // namespace waystation::message
