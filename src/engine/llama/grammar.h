// The grammar of one answer, and where in it the answer stands. Owned by a sampler, used on its
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include <llama-cpp.h>

#include "base/result.h"
#include "engine/llama/prompt.h"

namespace waystation::engine {

class Grammar {
 public:
  // kInvalidArgument when `rule` can't be parsed. Not for a rule without text.
  static Result<std::unique_ptr<Grammar>> make(const Model& model, const GrammarRule& rule);

  // False while the model thinks: then nothing is forbidden.
  bool awake() const;
  // Sets the logits of those that can't come next to minus infinity. A microsecond or more for
  // each.
  void strike(std::span<llama_token_data> tokens);
  // Those of `tokens`, put in front, that begin with a byte that can come next. A quick way to be
  // rid of most: when the token that is a byte alone can't come, none that begins with it can.
  std::span<llama_token_data> narrow(std::span<llama_token_data> tokens);
  // Throws what llama.cpp throws when `token` can't come next.
  void accept(llama_token token);

  // How many tokens were held against the grammar.
  std::uint64_t checked() const { return checked_; }

 private:
  explicit Grammar(const FirstBytes& first) : first_(&first) {}

  const FirstBytes* first_;  // the model's
  bool by_bytes_ = false;    // nothing in the grammar asks for a token by its id
  llama_sampler_ptr grammar_;
  llama_sampler_ptr thinking_;  // null: the model doesn't think, or the grammar holds all the same
  std::uint64_t checked_ = 0;
};

}  // namespace waystation::engine
