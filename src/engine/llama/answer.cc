#include "engine/llama/answer.h"

#include <algorithm>
#include <exception>
#include <utility>

#include <common.h>
#include <fmt/format.h>

#include "base/check.h"
#include "engine/llama/logprobs.h"

namespace waystation::engine {
namespace {

std::vector<std::string> stops_while_reading(const Prompt& prompt) {
  std::vector<std::string> stops = prompt.raw_stops;
  if (prompt.format.plain()) stops.insert(stops.end(), prompt.stops.begin(), prompt.stops.end());
  return stops;
}

// Takes what the client has from the front of `text`; returns how much of it is still to come.
std::uint64_t drop_known(std::string& text, std::uint64_t known) {
  const std::uint64_t here = std::min<std::uint64_t>(known, text.size());
  text.erase(0, here);
  return known - here;
}

}  // namespace

Answer::Answer(std::shared_ptr<const Prompt> prompt, std::uint32_t choice, Sampler sampler,
               std::uint32_t context_tokens)
    : prompt_(std::move(prompt)),
      choice_(choice),
      tokens_(prompt_->tokens_of(choice)),
      prompt_tokens_(static_cast<std::uint32_t>(tokens_.size())),
      context_tokens_(context_tokens),
      sampler_(std::move(sampler)),
      raw_(stops_while_reading(*prompt_)),
      parser_(
          make_answer_parser(prompt_->format, fmt::format("{}/{}", prompt_->request_id, choice))),
      text_(prompt_->stops) {
  if (!prompt_->echo.empty()) delta_.text = prompt_->echo[choice / prompt_->choices_per_prompt];
}

Result<Answer> Answer::make(const Model& model, std::shared_ptr<const Prompt> prompt,
                            std::uint32_t choice, const v1::ChoiceProgress* progress) {
  auto sampler = Sampler::make(model, prompt->sampling, choice);
  if (!sampler) return sampler.error();
  Answer answer(std::move(prompt), choice, std::move(*sampler), model.info().context_length());
  if (progress == nullptr) return answer;
  try {
    if (Status done = answer.replay(model, *progress); !done) return done.error();
  } catch (const std::exception& error) {
    return Error{Code::kUpstream,
                 fmt::format("can't go on from the answer so far, which this model "
                             "couldn't have given: {}",
                             error.what())};
  }
  return answer;
}

Status Answer::replay(const Model& model, const v1::ChoiceProgress& progress) {
  std::vector<llama_token> tokens;
  if (progress.token_ids_size() > 0) {
    const auto vocabulary = static_cast<std::uint32_t>(llama_vocab_n_tokens(model.vocab()));
    for (const std::uint32_t id : progress.token_ids()) {
      if (id >= vocabulary) {
        return Error{Code::kInvalidArgument,
                     "the answer so far has tokens that this model doesn't: "
                     "it was begun by another model"};
      }
      tokens.push_back(static_cast<llama_token>(id));
    }
  } else {
    auto written = text_as_written(prompt_->format, progress, delta_.text.size());
    if (!written) return written.error();
    if (!written->empty()) tokens = common_tokenize(model.vocab(), *written, false, false);
    if (tokens_.size() + tokens.size() >= context_tokens_) {
      return Error{
          Code::kContextLengthExceeded,
          fmt::format("prompt and the answer so far have {} tokens, but the model's context "
                      "holds {}",
                      tokens_.size() + tokens.size(), context_tokens_),
          "messages"};
    }
  }
  for (const llama_token token : tokens) {
    if (finished()) break;
    take(model, token);
  }
  forget_known(progress);
  return {};
}

// The client has this already: a durable token's text is durable with it.
void Answer::forget_known(const v1::ChoiceProgress& progress) {
  new_tokens_.clear();
  new_reasoning_tokens_ = 0;
  skip_text_ = drop_known(delta_.text, progress.text().size());
  skip_reasoning_ = drop_known(delta_.reasoning, progress.reasoning().size());
  for (const v1::ToolCallDelta& known : progress.tool_calls()) {
    v1::ToolCallDelta& call = delta_.call(known.index());
    call.clear_id();
    call.clear_name();
    drop_known(*call.mutable_arguments(), known.arguments().size());
  }
  std::erase_if(delta_.tool_calls, [](const v1::ToolCallDelta& call) {
    return call.id().empty() && call.name().empty() && call.arguments().empty();
  });
}

void Answer::advance(const Model& model, std::int32_t row) {
  const llama_token token = sampler_.sample(model.logits(row));
  take(model, token);
  // Of tokens that are text of the answer, as far as can be told when they come.
  if (prompt_->logprobs >= 0 && finish_reason_ != "stop" && finish_reason_ != "tool_calls" &&
      (!parser_ || parser_->in_text())) {
    new_logprobs_.push_back(token_logprob(model, row, token, prompt_->logprobs));
  }
}

void Answer::take(const Model& model, llama_token token) {
  CHECK(!finished());
  tokens_.push_back(token);
  new_tokens_.push_back(static_cast<std::uint32_t>(token));
  if (llama_vocab_is_eog(model.vocab(), token)) {
    finish("stop");
    return;
  }
  sampler_.accept(token);
  const bool shown = std::ranges::find(prompt_->shown, token) != prompt_->shown.end();
  const std::string text = raw_.push(model.piece(token, shown));
  if (!parser_) {
    delta_.text += text;
  } else {
    read(text, false);
    if (parser_->in_reasoning()) ++new_reasoning_tokens_;
  }
  if (raw_.stopped() || text_.stopped()) {
    finish("stop");
  } else if (tokens_.size() - prompt_tokens_ >= prompt_->answer_tokens_max ||
             tokens_.size() >= context_tokens_) {
    finish("length");
  }
}

// With a parser: what the model wrote becomes what the client gets.
void Answer::read(std::string_view text, bool last) {
  Delta read;
  if (!text.empty()) parser_->push(text, read);
  if (last) parser_->finish(read);
  delta_.reasoning += read.reasoning;
  if (!read.text.empty() && !text_.stopped()) delta_.text += text_.push(read.text);
  if (text_.stopped()) return;  // calls that came after it never were
  for (v1::ToolCallDelta& piece : read.tool_calls) {
    v1::ToolCallDelta& call = delta_.call(piece.index());
    if (!piece.id().empty()) call.set_id(piece.id());
    if (!piece.name().empty()) call.set_name(piece.name());
    call.mutable_arguments()->append(piece.arguments());
  }
}

void Answer::finish(const char* reason) {
  const std::string text = raw_.finish();
  if (!parser_) {
    delta_.text += text;
  } else if (!text_.stopped()) {
    read(text, true);
    if (!text_.stopped()) delta_.text += text_.finish();
  }
  const bool calls = parser_ && parser_->calls() > 0 && !text_.stopped();
  finish_reason_ = calls && reason == std::string_view("stop") ? "tool_calls" : reason;
}

bool Answer::report(v1::Output& output) {
  if (skip_text_ > 0) skip_text_ = drop_known(delta_.text, skip_text_);
  if (skip_reasoning_ > 0) skip_reasoning_ = drop_known(delta_.reasoning, skip_reasoning_);
  if (new_tokens_.empty() && delta_.empty() && !finished()) return false;
  reported_ = true;
  output.set_choice(choice_);
  output.mutable_token_ids()->Add(new_tokens_.begin(), new_tokens_.end());
  new_tokens_.clear();
  if (!delta_.text.empty()) output.set_text(std::exchange(delta_.text, {}));
  if (!delta_.reasoning.empty()) output.set_reasoning(std::exchange(delta_.reasoning, {}));
  for (v1::ToolCallDelta& call : delta_.tool_calls) *output.add_tool_calls() = std::move(call);
  delta_.tool_calls.clear();
  for (v1::TokenLogprob& logprob : new_logprobs_) *output.add_logprobs() = std::move(logprob);
  new_logprobs_.clear();
  output.set_reasoning_tokens(std::exchange(new_reasoning_tokens_, 0));
  if (finished()) output.set_finish_reason(finish_reason_);
  return true;
}

}  // namespace waystation::engine
