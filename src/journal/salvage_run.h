// `waystation journal salvage`: of a damaged journal, a new one that a server can start with. What
// is the same for every kind of journal is here; what its records mean, a LogRepair knows.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>

#include "base/result.h"
#include "journal/file_system.h"
#include "journal/journal.h"

namespace waystation::journal {

struct SalvageOptions {
  std::string dir;       // the damaged journal; nothing in it is changed but its LOCK
  std::string to;        // the new folder: empty or absent
  bool dry_run = false;  // only tell; `to` isn't touched
  std::uint64_t new_journal_id = 0;
  std::uint64_t segment_bytes = 32u << 20;
};

// Numbers of records, as counted by the walk.
struct SalvageCounts {
  std::uint64_t read = 0;
  std::uint64_t kept = 0;
  std::uint64_t lost = 0;
};

// Makes records that its kind of server can apply of those that are left. The walk calls: use() or
// use_nothing(), begin(), then hole() and take() in the order of the log, finish(). A returned
// error stops it.
class LogRepair {
 public:
  // Writes the next record of the new log.
  using Emit = std::function<Status(std::string record, TimeMs time_ms)>;
  using IsLost = std::function<bool(LogIndex)>;

  virtual ~LogRepair() = default;
  // Begins with the state of a checkpoint. kCorruption: it can't be used, and says why.
  virtual Status use(const Checkpoint& checkpoint) = 0;
  // There is none, and records up to `index` aren't there either.
  virtual void use_nothing(LogIndex index) = 0;
  // What stands in the place of a record that is lost and that the checkpoint stands for: it keeps
  // its number and says nothing.
  virtual std::string filler(TimeMs time_ms) const = 0;
  // `is_lost`: of records that the checkpoint stands for.
  virtual Status begin(const IsLost& is_lost, Emit emit) = 0;
  // As many records are missing here.
  virtual void hole(std::uint64_t records) = 0;
  // False: the bytes are no record.
  virtual Result<bool> take(std::string_view record) = 0;
  // Ends what must end, and voids what a lost record may have promised.
  virtual Status finish() = 0;

  // The state that began, with what was changed in it since, and the one that all records give.
  virtual Checkpoint base() const = 0;
  virtual Checkpoint last() const = 0;
  // What became of whatever the damage touched, and a summary.
  virtual void tell(std::ostream& out, const SalvageOptions& options,
                    const SalvageCounts& counts) const = 0;
};

// Prints each damaged range with its file, bytes and records, and what `repair` tells. kBusy: a
// server has the folder. kInvalidArgument: `to` isn't empty. kCorruption: nothing can be saved.
// Whoever calls it on a name of its own and renames that makes it atomic.
Status salvage(FileSystem& file_system, const SalvageOptions& options, LogRepair& repair,
               std::ostream& out);

}  // namespace waystation::journal
