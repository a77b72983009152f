// Chooses an answer's tokens, one slot's worth of state. Owned by a slot, used on its thread.
#pragma once

#include <cstdint>
#include <memory>

#include <llama.h>

#include "base/result.h"
#include "engine/llama/prompt.h"

struct common_sampler;

namespace waystation::engine {

// llama.cpp's samplers and grammars, with a last step of our own: the random number of the answer's
// token i is a function of the seed and i. An answer that is resumed after k accepted tokens
// therefore draws what the undisturbed one would have drawn, at any temperature.
class Sampler {
 public:
  // kInvalidArgument when the grammar can't be parsed.
  static Result<Sampler> make(const Model& model, const Sampling& sampling, std::uint32_t choice);

  // The next token, from row `index` of the context's logits. Not accepted yet.
  llama_token sample(llama_context* context, std::int32_t index);
  // Counts `token` as generated: penalties, grammar and the random numbers go on from it.
  void accept(llama_token token);

 private:
  struct Free {
    void operator()(common_sampler* sampler) const;
  };

  std::unique_ptr<common_sampler, Free> chain_;  // null: greedy, with nothing that has a state
  std::int32_t vocabulary_ = 0;
};

}  // namespace waystation::engine
