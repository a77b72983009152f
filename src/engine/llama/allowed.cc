#include "engine/llama/allowed.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "engine/llama/random.h"

namespace waystation::engine {
namespace {

constexpr std::size_t kSecond = 64;
constexpr std::size_t kGrowth = 8;

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

bool likelier(const llama_token_data& a, const llama_token_data& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

float with_noise(const llama_token_data& token, double temperature, std::uint64_t random) {
  return token.logit / static_cast<float>(temperature) +
         gumbel(random_at(random, static_cast<std::uint64_t>(token.id)));
}

// What is known: `allowed`, the likeliest first, and `others` after them, of which the grammar may
// allow any.
struct Known {
  std::span<const llama_token_data> allowed;
  std::span<const llama_token_data> others;

  // The best one weighs 1.
  double weight(const llama_token_data& token) const {
    return std::exp(token.logit - allowed[0].logit);
  }
  double sum(std::span<const llama_token_data> tokens) const {
    double sum = 0;
    for (const llama_token_data& token : tokens) sum += weight(token);
    return sum;
  }
};

// How many of the allowed tokens are kept when those of the others that are allowed weigh `more`
// together; nothing if some of the others may be kept.
std::optional<std::size_t> kept(const Choosing& choosing, const Known& known, double more) {
  std::size_t count = known.allowed.size();
  bool closed = known.others.empty();
  if (choosing.top_k > 0 && choosing.top_k <= count) {
    count = choosing.top_k;
    closed = true;
  }
  if (choosing.top_p < 1) {
    const double part =
        choosing.top_p * (known.sum(known.allowed.first(count)) + (closed ? 0 : more));
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      sum += known.weight(known.allowed[i]);
      if (sum < part) continue;
      count = i + 1;
      closed = true;
    }
  }
  if (choosing.min_p > 0) {
    const auto unlikely = [&](const llama_token_data& token) {
      return known.weight(token) < choosing.min_p;
    };
    while (count > 1 && unlikely(known.allowed[count - 1])) --count;
    closed = closed || std::ranges::all_of(known.others, unlikely);
  }
  return closed ? std::optional(count) : std::nullopt;
}

// The choice, if nothing that the grammar may say about the others changes it.
std::optional<llama_token> decided(const Choosing& choosing, std::uint64_t random,
                                   const Known& known) {
  if (known.allowed.empty()) return std::nullopt;
  if (choosing.temperature == 0) return known.allowed[0].id;
  const bool sum_matters = choosing.top_p < 1;
  const auto most = kept(choosing, known, sum_matters ? known.sum(known.others) : 0);
  if (!most) return std::nullopt;
  const auto fewest = sum_matters ? kept(choosing, known, 0) : most;
  std::size_t best = 0;
  float best_sum = kForbidden;
  for (std::size_t i = 0; i < *most; ++i) {
    const float sum = with_noise(known.allowed[i], choosing.temperature, random);
    if (sum <= best_sum) continue;
    best = i;
    best_sum = sum;
  }
  return best < *fewest ? std::optional(known.allowed[best].id) : std::nullopt;
}

}  // namespace

llama_token choose_allowed(Grammar& grammar, const Choosing& choosing, std::uint64_t random,
                           std::span<llama_token_data> candidates) {
  Choosing how = choosing;
  if (choosing.temperature > 0 && !choosing.truncates()) {
    for (llama_token_data& token : candidates) {
      token.logit = with_noise(token, choosing.temperature, random);
    }
    how.temperature = 0;
  }
  std::vector<llama_token_data> allowed;
  std::span<llama_token_data> others = candidates;
  for (std::size_t count = 1; !others.empty(); count = count == 1 ? kSecond : count * kGrowth) {
    const std::span<llama_token_data> next = others.first(std::min(count, others.size()));
    std::ranges::partial_sort(others, others.begin() + static_cast<std::ptrdiff_t>(next.size()),
                              likelier);
    grammar.strike(next);
    for (const llama_token_data& token : next) {
      if (token.logit != kForbidden) allowed.push_back(token);
    }
    others = others.subspan(next.size());
    if (const auto token = decided(how, random, {allowed, others})) return *token;
    if (count == kSecond) others = grammar.narrow(others);
  }
  return LLAMA_TOKEN_NULL;
}

}  // namespace waystation::engine
