// What clients may say about how an answer is generated, in any of OpenAI's APIs. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace waystation::message {

// Choices of one prompt. Each is an answer of its own with its own memory in the engine.
inline constexpr std::uint32_t kChoicesMax = 16;
// Choices of one request with several prompts.
inline constexpr std::uint32_t kPromptChoicesMax = 64;

struct Generation {
  double temperature = 1.0;  // 0 = greedy
  double top_p = 1.0;
  std::optional<std::uint32_t> top_k;  // 0 = all tokens; unset: the engine's default
  std::optional<double> min_p;         // unset: the engine's default
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;            // at most 4, none empty
  std::optional<std::uint32_t> max_tokens;  // of one choice
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  std::vector<std::pair<std::uint32_t, double>> logit_bias;  // token id, -100 to 100
  std::optional<std::uint32_t> logprobs;  // set: wanted, with so many alternatives (0 to 20)
  std::uint32_t choices = 1;              // OpenAI's n
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
  std::string service_tier;    // as sent: "auto", "default", "flex", "priority", or empty
};

}  // namespace waystation::message
