// Looks at a whole journal folder, changes nothing, and tells what is valid. The rule is in
// docs/formats/journal.md. Used by recovery and by `waystation journal verify`.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "journal/file_system.h"
#include "journal/format.h"
#include "journal/segment.h"

namespace waystation::journal {

// A place where the log isn't as it should be.
struct Damage {
  std::string path;
  std::uint64_t offset = 0;
  LogIndex record;  // the first one that can't be read there
  std::string reason;
};

// A batch near the end of a segment.
struct TailBatch {
  BatchHeader header;
  std::uint64_t offset = 0;
  TimeMs previous_time_ms = 0;  // of the batch before
  std::uint64_t end_offset() const { return offset + kBatchHeaderBytes + header.stored_bytes; }
};

struct SegmentScan {
  std::string path;
  SegmentHeader header;
  std::uint64_t file_bytes = 0;
  bool scanned = false;  // else only the header was read
  LogIndex last;         // newest valid record (when not scanned: by the next segment's name)
  TimeMs last_time_ms = 0;
  std::uint64_t valid_bytes = 0;  // where the valid batches end
  std::uint64_t torn_bytes = 0;   // after them, in the last segment
  std::uint64_t batches = 0;      // with records
  std::vector<IndexEntry> entries;
  // What the next segment may name as its previous CRC.
  std::vector<std::uint32_t> end_crcs;
  // The batches after the newest `synced`, in order: those whose sync is in doubt.
  std::deque<TailBatch> unsynced;
};

struct LogScan {
  std::uint64_t journal_id = 0;
  std::vector<SegmentScan> segments;
  std::vector<Damage> damages;  // in order; empty = sound
  LogIndex last;                // newest record before the first damage
};

// Names found in the folder, sorted.
struct Listing {
  std::vector<LogIndex> segments;
  std::vector<LogIndex> checkpoints;
  std::vector<std::string> temporaries;
};
Result<Listing> list_journal(FileSystem& file_system, const std::string& dir);

// Segments whose records are all below `scan_from` get only their headers read. `covered`: the
// newest checkpoint's number, up to which records must be there. An error only when a file can't be
// read.
Result<LogScan> scan_log(FileSystem& file_system, const std::string& dir, const Listing& listing,
                         LogIndex scan_from, LogIndex covered);

}  // namespace waystation::journal
