#include "engine/llama/grammar.h"

#include <algorithm>
#include <array>
#include <exception>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <common.h>
#include <fmt/format.h>
#include <reasoning-budget.h>

namespace waystation::engine {
namespace {

llama_sampler* lazy_grammar(const llama_vocab* vocab, const GrammarRule& rule) {
  std::vector<std::string> patterns;
  for (const std::string& word : rule.triggers) patterns.push_back(regex_escape(word));
  patterns.insert(patterns.end(), rule.trigger_patterns.begin(), rule.trigger_patterns.end());
  std::vector<const char*> starts;
  for (const std::string& pattern : patterns) starts.push_back(pattern.c_str());
  return llama_sampler_init_grammar_lazy_patterns(vocab, rule.text.c_str(), "root", starts.data(),
                                                  starts.size(), rule.trigger_tokens.data(),
                                                  rule.trigger_tokens.size());
}

// Knows whether the model thinks; it may think as long as it likes. What the template wrote behind
// the prompt counts.
llama_sampler* thinking_of(const llama_vocab* vocab, const GrammarRule& rule) {
  const llama_tokens end = common_tokenize(vocab, rule.think_end, false, true);
  llama_sampler* made =
      common_reasoning_budget_init(vocab, {common_tokenize(vocab, rule.think_start, false, true)},
                                   {end}, {}, std::numeric_limits<std::int32_t>::max());
  for (const llama_token token : common_tokenize(vocab, rule.prefill, false, true)) {
    llama_sampler_accept(made, token);
  }
  return made;
}

// Where `end` closes what begins before `at`.
std::size_t closed_by(char end, std::string_view text, std::size_t at) {
  while (at < text.size() && text[at] != end) at += text[at] == '\\' ? 2 : 1;
  return at;
}

// GBNF can ask for a token by its id or name: <[5]>, !<think>.
bool names_tokens(std::string_view gbnf) {
  for (std::size_t at = 0; at < gbnf.size(); ++at) {
    if (gbnf[at] == '<') return true;
    if (gbnf[at] == '"') at = closed_by('"', gbnf, at + 1);
    if (gbnf[at] == '[') at = closed_by(']', gbnf, at + 1);
  }
  return false;
}

}  // namespace

Result<std::unique_ptr<Grammar>> Grammar::make(const Model& model, const GrammarRule& rule) {
  std::unique_ptr<Grammar> made(new Grammar(model.first_bytes()));
  made->by_bytes_ = !names_tokens(rule.text);
  try {
    made->grammar_.reset(
        rule.lazy ? lazy_grammar(model.vocab(), rule)
                  : llama_sampler_init_grammar(model.vocab(), rule.text.c_str(), "root"));
    if (rule.lazy && !rule.think_start.empty() && !rule.think_end.empty()) {
      made->thinking_.reset(thinking_of(model.vocab(), rule));
    }
  } catch (const std::exception& error) {
    return Error{Code::kInvalidArgument, fmt::format("can't set up the grammar: {}", error.what())};
  }
  if (!made->grammar_) return Error{Code::kInvalidArgument, "can't parse the grammar"};
  return made;
}

bool Grammar::awake() const {
  if (!thinking_) return true;
  const auto state = common_reasoning_budget_get_state(thinking_.get());
  return state == REASONING_BUDGET_IDLE || state == REASONING_BUDGET_DONE;
}

void Grammar::strike(std::span<llama_token_data> tokens) {
  llama_token_data_array array{tokens.data(), tokens.size(), -1, false};
  llama_sampler_apply(grammar_.get(), &array);
  checked_ += tokens.size();
}

std::span<llama_token_data> Grammar::narrow(std::span<llama_token_data> tokens) {
  if (!by_bytes_) return tokens;
  std::vector<llama_token_data> bytes;
  for (const llama_token token : first_->alone) {
    if (token != LLAMA_TOKEN_NULL) bytes.push_back({token, 0, 0});
  }
  strike(bytes);
  std::array<bool, FirstBytes::kNone + 1> possible;
  possible.fill(true);
  for (const llama_token_data& byte : bytes) {
    possible[first_->of_token[static_cast<std::size_t>(byte.id)]] = byte.logit == 0;
  }
  const auto rest = std::partition(tokens.begin(), tokens.end(), [&](const llama_token_data& one) {
    return possible[first_->of_token[static_cast<std::size_t>(one.id)]];
  });
  return tokens.first(static_cast<std::size_t>(rest - tokens.begin()));
}

void Grammar::accept(llama_token token) {
  const bool was_awake = awake();
  if (thinking_) llama_sampler_accept(thinking_.get(), token);
  if (was_awake) {
    llama_sampler_accept(grammar_.get(), token);
    return;
  }
  // The end of the thoughts may be what the grammar waits for.
  if (common_reasoning_budget_get_state(thinking_.get()) != REASONING_BUDGET_DONE) return;
  const llama_tokens* end = common_reasoning_budget_get_end_match(thinking_.get());
  if (end == nullptr) return;
  for (const llama_token one : *end) llama_sampler_accept(grammar_.get(), one);
}

}  // namespace waystation::engine
