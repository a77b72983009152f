// What stands behind `waystation journal salvage`: reading all that a damaged journal still holds,
// before and after the damage, and writing a new journal. What records mean is broker/salvage.h's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/file_system.h"
#include "journal/format.h"
#include "journal/log_scan.h"
#include "journal/segment_writer.h"

namespace waystation::journal {

// A stretch of a file that doesn't hold what it should. No record is missing when last < first: a
// closing mark was there, or a header.
struct LostRange {
  std::string path;
  std::uint64_t from_byte = 0;
  std::uint64_t to_byte = 0;  // where reading goes on; the end of the file when nothing follows
  LogIndex first;
  LogIndex last;
  std::string reason;

  std::uint64_t records() const { return last < first ? 0 : last.value + 1 - first.value; }
};

// Gets what is there and what isn't, in order of the numbers. A returned error stops the walk.
struct LeftoverVisitor {
  std::function<Status(LogIndex, TimeMs batch_time_ms, std::string_view record)> record;
  std::function<Status(const LostRange&)> lost;
};

struct Leftover {
  std::uint64_t journal_id = 0;
  LogIndex first;                // the number that the first segment's name says
  LogIndex last;                 // the newest that is there, or is known to be lost
  std::uint64_t torn_bytes = 0;  // after the last record: never durable
};

// Walks all segments and hands on every batch whose own checksums are right, wherever it lies.
// Changes nothing. `covered`: the newest checkpoint's number; `journal_id`: what a checkpoint says,
// for a folder no segment of which tells it. kNotFound without segments, kCorruption when nothing
// tells the journal's id. Holds one segment in memory.
Result<Leftover> read_leftover(FileSystem& file_system, const std::string& dir,
                               const Listing& listing, LogIndex covered,
                               std::optional<std::uint64_t> journal_id,
                               const LeftoverVisitor& visitor);

// Writes a journal's log into an empty folder: append()… → finish(). Nothing of it counts before
// finish() has returned well; after an error it is to be thrown away. One thread.
class LogCopy {
 public:
  struct Options {
    FileSystem* file_system = nullptr;  // outlives it
    std::string dir;
    std::uint64_t journal_id = 0;
    LogIndex first{1};
    std::uint64_t segment_bytes = 32u << 20;
  };
  explicit LogCopy(Options options);

  Status append(std::string record, TimeMs time_ms);
  // Writes what is gathered and the closing mark, and syncs all of it.
  Status finish();
  // The number that the next record gets.
  LogIndex next() const { return {written_next_.value + gathered_.size()}; }

 private:
  Status flush();
  Status write_batch(std::span<const std::string> records);
  Status roll(std::uint64_t bytes);

  const Options options_;
  BatchEncoder encoder_;
  std::unique_ptr<SegmentWriter> writer_;
  std::vector<std::string> gathered_;
  std::uint64_t gathered_bytes_ = 0;
  LogIndex written_next_;
  LogIndex synced_;  // up to the end of the segment before
  TimeMs time_ms_ = 0;
  TimeMs written_time_ms_ = 0;
  std::uint32_t previous_crc_ = 0;
};

}  // namespace waystation::journal
