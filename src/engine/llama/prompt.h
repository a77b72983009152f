// From an envelope to what the model is asked: the prompt's tokens and how to sample the answer.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <llama.h>

#include "base/result.h"
#include "engine/llama/model.h"
#include "message/proto/envelope.pb.h"

namespace waystation::engine {

struct Sampling {
  double temperature = 1.0;  // 0 = always the likeliest token
  double top_p = 1.0;
  double presence_penalty = 0.0;   // over the answer's tokens, as OpenAI defines them
  double frequency_penalty = 0.0;
  std::uint64_t seed = 0;
  std::string grammar;  // GBNF; empty = none
};

struct Prompt {
  std::vector<llama_token> tokens;
  std::vector<std::string> stops;
  std::uint32_t answer_tokens_max = std::numeric_limits<std::uint32_t>::max();
  Sampling sampling;
};

// A function of the envelope and the model alone, so every attempt gets the same prompt. Without a
// seed of the client's the request's id gives one. Errors: kInvalidArgument (no chat request, or the
// model's template refuses the messages), kContextLengthExceeded.
Result<Prompt> make_prompt(const Model& model, const v1::Envelope& envelope,
                           const std::string& request_id);

}  // namespace waystation::engine
