// What the scripted engine says to a request: a function of its options and the request alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/scripted/scripted_options.h"
#include "message/proto/envelope.pb.h"
#include "message/proto/records.pb.h"

namespace waystation::engine {

struct Piece {
  std::string text;
  std::optional<v1::ToolCallDelta> call;
};

struct Script {
  std::string prompt;  // all text of the request, for `crash-on`
  std::uint32_t prompts = 1;
  std::uint32_t choices = 1;
  std::string finish_reason = "stop";
  std::vector<std::string> embeddings;  // of an embedding request: float32 little-endian

  // Tokens of a choice.
  std::uint32_t end() const { return end_; }
  // Adds token `index` of a choice to `piece`.
  void say(std::uint32_t index, std::uint32_t choice, Piece& piece) const;
  // The token that comes next after `progress`; what its tokens have said but it doesn't hold goes
  // to `held`.
  std::uint32_t resume(const v1::ChoiceProgress& progress, std::uint32_t choice, Piece& held) const;

  std::uint32_t end_ = 0;
  std::string request_id;
  std::string tool;               // called instead of text when not empty
  std::vector<std::string> echo;  // of each prompt, said before its answers
};

// kInvalidArgument: what is wrong with the request.
Result<Script> make_script(const ScriptedOptions& options, const v1::Envelope& envelope,
                           const std::string& request_id);

}  // namespace waystation::engine
