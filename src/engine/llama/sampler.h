// Chooses an answer's tokens, one slot's worth of state. Owned by a slot, used on its thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <llama-cpp.h>

#include "base/result.h"
#include "engine/llama/allowed.h"
#include "engine/llama/grammar.h"
#include "engine/llama/prompt.h"

namespace waystation::engine {

// The random number of the answer's token i is a function of the seed and i. An answer that is
// resumed after k accepted tokens therefore draws what the undisturbed one would have drawn, at any
// temperature. The order of things: biases, penalties, grammar, top_k, top_p, min_p, temperature,
// draw.
class Sampler {
 public:
  // kInvalidArgument when the grammar can't be parsed.
  static Result<Sampler> make(const Model& model, const Sampling& sampling, std::uint32_t choice);

  // The next token, from the logits of the whole vocabulary. Not accepted yet. Throws when the
  // grammar has no way on.
  llama_token sample(std::span<const float> logits);
  // Counts `token` as generated: penalties, grammar and the random numbers go on from it. Throws
  // when the grammar can't take it.
  void accept(llama_token token);

  // How many tokens were held against the grammar.
  std::uint64_t checked() const { return grammar_ ? grammar_->checked() : 0; }

 private:
  bool plain_ = true;                 // greedy, with nothing that has a state
  llama_sampler_ptr adjust_;          // biases and penalties
  llama_sampler_ptr truncate_;        // top_k to temperature
  std::unique_ptr<Grammar> grammar_;  // or null
  Choosing choosing_;
  std::uint64_t seed_ = 0;
  std::uint64_t index_ = 0;  // of the answer's token that comes next
  std::vector<llama_token_data> candidates_;
};

}  // namespace waystation::engine
