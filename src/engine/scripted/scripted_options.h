// What `--scripted "tokens=64,interval-ms=20"` says.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::engine {

struct ScriptedOptions {
  std::uint32_t tokens = 64;        // of a whole answer; 1 to 1,000,000
  std::uint32_t interval_ms = 20;   // between two tokens of a request; 0 = the whole answer at once
  std::uint32_t slots = 1024;       // requests at once; 1 to 65536
  std::uint32_t prompt_tokens = 8;  // reported for every prompt
  std::uint32_t embed = 0;          // numbers of an embedding, at most 65536; 0 = it doesn't embed
  std::uint32_t tools = 0;          // 1: a request that brings tools gets a call of the first one
  std::string name = "scripted";    // the model's id
  std::string crash_on;  // the process exits with 86 when a message contains this; empty = never
};

// Parses "key=value,key=value"; empty text gives the defaults. kInvalidArgument names what is
// wrong, and for an unknown key the nearest known one.
Result<ScriptedOptions> parse_scripted_options(std::string_view text);

}  // namespace waystation::engine
