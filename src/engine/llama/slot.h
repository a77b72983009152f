// One place in the context: a sequence of the KV cache, and the choice that uses it, if any.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <llama.h>

#include "engine/llama/answer.h"
#include "engine/llama/request.h"

namespace waystation::engine {

struct Slot {
  llama_seq_id sequence = 0;
  // The tokens whose keys and values the sequence holds, at positions 0, 1, …; kept when an answer
  // ends, for the next one that begins alike.
  std::vector<llama_token> cache;
  std::uint64_t used_at = 0;  // count of starts: the smallest was used longest ago

  Request* request = nullptr;    // set while a choice is in the slot
  std::optional<Answer> answer;  // set as long as `request` is
  std::uint64_t order = 0;       // of start

  bool busy() const { return request != nullptr; }
  // Tokens that must go through the model before the next one can be sampled.
  std::size_t behind() const {
    return answer && !answer->finished() ? answer->tokens().size() - cache.size() : 0;
  }
};

}  // namespace waystation::engine
