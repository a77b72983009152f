// From a chat request to the prompt's text, with what it means for the answer: its format and the
// grammar that it has to follow. See docs/adr/0006-tools-and-grammars.md.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "engine/llama/model.h"
#include "engine/llama/prompt.h"
#include "message/chat.h"

namespace waystation::engine {

// Returns the prompt's text; sets format, grammar, raw_stops and shown of `prompt`.
// kInvalidArgument: the template refuses the messages, or the schema of the answer or of a tool
// can't be kept.
Result<std::string> ask_as_chat(const Model& model, const message::ChatRequest& request,
                                std::int64_t time_ms, Prompt& prompt);

}  // namespace waystation::engine
