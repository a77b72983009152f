#include "engine/llama/prompt.h"

#include <chrono>
#include <exception>

#include <chat.h>
#include <common.h>
#include <fmt/format.h>

#include "message/chat.h"

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

common_chat_templates_inputs inputs_of(const message::ChatRequest& request,
                                       const v1::Envelope& envelope) {
  common_chat_templates_inputs inputs;
  for (const message::ChatMessage& message : request.messages) {
    common_chat_msg turn;
    turn.role = message.role == "developer" ? "system" : message.role;
    turn.content = message.content;
    inputs.messages.push_back(std::move(turn));
  }
  // Some templates write the date; another attempt must not write another one.
  inputs.now = std::chrono::system_clock::time_point(std::chrono::milliseconds(envelope.time_ms()));
  return inputs;
}

Error too_long(std::size_t prompt_tokens, std::uint32_t context_tokens) {
  return {Code::kContextLengthExceeded,
          fmt::format("the prompt has {} tokens, but the model's context holds {} for prompt and "
                      "answer together: shorten the messages", prompt_tokens, context_tokens),
          "messages"};
}

}  // namespace

Result<Prompt> make_prompt(const Model& model, const v1::Envelope& envelope,
                           const std::string& request_id) {
  if (envelope.type() != message::kChatRequestType) {
    return Error{Code::kInvalidArgument,
                 fmt::format("this engine answers {}, not {}", message::kChatRequestType,
                             envelope.type())};
  }
  auto request = message::parse_chat_request(envelope.data());
  if (!request) return request.error();

  Prompt prompt;
  prompt.stops = request->stop;
  try {
    const common_chat_params chat =
        common_chat_templates_apply(model.templates(), inputs_of(*request, envelope));
    for (const std::string& stop : chat.additional_stops) {
      if (!stop.empty()) prompt.stops.push_back(stop);
    }
    prompt.sampling.grammar = chat.grammar;
    prompt.tokens = common_tokenize(model.vocab(), chat.prompt, true, true);
  } catch (const std::exception& error) {
    return Error{Code::kInvalidArgument,
                 fmt::format("the model's chat template refuses these messages: {}", error.what()),
                 "messages"};
  }
  if (prompt.tokens.empty()) {
    return Error{Code::kInvalidArgument, "the prompt is empty: send a message", "messages"};
  }
  const std::uint32_t context_tokens = model.info().context_length();
  if (prompt.tokens.size() >= context_tokens) return too_long(prompt.tokens.size(), context_tokens);

  if (request->max_tokens) prompt.answer_tokens_max = *request->max_tokens;
  prompt.sampling.temperature = request->temperature;
  prompt.sampling.top_p = request->top_p;
  prompt.sampling.presence_penalty = request->presence_penalty;
  prompt.sampling.frequency_penalty = request->frequency_penalty;
  prompt.sampling.seed = request->seed ? *request->seed : seed_of(request_id);
  return prompt;
}

}  // namespace waystation::engine
