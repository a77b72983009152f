// A request in the engine: its choices, those that wait for a slot and those that have one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"
#include "engine/llama/prompt.h"
#include "message/proto/link.pb.h"

namespace waystation::engine {

struct Request {
  v1::Fence fence;
  std::shared_ptr<const Prompt> prompt;  // null when the request was refused
  v1::Assign assign;                     // what its choices resume from
  std::uint32_t open = 0;                // choices that haven't finished
  bool started = false;                  // was told
  std::optional<Error> error;
  bool cancelled = false;

  // Nothing of it may go on.
  bool ended() const { return error || cancelled; }
  const v1::ChoiceProgress* progress(std::uint32_t choice) const {
    const auto index = static_cast<int>(choice);
    return index < assign.resume_size() ? &assign.resume(index) : nullptr;
  }
};

}  // namespace waystation::engine
