#include "journal/log_scan.h"

#include <algorithm>

namespace waystation::journal {
namespace {

// Checks the batches of one segment up to `bound` (the next segment's first record; {} in the last
// one). Returns the damage that ends it, if any.
Result<std::optional<Damage>> scan_batches(const File& file, SegmentScan& scan, LogIndex bound) {
  const SegmentHeader& header = scan.header;
  SegmentReader reader(file, header.journal_id,
                       {kSegmentHeaderBytes, header.first, header.previous_crc});
  scan.scanned = true;
  scan.last_time_ms = header.previous_time_ms;
  scan.end_crcs = {header.previous_crc};
  for (;;) {
    scan.last.value = reader.position().next.value - 1;
    scan.valid_bytes = reader.position().offset;
    const bool full = bound.value != 0 && reader.position().next >= bound;
    const auto step = reader.next();
    if (!step) return step.error();
    const bool mark = *step == Step::kBatch && reader.header().record_count == 0;
    // Past the bound only closing marks still belong to the chain.
    if (full && !mark) return std::optional<Damage>();
    if (*step != Step::kBatch) {
      if (bound.value == 0 && *step == Step::kEnd) return std::optional<Damage>();
      return std::optional<Damage>(
          Damage{scan.path, reader.position().offset, reader.position().next,
                 *step == Step::kBad ? reader.reason() : "the segment ends too early"});
    }
    const BatchHeader& batch = reader.header();
    if (batch.end() > bound && bound.value != 0) {
      return std::optional<Damage>(Damage{scan.path, reader.batch_offset(), batch.base,
                                          "a batch reaches into the next segment's records"});
    }
    if (!mark) {
      ++scan.batches;
      scan.end_crcs.clear();
    }
    scan.end_crcs.push_back(batch.header_crc);
    const std::uint64_t offset = reader.batch_offset();
    if (scan.entries.empty() || offset >= scan.entries.back().offset + Segment::kIndexEveryBytes) {
      scan.entries.push_back({batch.base, offset});
    }
    while (!scan.unsynced.empty() && scan.unsynced.front().header.base <= batch.synced) {
      scan.unsynced.pop_front();
    }
    scan.unsynced.push_back({batch, offset, scan.last_time_ms});
    scan.last_time_ms = batch.time_ms;
  }
}

// In the last segment the log may end in a torn tail; decides whether this is one.
Result<std::optional<Damage>> judge_tail(const File& file, SegmentScan& scan,
                                         std::optional<Damage> damage) {
  const LogIndex next{scan.last.value + 1};
  const auto tail = search_tail(file, scan.header.journal_id, scan.valid_bytes, next);
  if (!tail) return tail.error();
  scan.torn_bytes = tail->used_bytes - scan.valid_bytes;
  if (!tail->proof_offset) return std::optional<Damage>();
  if (!damage) damage = Damage{scan.path, scan.valid_bytes, next, "a batch is missing"};
  damage->reason += ", and the batch at byte " + std::to_string(*tail->proof_offset) +
                    " shows that it had been written";
  return damage;
}

Result<std::optional<Damage>> scan_segment(FileSystem& file_system, SegmentScan& scan,
                                           std::optional<LogIndex> next_first, bool headers_only) {
  const auto file = file_system.open(scan.path, OpenMode::kRead);
  if (!file) return file.error();
  const auto size = (*file)->size();
  if (!size) return size.error();
  scan.file_bytes = *size;
  scan.valid_bytes = *size;
  const LogIndex named = scan.header.first;
  const auto header = read_segment_header(**file, scan.path);
  if (!header && header.error().code != Code::kCorruption) return header.error();
  if (!header || header->first != named) {
    scan.valid_bytes = 0;
    scan.last.value = named.value - 1;
    const std::string reason =
        header ? "its header names another first record than its file name does"
               : header.error().message.substr(("segment " + scan.path + ": ").size());
    return std::optional<Damage>(Damage{scan.path, 0, named, reason});
  }
  scan.header = *header;
  if (headers_only) {
    scan.last.value = next_first->value - 1;
    return std::optional<Damage>();
  }
  auto damage = scan_batches(**file, scan, next_first.value_or(LogIndex{}));
  if (!damage || next_first) return damage;
  return judge_tail(**file, scan, std::move(*damage));
}

}  // namespace

Result<Listing> list_journal(FileSystem& file_system, const std::string& dir) {
  const auto names = file_system.list(dir);
  if (!names) return names.error();
  Listing listing;
  for (const std::string& name : *names) {
    if (auto first = parse_segment_name(name)) listing.segments.push_back(*first);
    if (auto index = parse_checkpoint_name(name)) listing.checkpoints.push_back(*index);
    if (is_temporary_name(name)) listing.temporaries.push_back(name);
  }
  std::ranges::sort(listing.segments);
  std::ranges::sort(listing.checkpoints);
  return listing;
}

Result<LogScan> scan_log(FileSystem& file_system, const std::string& dir, const Listing& listing,
                         LogIndex scan_from, LogIndex covered) {
  LogScan log;
  for (std::size_t i = 0; i < listing.segments.size(); ++i) {
    const LogIndex first = listing.segments[i];
    std::optional<LogIndex> next_first;
    if (i + 1 < listing.segments.size()) next_first = listing.segments[i + 1];
    SegmentScan scan;
    scan.path = path_in(dir, segment_name(first));
    scan.header.first = first;
    auto damage =
        scan_segment(file_system, scan, next_first, next_first && *next_first <= scan_from);
    if (!damage) return damage.error();
    const bool readable = scan.valid_bytes > 0;
    if (readable && log.journal_id == 0) log.journal_id = scan.header.journal_id;
    if (readable && scan.header.journal_id != log.journal_id) {
      log.damages.push_back({scan.path, 0, first, "it belongs to another journal"});
    } else if (readable && i > 0 && log.segments.back().scanned &&
               log.segments.back().last.value + 1 == first.value &&
               std::ranges::count(log.segments.back().end_crcs, scan.header.previous_crc) == 0) {
      log.damages.push_back({scan.path, 0, first, "it doesn't follow the segment before it"});
    }
    if (log.damages.empty()) log.last = scan.last;
    if (*damage) log.damages.push_back(**damage);
    log.segments.push_back(std::move(scan));
  }
  if (log.damages.empty() && log.last < covered) {
    const SegmentScan* last = log.segments.empty() ? nullptr : &log.segments.back();
    log.damages.push_back({last ? last->path : path_in(dir, segment_name({1})),
                           last ? last->valid_bytes : 0,
                           {log.last.value + 1},
                           "the newest checkpoint covers record " + std::to_string(covered.value) +
                               ", so records are missing"});
  }
  return log;
}

}  // namespace waystation::journal
