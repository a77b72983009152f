// Chooses among the tokens that a grammar allows without asking it about the whole vocabulary.
//
// What has to come out is what would come out if the grammar struck out all that it forbids and
// the choice were made among the rest. That costs llama.cpp 10 ms and more a token at a vocabulary
// of 49,152, while nearly always only a handful of the rest has a chance. So the grammar is asked
// about the likeliest first: about one token, then 64, then, of those that begin with a byte that
// can come, 8 times as many each time, until no answer about the others can change the choice:
//
//   temperature 0    The choice is the first that is allowed.
//   no truncation    A draw is the largest sum of logit and noise (random.h): again the first that
//                    is allowed, in the order of the sums.
//   truncation       What the others are worth together, if they are all allowed, bounds how many
//                    of the allowed ones top_k, top_p and min_p keep. The draw among the fewest is
//                    the draw among the most.
//
// In the worst case all tokens are asked about, which is the plain way.
#pragma once

#include <cstdint>
#include <span>

#include <llama.h>

#include "engine/llama/grammar.h"

namespace waystation::engine {

// How to choose, in this order.
struct Choosing {
  std::size_t top_k = 0;   // 0 = all
  double top_p = 1;        // 1 = all
  double min_p = 0;        // 0 = all
  double temperature = 1;  // 0 = the likeliest, and nothing else here counts

  bool truncates() const { return top_k > 0 || top_p < 1 || min_p > 0; }
};

// One of `candidates`, or LLAMA_TOKEN_NULL if none may come; the same whenever `random` is. Leaves
// the candidates in another order and with other logits. Of equally likely ones that with the
// smallest id goes first.
llama_token choose_allowed(Grammar& grammar, const Choosing& choosing, std::uint64_t random,
                           std::span<llama_token_data> candidates);

}  // namespace waystation::engine
