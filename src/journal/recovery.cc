#include "journal/recovery.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"
#include "base/log.h"
#include "journal/log_reader.h"
#include "journal/log_scan.h"

namespace waystation::journal {
namespace {

// What must be written again: the bytes of the old last segment between two offsets.
struct Tail {
  SegmentHeader header;  // of the new segment
  std::vector<TailBatch> batches;
  std::uint64_t from = kSegmentHeaderBytes;
  std::uint64_t to = kSegmentHeaderBytes;
  TimeMs last_time_ms = 0;
  std::uint32_t last_crc = 0;
};

Tail tail_of(const SegmentScan& last) {
  Tail tail;
  tail.header = last.header;
  tail.last_time_ms = last.header.previous_time_ms;
  tail.last_crc = last.header.previous_crc;
  if (last.unsynced.empty()) return tail;
  // A closing mark takes no number, so the batches after it don't tell that it was synced; it can
  // only be the first one here. The new segment gets a mark of its own.
  auto begin = last.unsynced.begin();
  while (begin->header.record_count == 0 && std::next(begin) != last.unsynced.end()) ++begin;
  const TailBatch& front = *begin;
  tail.header.first = front.header.base;
  tail.header.previous_time_ms = front.previous_time_ms;
  tail.header.previous_crc = front.header.previous_crc;
  tail.from = tail.to = front.offset;
  tail.last_time_ms = front.previous_time_ms;
  tail.last_crc = front.header.previous_crc;
  for (; begin != last.unsynced.end() && begin->header.record_count > 0; ++begin) {
    tail.batches.push_back(*begin);
    tail.to = begin->end_offset();
    tail.last_time_ms = begin->header.time_ms;
    tail.last_crc = begin->header.header_crc;
  }
  CHECK(begin == last.unsynced.end() || tail.batches.empty());
  return tail;
}

Status copy_bytes(const File& from, std::uint64_t begin, std::uint64_t end, SegmentWriter& to) {
  std::string buffer;
  while (begin < end) {
    buffer.resize(std::min<std::uint64_t>(end - begin, SegmentReader::kReadBytes));
    const auto got = from.read_at(begin, buffer.data(), buffer.size());
    if (!got) return got.error();
    if (*got < buffer.size()) return Error{Code::kIo, "a segment got shorter while it was read"};
    if (auto wrote = to.write(buffer); !wrote) return wrote;
    begin += buffer.size();
  }
  return {};
}

// Writes the tail to a new segment and makes that durable.
Status rewrite_tail(FileSystem& file_system, const std::string& dir, const SegmentScan& last,
                    const Tail& tail, std::uint64_t segment_bytes, Recovered& out) {
  const std::uint64_t needed = kSegmentHeaderBytes + (tail.to - tail.from) + kBatchHeaderBytes;
  auto writer =
      SegmentWriter::begin(file_system, dir, tail.header, std::max(segment_bytes, needed));
  if (!writer) return writer.error();
  out.writer = std::move(*writer);
  const auto old = file_system.open(last.path, OpenMode::kRead);
  if (!old) return old.error();
  for (const TailBatch& batch : tail.batches) {
    out.writer->segment()->add_batch(batch.header.base,
                                     batch.offset - tail.from + kSegmentHeaderBytes);
  }
  if (auto copied = copy_bytes(**old, tail.from, tail.to, *out.writer); !copied) return copied;
  out.previous_crc = tail.last_crc;
  out.last_time_ms = tail.last_time_ms;
  if (!tail.batches.empty()) {
    // True when it can first be seen: the file gets its name after its sync.
    std::string mark;
    const LogIndex next{out.last.value + 1};
    out.writer->segment()->add_batch(next, out.writer->offset());
    out.previous_crc = BatchEncoder(SIZE_MAX).encode(
        {out.journal_id, next, out.last, tail.last_time_ms, tail.last_crc}, {}, mark);
    if (auto wrote = out.writer->write(mark); !wrote) return wrote;
  }
  out.writer->segment()->last_time_ms = tail.last_time_ms;
  return out.writer->publish();
}

// Cuts what the new segment took over from the old one.
Status cut_old(FileSystem& file_system, const SegmentScan& last, std::uint64_t keep_bytes) {
  if (last.file_bytes <= keep_bytes) return {};
  const auto file = file_system.open(last.path, OpenMode::kModify);
  if (!file) return file.error();
  if (auto cut = (*file)->truncate(keep_bytes); !cut) return cut;
  return (*file)->sync();
}

Error missing_records(const std::string& dir, LogIndex checkpoint, std::string_view what) {
  return {Code::kCorruption,
          "journal " + dir + ": " + std::string(what) + " after record " +
              std::to_string(checkpoint.value) +
              " (the newest readable checkpoint). Restore the missing files from "
              "a backup; `waystation journal verify " +
              dir + "` shows what is there"};
}

Status start_new(FileSystem& file_system, const std::string& dir, std::uint64_t segment_bytes,
                 Recovered& out) {
  const SegmentHeader header{.journal_id = out.journal_id, .first = {1}};
  auto writer = SegmentWriter::begin(file_system, dir, header, segment_bytes);
  if (!writer) return writer.error();
  out.writer = std::move(*writer);
  out.segments.push_back(out.writer->segment());
  return out.writer->publish();
}

std::shared_ptr<Segment> readable(FileSystem& file_system, const SegmentScan& scan,
                                  std::uint64_t keep_bytes) {
  auto segment = std::make_shared<Segment>(file_system, scan.path, scan.header, keep_bytes);
  if (!scan.scanned) return segment;
  segment->index_while_writing();
  for (const IndexEntry& entry : scan.entries) {
    if (entry.offset < keep_bytes) segment->add_batch(entry.base, entry.offset);
  }
  return segment;
}

}  // namespace

Result<Recovered> recover(FileSystem& file_system, const std::string& dir,
                          std::uint64_t segment_bytes, std::uint64_t new_journal_id,
                          CheckpointStore& checkpoints) {
  const auto listing = list_journal(file_system, dir);
  if (!listing) return listing.error();
  const auto checkpoint_journal = checkpoints.load(listing->checkpoints);
  if (!checkpoint_journal) return checkpoint_journal.error();
  const LogIndex checkpoint = checkpoints.newest_index();

  Recovered out;
  if (listing->segments.empty()) {
    if (!listing->checkpoints.empty())
      return missing_records(dir, checkpoint, "there are no segments");
    out.journal_id = new_journal_id;
    checkpoints.set_journal_id(out.journal_id);
    for (const std::string& name : listing->temporaries) {
      if (auto removed = file_system.remove(path_in(dir, name)); !removed) return removed.error();
    }
    if (auto started = start_new(file_system, dir, segment_bytes, out); !started) {
      return started.error();
    }
    return out;
  }
  if (listing->segments.front().value > checkpoint.value + 1) {
    return missing_records(dir, checkpoint, "records are missing");
  }

  const LogIndex covered = listing->checkpoints.empty() ? LogIndex{} : listing->checkpoints.back();
  auto log = scan_log(file_system, dir, *listing, {checkpoint.value + 1}, covered);
  if (!log) return log.error();
  if (!log->damages.empty()) {
    const Damage& damage = log->damages.front();
    return corruption_at(damage.path, damage.offset, damage.record, damage.reason);
  }
  if (*checkpoint_journal && **checkpoint_journal != log->journal_id) {
    return Error{Code::kCorruption, "the checkpoint at record " + std::to_string(checkpoint.value) +
                                        " in " + dir +
                                        " belongs to another journal than its "
                                        "segments; take out the files that were put there"};
  }
  for (const std::string& name : listing->temporaries) {
    if (auto removed = file_system.remove(path_in(dir, name)); !removed) return removed.error();
  }
  out.journal_id = log->journal_id;
  checkpoints.set_journal_id(out.journal_id);

  const SegmentScan& last = log->segments.back();
  const Tail tail = tail_of(last);
  out.last = log->last;
  out.torn_bytes = last.torn_bytes;
  out.batches_copied = tail.batches.size();
  if (auto written = rewrite_tail(file_system, dir, last, tail, segment_bytes, out); !written) {
    return written.error();
  }
  const bool replaced = tail.header.first == last.header.first;
  if (!replaced) {
    if (auto cut = cut_old(file_system, last, tail.from); !cut) return cut.error();
  }
  for (const SegmentScan& scan : log->segments) {
    if (&scan == &last && replaced) break;
    out.segments.push_back(
        readable(file_system, scan, &scan == &last ? tail.from : scan.file_bytes));
  }
  out.segments.push_back(out.writer->segment());
  return out;
}

}  // namespace waystation::journal
