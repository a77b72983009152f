#include "engine/llama/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace waystation::engine {

v1::TokenLogprob token_logprob(const Model& model, std::int32_t row, llama_token token,
                               std::int32_t alternatives) {
  const float* logits = model.logits(row).data();
  const std::int32_t vocabulary = llama_vocab_n_tokens(model.vocab());
  const float best = *std::max_element(logits, logits + vocabulary);
  double sum = 0;
  for (std::int32_t i = 0; i < vocabulary; ++i) sum += std::exp(logits[i] - best);
  const double norm = best + std::log(sum);

  v1::TokenLogprob result;
  result.set_token(model.piece(token));
  result.set_logprob(static_cast<float>(logits[token] - norm));
  if (alternatives <= 0) return result;
  std::vector<llama_token> order(static_cast<std::size_t>(vocabulary));
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + std::min(alternatives, vocabulary);
  std::partial_sort(order.begin(), end, order.end(), [logits](llama_token a, llama_token b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  for (auto at = order.begin(); at != end; ++at) {
    v1::TokenCandidate& candidate = *result.add_top();
    candidate.set_token(model.piece(*at));
    candidate.set_logprob(static_cast<float>(logits[*at] - norm));
  }
  return result;
}

}  // namespace waystation::engine
