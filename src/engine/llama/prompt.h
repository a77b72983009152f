// From an envelope to what the model is asked: the prompts' tokens and how to sample the answers.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <llama.h>

#include "base/result.h"
#include "engine/llama/model.h"
#include "engine/llama/parser.h"
#include "message/chat.h"
#include "message/completion.h"
#include "message/proto/envelope.pb.h"

namespace waystation::engine {

// A grammar that the answer, or a part of it, has to follow.
struct GrammarRule {
  std::string text;                   // GBNF; empty = none
  bool lazy = false;                  // holds from the first of `triggers` on
  std::vector<std::string> triggers;  // words
  // Regular expressions; what their first group matches is where the grammar begins.
  std::vector<std::string> trigger_patterns;
  std::vector<llama_token> trigger_tokens;
  std::string prefill;  // what the template wrote behind the prompt: the model may think already
  // Between these a lazy grammar sleeps: the model thinks. Empty: it doesn't.
  std::string think_start;
  std::string think_end;
};

struct Sampling {
  double temperature = 1.0;  // 0 = always the likeliest token
  double top_p = 1.0;
  std::int32_t top_k = 40;  // 0 = all
  double min_p = 0.05;
  double presence_penalty = 0.0;  // over the answer's tokens, as OpenAI defines them
  double frequency_penalty = 0.0;
  std::vector<std::pair<llama_token, float>> logit_bias = {};
  std::uint64_t seed = 0;  // of choice 0; see seed_of_choice
  GrammarRule grammar = {};
};

// A request as the engine runs it; shared by its choices.
struct Prompt {
  std::vector<std::vector<llama_token>> tokens;  // of each prompt
  std::vector<std::string> echo;                 // legacy `echo`: what the answers begin with
  std::uint32_t choices = 1;
  std::uint32_t choices_per_prompt = 1;
  std::vector<std::string> stops;      // the client's; in the answer's text
  std::vector<std::string> raw_stops;  // the template's; in what the model writes
  std::uint32_t answer_tokens_max = std::numeric_limits<std::uint32_t>::max();
  std::int32_t logprobs = -1;  // alternatives wanted; -1: no logprobs at all
  Sampling sampling;
  AnswerFormat format;
  std::vector<llama_token> shown;  // control tokens that `format` reads as text
  std::string request_id;

  const std::vector<llama_token>& tokens_of(std::uint32_t choice) const {
    return tokens[choice / choices_per_prompt];
  }
  std::uint32_t prompt_tokens() const;  // all prompts together
};

// A function of the envelope and the model alone, so every attempt gets the same prompt. Without a
// seed of the client's the request's id gives one. Errors: kInvalidArgument (no request for this
// engine, or the model's template refuses the messages), kContextLengthExceeded.
Result<Prompt> make_prompt(const Model& model, const v1::Envelope& envelope,
                           const std::string& request_id);
// The same for parsed requests. `time_ms`: what templates that write the date take for today.
Result<Prompt> make_chat_prompt(const Model& model, message::ChatRequest request,
                                std::int64_t time_ms, const std::string& request_id);
Result<Prompt> make_completion_prompt(const Model& model, const message::CompletionRequest& request,
                                      const std::string& request_id);

}  // namespace waystation::engine
