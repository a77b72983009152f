// One choice being answered. Bookkeeping around sampler, text and parser; no calls into the context
// but to read logits.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <llama.h>

#include "base/result.h"
#include "engine/llama/parser.h"
#include "engine/llama/prompt.h"
#include "engine/llama/sampler.h"
#include "engine/llama/text.h"
#include "message/proto/link.pb.h"

namespace waystation::engine {

class Answer {
 public:
  // Replays what `progress` (may be null) holds as if it had just been generated: its token ids, or
  // where there are none its text as this model would write it. The model's context length bounds
  // prompt and answer together.
  static Result<Answer> make(const Model& model, std::shared_ptr<const Prompt> prompt,
                             std::uint32_t choice, const v1::ChoiceProgress* progress);

  // Takes the next token: sampled from row `row` of the last decode. Throws what llama.cpp throws.
  void advance(const Model& model, std::int32_t row);

  // Moves what is new since the last call into `output`. False if there is nothing to tell.
  bool report(v1::Output& output);
  bool reported() const { return reported_; }  // something was told already

  // Prompt and answer; all but the last are (or go) into the KV cache before the next token.
  const std::vector<llama_token>& tokens() const { return tokens_; }
  std::uint32_t choice() const { return choice_; }
  std::uint32_t prompt_tokens() const { return prompt_tokens_; }
  bool finished() const { return !finish_reason_.empty(); }
  std::uint32_t cached_prompt_tokens = 0;

 private:
  Answer(std::shared_ptr<const Prompt> prompt, std::uint32_t choice, Sampler sampler,
         std::uint32_t context_tokens);
  Status replay(const Model& model, const v1::ChoiceProgress& progress);
  void take(const Model& model, llama_token token);
  void read(std::string_view text, bool last);
  void finish(const char* reason);
  void forget_known(const v1::ChoiceProgress& progress);

  std::shared_ptr<const Prompt> prompt_;
  std::uint32_t choice_;
  std::vector<llama_token> tokens_;
  std::uint32_t prompt_tokens_;
  std::uint32_t context_tokens_;
  Sampler sampler_;
  TextAssembler raw_;
  std::unique_ptr<AnswerParser> parser_;  // null: plain text
  TextAssembler text_;                    // with a parser: the client's stops in the answer's text
  std::string finish_reason_;
  std::uint64_t skip_text_ = 0;  // bytes that the client has already, still to come
  std::uint64_t skip_reasoning_ = 0;

  bool reported_ = false;
  // Not reported yet.
  std::vector<std::uint32_t> new_tokens_;
  std::uint32_t new_reasoning_tokens_ = 0;
  std::vector<v1::TokenLogprob> new_logprobs_;
  Delta delta_;
};

}  // namespace waystation::engine
