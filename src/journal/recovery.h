// From a folder in any state that a crash can leave to a log that can be appended to. The steps are
// in docs/formats/journal.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "journal/checkpoint_store.h"
#include "journal/file_system.h"
#include "journal/segment.h"
#include "journal/segment_writer.h"

namespace waystation::journal {

struct Recovered {
  std::uint64_t journal_id = 0;
  LogIndex last;                                   // newest record, surely on disk now
  TimeMs last_time_ms = 0;                         // of its batch
  std::uint32_t previous_crc = 0;                  // for the next batch
  std::vector<std::shared_ptr<Segment>> segments;  // in order; the last one is the writer's
  std::unique_ptr<SegmentWriter> writer;
  std::uint64_t torn_bytes = 0;      // cut
  std::uint64_t batches_copied = 0;  // whose sync was in doubt
};

// The folder exists and is locked. `new_journal_id`: for a journal that has no files yet.
// `checkpoints` is filled. kCorruption when the log is damaged: nothing was changed then.
Result<Recovered> recover(FileSystem& file_system, const std::string& dir,
                          std::uint64_t segment_bytes, std::uint64_t new_journal_id,
                          CheckpointStore& checkpoints);

}  // namespace waystation::journal
