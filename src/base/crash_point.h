// Named places at which a test may end the process as `kill -9` would: between a write and its
// sync, between a rename and what relies on it. docs/testing.md says what each is for.
//
// They are always compiled in, so the binary that is tested is the one that people run. Unarmed, a
// point is one relaxed load and a branch that isn't taken (0.02 ns more for each round of a loop
// that does nothing else). Only `serve` arms one, when WAYSTATION_CRASH_AT says so.
#pragma once

#include <atomic>
#include <string_view>

#include "base/result.h"

namespace waystation {

enum class CrashPoint {
  kJournalBeforeWrite,   // a group of batches is encoded
  kJournalAfterWrite,    // it is written, not synced
  kJournalAfterSync,     // it is durable, and nobody knows
  kSegmentBeforeRename,  // a new segment is synced under its temporary name
  kSegmentAfterRename,   // its folder isn't synced yet
  kSegmentBeforeRemove,
  kSegmentAfterRemove,
  kCheckpointBeforeRename,
  kCheckpointAfterRename,
  kBrokerBeforeRelease,  // one effect that waited for its records: a reply, events, an end
  kBrokerAfterRelease,
  kStoreBeforeCommit,  // of the database of files, batches, responses and conversations
  kStoreAfterCommit,
  kBlobBeforeRename,  // an uploaded file is whole under its temporary name
  kBlobAfterRename,
};

namespace detail {
extern std::atomic<bool> crash_point_armed;
void crash_point_reached(CrashPoint point);
}  // namespace detail

// Any thread.
inline void crash_point(CrashPoint point) {
  if (detail::crash_point_armed.load(std::memory_order_relaxed)) [[unlikely]] {
    detail::crash_point_reached(point);
  }
}

// "journal.after_write:17": SIGKILL to this process when the point is reached for the 17th time.
// Once, before there are other threads. kInvalidArgument: the name isn't known (it says which are),
// or the count isn't one.
Status arm_crash_point(std::string_view text);

}  // namespace waystation
