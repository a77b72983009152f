// OpenAI's legacy completion request as a value. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "message/generation.h"

namespace waystation::message {

// CloudEvents `type`; its data is the client's JSON body as it came.
inline constexpr std::string_view kCompletionRequestType = "waystation.completion.request.v1";

// Text, or token ids of the model.
using TokenInput = std::variant<std::string, std::vector<std::uint32_t>>;

// Choice i answers prompt i / n; Generation::choices counts all of them: prompts × n.
struct CompletionRequest : Generation {
  std::string model;
  std::vector<TokenInput> prompts;  // at least one
  std::uint32_t n = 1;              // choices a prompt
  bool echo = false;                // the prompt's text begins the answer's
};

// Errors: kInvalidArgument with `param`.
Result<CompletionRequest> parse_completion_request(std::string_view body);

}  // namespace waystation::message
