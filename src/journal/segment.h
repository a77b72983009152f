// One segment as readers see it: where it is, and a sparse index of its batches.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "journal/file_system.h"
#include "journal/format.h"
#include "journal/segment_reader.h"

namespace waystation::journal {

// A batch's first record and its place in the file.
struct IndexEntry {
  LogIndex base;
  std::uint64_t offset = 0;
};

// Shared by the writer and the readers; any thread. One index entry for each 16 KiB of batches, so
// that finding a record costs one small read and the index of a 64 MiB segment is 64 KiB. The index
// of a segment that recovery had no need to read is made at the first read of one of its records.
class Segment {
 public:
  static constexpr std::uint64_t kIndexEveryBytes = 16u << 10;

  // `file_bytes`: used bytes as far as known now.
  Segment(FileSystem& file_system, std::string path, SegmentHeader header,
          std::uint64_t file_bytes);

  const SegmentHeader& header() const { return header_; }
  LogIndex first() const { return header_.first; }
  const std::string& path() const { return path_; }

  // Says that add_batch() is called for every batch from the start on: no other index is needed.
  void index_while_writing();
  // In order of the file.
  void add_batch(LogIndex base, std::uint64_t offset);

  // While a file is pinned it is used for reading too, else readers open the path.
  void pin(std::shared_ptr<File> file);
  void unpin();
  Result<std::shared_ptr<File>> file() const;

  // A batch start at or before the one that holds `index`. `last` is the segment's newest record.
  Result<IndexEntry> entry_for(LogIndex index, LogIndex last);
  // The same, but the segment's start when there is no index yet (for reading it all).
  IndexEntry known_entry_for(LogIndex index) const;

  std::atomic<std::uint64_t> used_bytes;
  std::atomic<TimeMs> last_time_ms{0};

 private:
  IndexEntry lookup(LogIndex index) const;
  Status build(LogIndex last);

  FileSystem& file_system_;
  const std::string path_;
  const SegmentHeader header_;
  mutable std::mutex mutex_;
  std::vector<IndexEntry> entries_;
  bool indexed_ = false;
  std::shared_ptr<File> pinned_;
};

}  // namespace waystation::journal
