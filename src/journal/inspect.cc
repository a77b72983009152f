#include "journal/inspect.h"

#include <algorithm>

#include "journal/checkpoint_store.h"
#include "journal/log_reader.h"
#include "journal/log_scan.h"

namespace waystation::journal {
namespace {

struct CheckpointCheck {
  LogIndex index;
  std::uint64_t state_bytes = 0;
  std::uint64_t journal_id = 0;
  std::string wrong;  // empty: good
};

Result<std::vector<CheckpointCheck>> check_checkpoints(FileSystem& file_system,
                                                       const std::string& dir,
                                                       const Listing& listing) {
  std::vector<CheckpointCheck> checks;
  for (const LogIndex index : listing.checkpoints) {
    const auto stored = read_checkpoint(file_system, path_in(dir, checkpoint_name(index)), index);
    if (!stored && stored.error().code != Code::kCorruption) return stored.error();
    checks.push_back({index, stored ? stored->checkpoint.state.size() : 0,
                      stored ? stored->journal_id : 0, stored ? "" : stored.error().message});
  }
  return checks;
}

LogIndex newest_of(const Listing& listing) {
  return listing.checkpoints.empty() ? LogIndex{} : listing.checkpoints.back();
}

void print_segment(const SegmentScan& scan, const LogScan& log, std::ostream& out) {
  out << "segment " << scan.path << " records=" << scan.header.first.value << ".."
      << scan.last.value << " batches=" << scan.batches << " bytes=" << scan.valid_bytes << " ";
  const auto damage = std::ranges::find(log.damages, scan.path, &Damage::path);
  if (damage != log.damages.end()) {
    out << "DAMAGED at byte " << damage->offset << " (record " << damage->record.value
        << "): " << damage->reason << "\n";
  } else if (scan.torn_bytes > 0) {
    out << "ok, torn tail of " << scan.torn_bytes
        << " bytes (never durable; cut at the next start)\n";
  } else {
    out << "ok\n";
  }
}

}  // namespace

Status verify(FileSystem& file_system, const std::string& dir, std::ostream& out) {
  const auto listing = list_journal(file_system, dir);
  if (!listing) return listing.error();
  auto checkpoints = check_checkpoints(file_system, dir, *listing);
  if (!checkpoints) return checkpoints.error();
  const auto log = scan_log(file_system, dir, *listing, {}, newest_of(*listing));
  if (!log) return log.error();
  for (const SegmentScan& scan : log->segments) print_segment(scan, *log, out);

  std::size_t bad_checkpoints = 0;
  LogIndex readable;
  for (CheckpointCheck& check : *checkpoints) {
    if (check.wrong.empty() && !log->segments.empty() && check.journal_id != log->journal_id) {
      check.wrong = "it belongs to another journal";
    }
    out << "checkpoint " << path_in(dir, checkpoint_name(check.index))
        << " record=" << check.index.value << " state_bytes=" << check.state_bytes << " "
        << (check.wrong.empty() ? "ok" : "DAMAGED: " + check.wrong) << "\n";
    if (check.wrong.empty()) readable = check.index;
    if (!check.wrong.empty()) ++bad_checkpoints;
  }
  for (const std::string& name : listing->temporaries) {
    out << "unfinished " << path_in(dir, name) << " (removed at the next start)\n";
  }
  if (log->segments.empty() && listing->checkpoints.empty()) {
    return Error{Code::kNotFound, dir + " holds no journal"};
  }
  const bool gap =
      log->segments.empty() || log->segments.front().header.first.value > readable.value + 1;
  if (log->damages.empty() && bad_checkpoints == 0 && !gap) {
    out << "verdict: sound, records up to " << log->last.value << "\n";
    return {};
  }
  out << "verdict: DAMAGED, records up to " << log->last.value << " are whole";
  if (bad_checkpoints > 0) out << ", " << bad_checkpoints << " unreadable checkpoint(s)";
  if (gap) out << ", records before the first segment are missing without a readable checkpoint";
  out << "\n";
  if (!log->damages.empty()) {
    out << "next: restore a backup, or save what is left with `waystation journal salvage " << dir
        << " --to NEW_DIR`\n";
  }
  return Error{Code::kCorruption, "the journal in " + dir + " is damaged"};
}

Status inspect(FileSystem& file_system, const std::string& dir, const InspectOptions& options,
               const RecordFormatter& format, std::ostream& out) {
  const auto listing = list_journal(file_system, dir);
  if (!listing) return listing.error();
  if (listing->segments.empty()) return Error{Code::kNotFound, dir + " holds no segments"};
  std::uint64_t left = options.limit;
  std::string scratch;
  for (std::size_t i = 0; i < listing->segments.size() && left > 0; ++i) {
    const bool is_last = i + 1 == listing->segments.size();
    if (!is_last && listing->segments[i + 1] <= options.from) continue;
    const std::string path = path_in(dir, segment_name(listing->segments[i]));
    const auto file = file_system.open(path, OpenMode::kRead);
    if (!file) return file.error();
    const auto header = read_segment_header(**file, path);
    if (!header) return header.error();
    SegmentReader reader(**file, header->journal_id,
                         {kSegmentHeaderBytes, header->first, header->previous_crc});
    while (left > 0 && (is_last || reader.position().next < listing->segments[i + 1])) {
      const auto step = reader.next();
      if (!step) return step.error();
      if (*step != Step::kBatch) {
        if (is_last) return {};  // the end, or a torn tail; `verify` tells them from damage
        return corruption_at(path, reader.position().offset, reader.position().next,
                             *step == Step::kBad ? reader.reason() : "the segment ends too early");
      }
      const auto raw = decode_payload(reader.header(), reader.stored(), scratch);
      if (!raw) {
        return corruption_at(path, reader.batch_offset(), reader.header().base,
                             raw.error().message);
      }
      LogIndex index = reader.header().base;
      RecordCursor cursor(*raw);
      for (std::string_view record; left > 0 && cursor.next(record); ++index.value) {
        if (index < options.from) continue;
        out << "{\"index\":" << index.value << ",\"time_ms\":" << reader.header().time_ms
            << ",\"record\":" << format(record) << "}\n";
        --left;
      }
    }
  }
  return {};
}

}  // namespace waystation::journal
