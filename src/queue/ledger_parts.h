// Ledger's template, for its own .cc files.
#pragma once

#include <algorithm>

#include "queue/ledger.h"

namespace waystation::queue {

// `f` may remove the frame that it is given.
template <typename F>
Status Ledger::each_part(Queue& queue, const Ranges& ranges, F f) {
  for (const Range& range : ranges) {
    for (MessageId at = range.first; at < range.end();) {
      Frame* frame = queue.frame_of(at);
      if (frame == nullptr) {
        return Error{Code::kCorruption,
                     "a record names the message " + std::to_string(at) + ", which isn't there"};
      }
      const Range part{at, std::min(range.end(), frame->end()) - at};
      at = part.end();
      if (const Status done = f(*frame, part); !done) return done;
    }
  }
  return {};
}

}  // namespace waystation::queue
