// One place in the context: a sequence of the KV cache, and the request that uses it, if any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <llama.h>

#include "base/result.h"
#include "engine/llama/prompt.h"
#include "engine/llama/sampler.h"
#include "engine/llama/text.h"
#include "message/proto/link.pb.h"

namespace waystation::engine {

// A request being answered. Pure bookkeeping around sampler and text; no calls into the context.
class Answer {
 public:
  // Takes the prompt and replays `assign.resume_token_ids` as if they had just been sampled.
  // `context_tokens` bounds prompt and answer together.
  static Result<Answer> make(const Model& model, const v1::Assign& assign);

  // Takes the next token: sampled from row `row` of the last decode.
  void advance(const Model& model, std::int32_t row);

  // Moves what is new since the last call into `output`. False if there is nothing to tell.
  bool report(v1::Output& output);

  // Prompt and answer; all but the last are (or go) into the KV cache before the next token.
  const std::vector<llama_token>& tokens() const { return tokens_; }
  std::uint32_t prompt_tokens() const { return prompt_tokens_; }
  bool finished() const { return !finish_reason_.empty(); }
  void set_cached_prompt_tokens(std::uint32_t tokens) { cached_prompt_tokens_ = tokens; }

 private:
  Answer(Prompt prompt, Sampler sampler, std::uint32_t context_tokens, std::uint64_t skip_bytes);
  void take(const Model& model, llama_token token);

  std::vector<llama_token> tokens_;
  std::uint32_t prompt_tokens_;
  std::uint32_t cached_prompt_tokens_ = 0;
  std::uint32_t answer_tokens_max_;
  std::uint32_t context_tokens_;
  Sampler sampler_;
  TextAssembler text_;
  std::string finish_reason_;

  // Not reported yet.
  bool started_ = true;
  std::vector<std::uint32_t> new_tokens_;
  std::string new_text_;
};

struct Slot {
  llama_seq_id sequence = 0;
  // The tokens whose keys and values the sequence holds, at positions 0, 1, …; kept when a request
  // ends, for the next one that begins alike.
  std::vector<llama_token> cache;
  std::uint64_t used_at = 0;  // count of starts: the smallest was used longest ago

  std::optional<v1::Fence> fence;  // set while a request is in the slot
  std::optional<Answer> answer;    // not set when the request was refused
  std::optional<Error> error;
  bool cancelled = false;
  std::uint64_t order = 0;  // of start

  bool busy() const { return fence.has_value(); }
  // Tokens that must go through the model before the next one can be sampled.
  std::size_t behind() const {
    return answer && !answer->finished() ? answer->tokens().size() - cache.size() : 0;
  }
};

}  // namespace waystation::engine
