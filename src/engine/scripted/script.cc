#include "engine/scripted/script.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>

#include "message/chat.h"
#include "message/completion.h"
#include "message/embedding.h"

namespace waystation::engine {
namespace {

std::string token_text(std::uint32_t index) {
  return "tok" + std::to_string(index) + " ";
}

// FNV-1a: any fixed function will do.
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : text) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  }
  return hash;
}

// The SplitMix64 generator.
std::uint64_t next_random(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

std::string text_of(const message::TokenInput& input) {
  if (const auto* text = std::get_if<std::string>(&input)) return *text;
  std::string text;
  for (const std::uint32_t id : std::get<std::vector<std::uint32_t>>(input)) {
    text += std::to_string(id) + " ";
  }
  return text;
}

// Of length 1; a function of the text alone.
std::string embedding_of(const std::string& text, std::uint32_t size) {
  std::uint64_t state = hash_of(text);
  std::vector<double> numbers(size);
  double sum = 0;
  for (double& number : numbers) {
    number = static_cast<double>(next_random(state) >> 11) * 0x1.0p-52 - 1;
    sum += number * number;
  }
  std::string bytes;
  for (const double number : numbers) {
    const auto one = static_cast<float>(number / std::sqrt(sum));
    char raw[sizeof one];
    std::memcpy(raw, &one, sizeof one);
    bytes.append(raw, sizeof raw);
  }
  return bytes;
}

void set_length(const ScriptedOptions& options, const message::Generation& wanted, Script& script) {
  const std::uint32_t budget = wanted.max_tokens.value_or(options.tokens);
  script.end_ = std::min(budget, options.tokens);
  script.finish_reason = budget < options.tokens ? "length" : "stop";
  script.choices = std::max(1u, wanted.choices);
}

Result<Script> chat_script(const ScriptedOptions& options, const v1::Envelope& envelope) {
  const auto request = message::parse_chat_request(envelope.data());
  if (!request) return request.error();
  Script script;
  for (const auto& one : request->messages) script.prompt += one.content + "\n";
  set_length(options, *request, script);
  const bool calls = options.tools > 0 && !request->tools.empty() &&
                     request->tool_choice != message::ToolChoice::kNone;
  if (calls) {
    const bool named = request->tool_choice == message::ToolChoice::kNamed;
    script.tool = named ? request->tool_name : request->tools[0].name;
    script.end_ = std::max(3u, script.end_);
    script.finish_reason = "tool_calls";
  }
  return script;
}

Result<Script> completion_script(const ScriptedOptions& options, const v1::Envelope& envelope) {
  const auto request = message::parse_completion_request(envelope.data());
  if (!request) return request.error();
  Script script;
  for (const message::TokenInput& one : request->prompts) {
    script.prompt += text_of(one) + "\n";
    if (request->echo) script.echo.push_back(text_of(one));
  }
  script.prompts = static_cast<std::uint32_t>(request->prompts.size());
  set_length(options, *request, script);
  return script;
}

Result<Script> embedding_script(const ScriptedOptions& options, const v1::Envelope& envelope) {
  const auto request = message::parse_embedding_request(envelope.data());
  if (!request) return request.error();
  if (options.embed == 0) {
    return Error{Code::kInvalidArgument,
                 "this scripted engine makes no embeddings: start it with embed=N", "model"};
  }
  const std::uint32_t size = request->dimensions.value_or(options.embed);
  if (size == 0 || size > options.embed) {
    return Error{Code::kInvalidArgument,
                 "dimensions must be from 1 to " + std::to_string(options.embed), "dimensions"};
  }
  Script script;
  for (const message::TokenInput& one : request->inputs) {
    script.prompt += text_of(one) + "\n";
    script.embeddings.push_back(embedding_of(text_of(one), size));
  }
  script.prompts = static_cast<std::uint32_t>(request->inputs.size());
  return script;
}

}  // namespace

void Script::say(std::uint32_t index, std::uint32_t choice, Piece& piece) const {
  if (index == 0 && !echo.empty()) piece.text += echo[choice / (choices / prompts)];
  if (tool.empty()) {
    piece.text += token_text(index);
    return;
  }
  // {"words":["tok1 ","tok2 "]} in as many pieces as there are tokens.
  if (!piece.call) piece.call.emplace();
  if (index == 0) {
    char id[32];
    std::snprintf(id, sizeof id, "call_%016llx%08x",
                  static_cast<unsigned long long>(hash_of(request_id)), choice);
    piece.call->set_id(id);
    piece.call->set_name(tool);
    piece.call->set_arguments("{\"words\":[");
  } else if (index + 1 == end_) {
    piece.call->mutable_arguments()->append("]}");
  } else {
    piece.call->mutable_arguments()->append((index > 1 ? ",\"" : "\"") + token_text(index) + "\"");
  }
}

std::uint32_t Script::resume(const v1::ChoiceProgress& progress, std::uint32_t choice,
                             Piece& held) const {
  auto first = std::min(static_cast<std::uint32_t>(progress.token_ids_size()), end_);
  if (first == 0) {  // text of another engine: as many tokens as it is long
    for (Piece said; first < end_ && said.text.size() < progress.text().size(); ++first) {
      say(first, choice, said);
    }
  }
  for (std::uint32_t i = 0; i < first; ++i) say(i, choice, held);
  held.text.erase(0, std::min(held.text.size(), progress.text().size()));
  if (!held.call || progress.tool_calls_size() == 0) return first;
  const v1::ToolCallDelta& known = progress.tool_calls(0);
  held.call->clear_id();
  held.call->clear_name();
  std::string& arguments = *held.call->mutable_arguments();
  arguments.erase(0, std::min(arguments.size(), known.arguments().size()));
  if (arguments.empty()) held.call.reset();
  return first;
}

Result<Script> make_script(const ScriptedOptions& options, const v1::Envelope& envelope,
                           const std::string& request_id) {
  auto script =
      envelope.type() == message::kCompletionRequestType  ? completion_script(options, envelope)
      : envelope.type() == message::kEmbeddingRequestType ? embedding_script(options, envelope)
                                                          : chat_script(options, envelope);
  if (script) script->request_id = request_id;
  return script;
}

}  // namespace waystation::engine
