#include "engine/llama/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "engine/llama/argmax.h"
#include "engine/llama/random.h"

namespace waystation::engine {
namespace {

constexpr std::int32_t kPenaltyTokens = 1 << 16;  // the whole answer

// Choice 0 answers as the only one would.
std::uint64_t seed_of_choice(std::uint64_t seed, std::uint32_t choice) {
  return choice == 0 ? seed : random_at(seed, (std::uint64_t{choice} << 32));
}

// The place of the first of the likeliest.
std::size_t likeliest(std::span<const llama_token_data> tokens) {
  return static_cast<std::size_t>(std::ranges::max_element(tokens, {}, &llama_token_data::logit) -
                                  tokens.begin());
}

// The place of the token at `part` of the sum of all weights.
std::size_t draw(std::span<const llama_token_data> tokens, double part) {
  const float best = tokens[likeliest(tokens)].logit;
  double sum = 0;
  for (const llama_token_data& token : tokens) sum += std::exp(token.logit - best);
  double left = part * sum;
  std::size_t chosen = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const float weight = std::exp(tokens[i].logit - best);
    if (weight <= 0) continue;
    chosen = i;
    left -= weight;
    if (left < 0) break;
  }
  return chosen;
}

// The client's, and what the model must never write.
std::vector<llama_logit_bias> biases_of(const llama_vocab* vocab, const Sampling& sampling) {
  std::vector<llama_logit_bias> biases;
  for (const auto& [token, bias] : sampling.logit_bias) biases.push_back({token, bias});
  std::int32_t count = 0;
  const llama_token* suppressed = llama_vocab_get_suppress_tokens(vocab, &count);
  for (std::int32_t i = 0; i < count; ++i) {
    biases.push_back({suppressed[i], -std::numeric_limits<float>::infinity()});
  }
  return biases;
}

llama_sampler_ptr chain() {
  llama_sampler_chain_params params = llama_sampler_chain_default_params();
  params.no_perf = true;
  return llama_sampler_ptr(llama_sampler_chain_init(params));
}

llama_sampler_ptr adjust_by(const llama_vocab* vocab, const Sampling& sampling) {
  llama_sampler_ptr made = chain();
  const std::int32_t vocabulary = llama_vocab_n_tokens(vocab);
  const std::vector<llama_logit_bias> biases = biases_of(vocab, sampling);
  if (!biases.empty()) {
    llama_sampler_chain_add(
        made.get(), llama_sampler_init_logit_bias(
                        vocabulary, static_cast<std::int32_t>(biases.size()), biases.data()));
  }
  if (sampling.presence_penalty != 0 || sampling.frequency_penalty != 0) {
    llama_sampler_chain_add(
        made.get(), llama_sampler_init_penalties(vocabulary, kPenaltyTokens, 1,
                                                 static_cast<float>(sampling.frequency_penalty),
                                                 static_cast<float>(sampling.presence_penalty)));
  }
  return made;
}

llama_sampler_ptr truncate_by(const Sampling& sampling) {
  llama_sampler_ptr made = chain();
  const auto add = [&made](llama_sampler* one) { llama_sampler_chain_add(made.get(), one); };
  if (sampling.top_k > 0) add(llama_sampler_init_top_k(sampling.top_k));
  if (sampling.top_p < 1) add(llama_sampler_init_top_p(static_cast<float>(sampling.top_p), 0));
  if (sampling.min_p > 0) add(llama_sampler_init_min_p(static_cast<float>(sampling.min_p), 0));
  add(llama_sampler_init_temp(static_cast<float>(sampling.temperature)));
  return made;
}

}  // namespace

Result<Sampler> Sampler::make(const Model& model, const Sampling& sampling, std::uint32_t choice) {
  Sampler made;
  made.seed_ = seed_of_choice(sampling.seed, choice);
  made.choosing_ = {.top_k = static_cast<std::size_t>(std::max(sampling.top_k, 0)),
                    .top_p = sampling.top_p,
                    .min_p = sampling.min_p,
                    .temperature = sampling.temperature};
  if (!sampling.grammar.text.empty()) {
    auto grammar = Grammar::make(model, sampling.grammar);
    if (!grammar) return grammar.error();
    made.grammar_ = std::move(*grammar);
  }
  made.adjust_ = adjust_by(model.vocab(), sampling);
  if (sampling.temperature > 0) made.truncate_ = truncate_by(sampling);
  made.plain_ =
      sampling.temperature == 0 && !made.grammar_ && llama_sampler_chain_n(made.adjust_.get()) == 0;
  return made;
}

llama_token Sampler::sample(std::span<const float> logits) {
  if (plain_) return static_cast<llama_token>(argmax(logits));
  candidates_.resize(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    candidates_[i] = {static_cast<llama_token>(i), logits[i], 0};
  }
  llama_token_data_array tokens{candidates_.data(), candidates_.size(), -1, false};
  llama_sampler_apply(adjust_.get(), &tokens);
  if (grammar_ && grammar_->awake()) {
    const llama_token token =
        choose_allowed(*grammar_, choosing_, random_at(seed_, index_), candidates_);
    if (token == LLAMA_TOKEN_NULL) throw std::runtime_error("no token fits the grammar");
    return token;
  }
  if (choosing_.temperature == 0) return tokens.data[likeliest({tokens.data, tokens.size})].id;
  llama_sampler_apply(truncate_.get(), &tokens);
  return tokens.data[draw({tokens.data, tokens.size}, uniform(random_at(seed_, index_)))].id;
}

void Sampler::accept(llama_token token) {
  ++index_;
  if (grammar_) grammar_->accept(token);
  llama_sampler_accept(adjust_.get(), token);
}

}  // namespace waystation::engine
