#include "engine/llama/prompt.h"

#include <algorithm>
#include <utility>

#include <common.h>
#include <fmt/format.h>

#include "engine/llama/chat_prompt.h"
#include "engine/llama/input.h"

namespace waystation::engine {
namespace {

// FNV-1a: any fixed function will do, it only has to be the same for every attempt.
std::uint64_t seed_of(const std::string& request_id) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : request_id) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  }
  return hash;
}

Error too_long(std::size_t prompt_tokens, std::uint32_t context_tokens, const char* param) {
  return {Code::kContextLengthExceeded,
          fmt::format("the prompt has {} tokens, but the model's context holds {} for prompt and "
                      "answer together: shorten it",
                      prompt_tokens, context_tokens),
          param};
}

// Takes what all of OpenAI's APIs say about generating.
Status set_generation(const Model& model, const message::Generation& wanted,
                      const std::string& request_id, Prompt& prompt) {
  prompt.stops = wanted.stop;
  prompt.choices = wanted.choices;
  if (wanted.max_tokens) prompt.answer_tokens_max = *wanted.max_tokens;
  if (wanted.logprobs) prompt.logprobs = static_cast<std::int32_t>(*wanted.logprobs);
  prompt.request_id = request_id;
  Sampling& sampling = prompt.sampling;
  sampling.temperature = wanted.temperature;
  sampling.top_p = wanted.top_p;
  if (wanted.top_k) {
    sampling.top_k = static_cast<std::int32_t>(std::min<std::uint32_t>(*wanted.top_k, 1u << 30));
  }
  if (wanted.min_p) sampling.min_p = *wanted.min_p;
  sampling.presence_penalty = wanted.presence_penalty;
  sampling.frequency_penalty = wanted.frequency_penalty;
  sampling.seed = wanted.seed ? *wanted.seed : seed_of(request_id);
  const auto vocabulary = static_cast<std::uint32_t>(llama_vocab_n_tokens(model.vocab()));
  for (const auto& [token, bias] : wanted.logit_bias) {
    if (token >= vocabulary) {
      return Error{Code::kInvalidArgument,
                   fmt::format("logit_bias: the model has no token {}; its ids go from 0 to {}",
                               token, vocabulary - 1),
                   "logit_bias"};
    }
    sampling.logit_bias.emplace_back(static_cast<llama_token>(token), static_cast<float>(bias));
  }
  return {};
}

// An empty prompt asks for any text; a model needs a token to begin with.
void begin_of_text(const Model& model, std::vector<llama_token>& tokens) {
  const llama_token bos = llama_vocab_bos(model.vocab());
  const llama_token begin = bos != LLAMA_TOKEN_NULL ? bos : llama_vocab_eos(model.vocab());
  if (begin != LLAMA_TOKEN_NULL) tokens.push_back(begin);
}

Status check_length(const Model& model, const Prompt& prompt, const char* param) {
  const std::uint32_t context_tokens = model.info().context_length();
  for (const auto& tokens : prompt.tokens) {
    if (tokens.empty()) {
      return Error{Code::kInvalidArgument, "the prompt is empty: send at least one token", param};
    }
    if (tokens.size() >= context_tokens) return too_long(tokens.size(), context_tokens, param);
  }
  return {};
}

}  // namespace

std::uint32_t Prompt::prompt_tokens() const {
  std::size_t sum = 0;
  for (const auto& one : tokens) sum += one.size();
  return static_cast<std::uint32_t>(sum);
}

Result<Prompt> make_chat_prompt(const Model& model, message::ChatRequest request,
                                std::int64_t time_ms, const std::string& request_id) {
  Prompt prompt;
  if (Status set = set_generation(model, request, request_id, prompt); !set) return set.error();
  prompt.choices_per_prompt = prompt.choices;
  const std::string mark = model.control_text().mark(request.messages);
  auto text = ask_as_chat(model, request, time_ms, prompt);
  if (!text) return text.error();
  prompt.tokens.push_back(tokens_of_marked(model.vocab(), *text, mark));
  if (Status good = check_length(model, prompt, "messages"); !good) return good.error();
  return prompt;
}

Result<Prompt> make_completion_prompt(const Model& model, const message::CompletionRequest& request,
                                      const std::string& request_id) {
  Prompt prompt;
  if (Status set = set_generation(model, request, request_id, prompt); !set) return set.error();
  prompt.choices_per_prompt = request.n;
  prompt.choices = request.n * static_cast<std::uint32_t>(request.prompts.size());
  if (request.echo && request.logprobs) {
    return Error{Code::kInvalidArgument,
                 "echo together with logprobs isn't supported: prompts have no logprobs here",
                 "echo"};
  }
  for (const message::TokenInput& input : request.prompts) {
    auto tokens = tokens_of_input(model, input, "prompt");
    if (!tokens) return tokens.error();
    if (tokens->empty()) begin_of_text(model, *tokens);
    if (request.echo) prompt.echo.push_back(text_of_input(model, input));
    prompt.tokens.push_back(std::move(*tokens));
  }
  if (Status good = check_length(model, prompt, "prompt"); !good) return good.error();
  return prompt;
}

Result<Prompt> make_prompt(const Model& model, const v1::Envelope& envelope,
                           const std::string& request_id) {
  if (envelope.type() == message::kChatRequestType) {
    auto request = message::parse_chat_request(envelope.data());
    if (!request) return request.error();
    return make_chat_prompt(model, std::move(*request), envelope.time_ms(), request_id);
  }
  if (envelope.type() == message::kCompletionRequestType) {
    auto request = message::parse_completion_request(envelope.data());
    if (!request) return request.error();
    return make_completion_prompt(model, *request, request_id);
  }
  return Error{Code::kInvalidArgument,
               fmt::format("this model generates text: it can't answer a {}", envelope.type()),
               "model"};
}

}  // namespace waystation::engine
