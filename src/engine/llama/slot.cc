#include "engine/llama/slot.h"

#include <utility>

#include "base/check.h"

namespace waystation::engine {

Answer::Answer(Prompt prompt, Sampler sampler, std::uint32_t context_tokens,
               std::uint64_t skip_bytes)
    : tokens_(std::move(prompt.tokens)),
      prompt_tokens_(static_cast<std::uint32_t>(tokens_.size())),
      answer_tokens_max_(prompt.answer_tokens_max),
      context_tokens_(context_tokens),
      sampler_(std::move(sampler)),
      text_(std::move(prompt.stops), skip_bytes) {}

Result<Answer> Answer::make(const Model& model, const v1::Assign& assign) {
  auto prompt = make_prompt(model, assign.envelope(), assign.fence().request());
  if (!prompt) return prompt.error();
  auto sampler = Sampler::make(model, prompt->sampling);
  if (!sampler) return sampler.error();
  Answer answer(std::move(*prompt), std::move(*sampler), model.info().context_length(),
                assign.resume_text_bytes());
  const std::int32_t vocabulary = llama_vocab_n_tokens(model.vocab());
  for (const std::uint32_t id : assign.resume_token_ids()) {
    if (id >= static_cast<std::uint32_t>(vocabulary)) {
      return Error{Code::kInvalidArgument, "the answer so far has tokens that this model doesn't: "
                                           "it was begun by another model"};
    }
    if (answer.finished()) break;
    answer.take(model, static_cast<llama_token>(id));
  }
  answer.new_tokens_.clear();  // known already
  return answer;
}

void Answer::advance(const Model& model, std::int32_t row) {
  take(model, sampler_.sample(model.context(), row));
}

void Answer::take(const Model& model, llama_token token) {
  CHECK(!finished());
  sampler_.accept(token);
  tokens_.push_back(token);
  new_tokens_.push_back(static_cast<std::uint32_t>(token));
  if (llama_vocab_is_eog(model.vocab(), token)) {
    finish_reason_ = "stop";
  } else {
    new_text_ += text_.push(model.piece(token));
    if (text_.stopped()) {
      finish_reason_ = "stop";
    } else if (tokens_.size() - prompt_tokens_ >= answer_tokens_max_ ||
               tokens_.size() >= context_tokens_) {
      finish_reason_ = "length";
    }
  }
  if (finished()) new_text_ += text_.finish();
}

bool Answer::report(v1::Output& output) {
  if (!started_ && new_tokens_.empty() && new_text_.empty() && !finished()) return false;
  if (std::exchange(started_, false)) {
    output.set_started(true);
    output.set_prompt_tokens(prompt_tokens_);
    output.set_cached_prompt_tokens(cached_prompt_tokens_);
  }
  output.mutable_token_ids()->Add(new_tokens_.begin(), new_tokens_.end());
  new_tokens_.clear();
  output.set_text(std::exchange(new_text_, {}));
  output.set_finish_reason(finish_reason_);
  return true;
}

}  // namespace waystation::engine
