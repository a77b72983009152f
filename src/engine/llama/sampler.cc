#include "engine/llama/sampler.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <sampling.h>

#include "engine/llama/argmax.h"

namespace waystation::engine {
namespace {

struct Draw {
  std::uint64_t seed = 0;
  std::uint64_t index = 0;  // of the answer's token that comes next
};

Draw& draw_of(const llama_sampler* sampler) {
  return *static_cast<Draw*>(sampler->ctx);
}

// The SplitMix64 generator at position `index`.
std::uint64_t random_at(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Uniform in [0, 1).
double uniform_at(const Draw& draw) {
  return static_cast<double>(random_at(draw.seed, draw.index) >> 11) * 0x1.0p-53;
}

// Choice 0 answers as the only one would.
std::uint64_t seed_of_choice(std::uint64_t seed, std::uint32_t choice) {
  return choice == 0 ? seed : random_at(seed, (std::uint64_t{choice} << 32));
}

void apply_draw(llama_sampler* sampler, llama_token_data_array* candidates) {
  float best = candidates->data[0].logit;
  for (std::size_t i = 1; i < candidates->size; ++i)
    best = std::max(best, candidates->data[i].logit);
  double sum = 0;
  for (std::size_t i = 0; i < candidates->size; ++i) {
    llama_token_data& candidate = candidates->data[i];
    candidate.p = std::exp(candidate.logit - best);
    sum += candidate.p;
  }
  double left = uniform_at(draw_of(sampler)) * sum;
  std::size_t chosen = 0;
  for (std::size_t i = 0; i < candidates->size; ++i) {
    if (candidates->data[i].p <= 0) continue;
    chosen = i;
    left -= candidates->data[i].p;
    if (left < 0) break;
  }
  candidates->selected = static_cast<std::int64_t>(chosen);
}

llama_sampler* clone_draw(const llama_sampler* sampler);

llama_sampler_i* draw_interface() {
  static llama_sampler_i interface = [] {
    llama_sampler_i made{};
    made.name = [](const llama_sampler*) { return "draw"; };
    made.accept = [](llama_sampler* sampler, llama_token) { ++draw_of(sampler).index; };
    made.apply = apply_draw;
    made.reset = [](llama_sampler* sampler) { draw_of(sampler).index = 0; };
    made.clone = clone_draw;
    made.free = [](llama_sampler* sampler) { delete &draw_of(sampler); };
    return made;
  }();
  return &interface;
}

llama_sampler* clone_draw(const llama_sampler* sampler) {
  return llama_sampler_init(draw_interface(), new Draw(draw_of(sampler)));
}

common_grammar_trigger trigger(common_grammar_trigger_type type, std::string value,
                               llama_token token = LLAMA_TOKEN_NULL) {
  common_grammar_trigger made;
  made.type = type;
  made.value = std::move(value);
  made.token = token;
  return made;
}

void set_grammar(const Model& model, const GrammarRule& rule, common_params_sampling& params) {
  if (rule.text.empty()) return;
  params.grammar = common_grammar(
      rule.prefill.empty() ? COMMON_GRAMMAR_TYPE_USER : COMMON_GRAMMAR_TYPE_TOOL_CALLS, rule.text);
  params.generation_prompt = rule.prefill;
  params.grammar_lazy = rule.lazy;
  if (!rule.lazy) return;
  if (!rule.think_start.empty() && !rule.think_end.empty()) {
    params.reasoning_budget_start = common_tokenize(model.vocab(), rule.think_start, false, true);
    params.reasoning_budget_end = {common_tokenize(model.vocab(), rule.think_end, false, true)};
  }
  for (const std::string& word : rule.triggers) {
    params.grammar_triggers.push_back(trigger(COMMON_GRAMMAR_TRIGGER_TYPE_WORD, word));
  }
  for (const std::string& pattern : rule.trigger_patterns) {
    params.grammar_triggers.push_back(trigger(COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN, pattern));
  }
  for (const llama_token token : rule.trigger_tokens) {
    params.grammar_triggers.push_back(trigger(COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN, "", token));
  }
}

common_params_sampling params_of(const Model& model, const Sampling& sampling) {
  common_params_sampling params;
  params.no_perf = true;
  params.temp = static_cast<float>(sampling.temperature);
  params.top_p = static_cast<float>(sampling.top_p);
  params.top_k = sampling.top_k;
  params.min_p = static_cast<float>(sampling.min_p);
  params.penalty_present = static_cast<float>(sampling.presence_penalty);
  params.penalty_freq = static_cast<float>(sampling.frequency_penalty);
  params.penalty_last_n = 1 << 16;  // the whole answer
  for (const auto& [token, bias] : sampling.logit_bias) params.logit_bias.push_back({token, bias});
  params.samplers.clear();
  if (sampling.presence_penalty != 0 || sampling.frequency_penalty != 0) {
    params.samplers.push_back(COMMON_SAMPLER_TYPE_PENALTIES);
  }
  if (sampling.temperature > 0) {
    if (sampling.top_k > 0) params.samplers.push_back(COMMON_SAMPLER_TYPE_TOP_K);
    if (sampling.top_p < 1) params.samplers.push_back(COMMON_SAMPLER_TYPE_TOP_P);
    if (sampling.min_p > 0) params.samplers.push_back(COMMON_SAMPLER_TYPE_MIN_P);
    params.samplers.push_back(COMMON_SAMPLER_TYPE_TEMPERATURE);
  }
  set_grammar(model, sampling.grammar, params);
  return params;
}

bool has_state(const Sampling& sampling) {
  return sampling.temperature > 0 || sampling.presence_penalty != 0 ||
         sampling.frequency_penalty != 0 || !sampling.grammar.text.empty() ||
         !sampling.logit_bias.empty();
}

}  // namespace

void Sampler::Free::operator()(common_sampler* sampler) const {
  common_sampler_free(sampler);
}

Result<Sampler> Sampler::make(const Model& model, const Sampling& sampling, std::uint32_t choice) {
  Sampler made;
  made.vocabulary_ = llama_vocab_n_tokens(model.vocab());
  std::int32_t suppressed = 0;
  llama_vocab_get_suppress_tokens(model.vocab(), &suppressed);
  if (!has_state(sampling) && suppressed == 0) return made;

  try {
    common_params_sampling params = params_of(model, sampling);
    made.chain_.reset(common_sampler_init(model.model(), params));
  } catch (const std::exception& error) {
    return Error{Code::kInvalidArgument, fmt::format("can't set up sampling: {}", error.what())};
  }
  // Its last step draws from a generator that can't be set to a position; ours takes its place.
  llama_sampler* chain = common_sampler_get(made.chain_.get());
  llama_sampler_free(llama_sampler_chain_remove(chain, llama_sampler_chain_n(chain) - 1));
  llama_sampler_chain_add(
      chain,
      sampling.temperature > 0
          ? llama_sampler_init(draw_interface(), new Draw{seed_of_choice(sampling.seed, choice)})
          : llama_sampler_init_greedy());
  return made;
}

llama_token Sampler::sample(llama_context* context, std::int32_t index) {
  if (chain_) return common_sampler_sample(chain_.get(), context, index);
  const float* logits = llama_get_logits_ith(context, index);
  return static_cast<llama_token>(argmax({logits, static_cast<std::size_t>(vocabulary_)}));
}

void Sampler::accept(llama_token token) {
  if (chain_) common_sampler_accept(chain_.get(), token, true);
}

}  // namespace waystation::engine
