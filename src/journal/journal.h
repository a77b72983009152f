// The journal: records in one order, durable in that order. The format is in
// docs/formats/journal.md.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace waystation::journal {

enum class Durability {
  kDisk,  // written and synced before it counts as durable (the promise holds)
  kOs,    // written, not synced: survives a crash of the process, not of the machine
  kNone,  // kept in memory (MemoryJournal)
};

// Called on the journal's thread; must not block. `on_durable` tells that all records up to and
// including the index are durable; it comes in order. `on_failure` comes at most once, after which
// nothing becomes durable any more.
struct Callbacks {
  std::function<void(LogIndex)> on_durable;
  std::function<void(Error)> on_failure;
};

struct SegmentInfo {
  LogIndex first;
  LogIndex last;
  std::uint64_t bytes = 0;  // on disk
  TimeMs last_time_ms = 0;  // of its newest batch
  bool sealed = false;      // nothing is added to it any more
};

struct Checkpoint {
  LogIndex index;     // the state after this record
  std::string state;  // opaque to the journal
};

// Gets each record in order. A returned error stops the scan and is handed on.
using Visitor = std::function<Status(LogIndex, std::string_view record)>;

class Journal {
 public:
  virtual ~Journal() = default;

  // Where the next record goes. Owner's thread.
  virtual LogIndex next_index() const = 0;

  // Queues records (one batch, written whole or, after a crash, cut whole) and returns the index of
  // the first. `now_ms` is stored in the batch. Never waits for the disk. Owner's thread.
  virtual LogIndex append(std::vector<std::string> records, TimeMs now_ms) = 0;

  // Bytes that are queued and not yet durable: the owner stops accepting above its bound. Any
  // thread.
  virtual std::uint64_t backlog_bytes() const = 0;

  // The newest durable record. Any thread.
  virtual LogIndex durable_index() const = 0;

  // Reads one durable record. kNotFound when it was removed or isn't durable yet. Any thread.
  virtual Result<std::string> read(LogIndex index) const = 0;

  // Visits the durable records from..to (both included; to = {} means the newest durable one).
  // Any thread.
  virtual Status scan(LogIndex from, LogIndex to, const Visitor& visit) const = 0;

  // Checkpoints. Writing is atomic and durable; older checkpoints beyond the previous one are
  // removed. Any one thread at a time, not the journal's.
  virtual Status write_checkpoint(const Checkpoint& checkpoint) = 0;
  virtual Result<std::optional<Checkpoint>> newest_checkpoint() const = 0;

  // Segments in order, the one being written last. Any thread.
  virtual std::vector<SegmentInfo> segments() const = 0;

  // Removes sealed segments all of whose records are below `index` and covered by the older of the
  // two kept checkpoints (with fewer than two nothing is removed), so that an unreadable newest
  // checkpoint loses nothing.
  // Any one thread at a time, not the journal's.
  virtual Status remove_below(LogIndex index) = 0;
};

}  // namespace waystation::journal
