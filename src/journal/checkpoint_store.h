// The checkpoint files of a journal folder.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "journal/file_system.h"
#include "journal/journal.h"

namespace waystation::journal {

// One checkpoint file, read and checked. Errors name the path.
struct StoredCheckpoint {
  std::uint64_t journal_id = 0;
  Checkpoint checkpoint;
};
Result<StoredCheckpoint> read_checkpoint(FileSystem& file_system, const std::string& path,
                                         LogIndex named);

// Keeps the newest two. Any thread.
class CheckpointStore {
 public:
  CheckpointStore(FileSystem& file_system, std::string dir)
      : file_system_(file_system), dir_(std::move(dir)) {}

  // Takes what is in the folder (ascending) and reads the newest good one; bad ones are told by a
  // log line and removed by the next write. Gives its journal id; nothing without a good one.
  Result<std::optional<std::uint64_t>> load(std::vector<LogIndex> found);
  void set_journal_id(std::uint64_t id) { journal_id_ = id; }

  Status write(const Checkpoint& checkpoint);
  Result<std::optional<Checkpoint>> newest() const;

  // 0 without one.
  LogIndex newest_index() const;
  // The older of the two kept; 0 when there are fewer than two.
  LogIndex older_index() const;

 private:
  std::string path_of(LogIndex index) const;

  FileSystem& file_system_;
  const std::string dir_;
  std::uint64_t journal_id_ = 0;
  mutable std::mutex mutex_;
  std::vector<LogIndex> kept_;                // ascending; the last one was read or written well
  std::vector<LogIndex> bad_;                 // unreadable
  mutable std::optional<Checkpoint> loaded_;  // from load(), until it is asked for
};

}  // namespace waystation::journal
