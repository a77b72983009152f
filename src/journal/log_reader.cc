#include "journal/log_reader.h"

#include <algorithm>

#include "base/check.h"

namespace waystation::journal {
namespace {

constexpr std::size_t kCachedBatches = 8;
constexpr std::size_t kCachedBytesMax = 16u << 20;

// The segment that holds `index`, if any does.
std::size_t find_segment(const std::vector<std::shared_ptr<Segment>>& segments, LogIndex index) {
  const auto after = std::upper_bound(
      segments.begin(), segments.end(), index,
      [](LogIndex i, const std::shared_ptr<Segment>& segment) { return i < segment->first(); });
  return static_cast<std::size_t>(after - segments.begin()) - 1;  // wraps around for none
}

LogIndex last_of(const std::vector<std::shared_ptr<Segment>>& segments, std::size_t at,
                 LogIndex durable) {
  return at + 1 < segments.size() ? LogIndex{segments[at + 1]->first().value - 1} : durable;
}

Error removed(LogIndex index) {
  return {Code::kNotFound, "record " + std::to_string(index.value) + " is past its retention"};
}

std::string parent_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

}  // namespace

Error corruption_at(const std::string& path, std::uint64_t offset, LogIndex record,
                    const std::string& reason) {
  const std::string dir = parent_of(path);
  return {Code::kCorruption,
          "journal segment " + path + " is damaged at byte " + std::to_string(offset) +
              " (record " + std::to_string(record.value) + "): " + reason +
              ". See what is left with `waystation journal verify " + dir +
              "`; restore a backup, or save what is left with `waystation journal salvage " + dir +
              " --to NEW_DIR` and start with that folder"};
}

// A decoded batch; immutable once made.
struct LogReader::Batch {
  LogIndex base;
  std::string raw;
  std::vector<std::string_view> records;  // into raw

  bool holds(LogIndex index) const {
    return index >= base && index.value < base.value + records.size();
  }
};

LogReader::LogReader(std::vector<std::shared_ptr<Segment>> segments)
    : segments_(std::move(segments)) {}

LogReader::Segments LogReader::segments() const {
  std::lock_guard lock(mutex_);
  return segments_;
}

void LogReader::add(std::shared_ptr<Segment> segment) {
  std::lock_guard lock(mutex_);
  segments_.push_back(std::move(segment));
}

std::shared_ptr<Segment> LogReader::first_below(LogIndex limit) const {
  std::lock_guard lock(mutex_);
  if (segments_.size() < 2 || segments_[1]->first() > limit) return nullptr;
  return segments_.front();
}

void LogReader::forget_first() {
  std::lock_guard lock(mutex_);
  CHECK(segments_.size() > 1);
  segments_.erase(segments_.begin());
  std::erase_if(cache_, [&](const auto& batch) { return batch->base < segments_[0]->first(); });
}

std::vector<SegmentInfo> LogReader::infos(LogIndex durable) const {
  const Segments all = segments();
  std::vector<SegmentInfo> infos;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool sealed = i + 1 < all.size();
    infos.push_back({.first = all[i]->first(),
                     .last = last_of(all, i, durable),
                     .bytes = all[i]->used_bytes,
                     .last_time_ms = sealed ? all[i + 1]->header().previous_time_ms
                                            : all[i]->last_time_ms.load(),
                     .sealed = sealed});
  }
  return infos;
}

std::shared_ptr<const LogReader::Batch> LogReader::cached(LogIndex index) const {
  std::lock_guard lock(mutex_);
  for (std::size_t i = cache_.size(); i-- > 0;) {
    if (!cache_[i]->holds(index)) continue;
    std::rotate(cache_.begin() + static_cast<std::ptrdiff_t>(i),
                cache_.begin() + static_cast<std::ptrdiff_t>(i) + 1, cache_.end());
    return cache_.back();
  }
  return nullptr;
}

void LogReader::keep(std::shared_ptr<const Batch> batch) const {
  std::lock_guard lock(mutex_);
  cache_.push_back(std::move(batch));
  std::size_t bytes = 0;
  for (const auto& kept : cache_) bytes += kept->raw.size();
  while (cache_.size() > 1 && (cache_.size() > kCachedBatches || bytes > kCachedBytesMax)) {
    bytes -= cache_.front()->raw.size();
    cache_.erase(cache_.begin());
  }
}

Result<std::shared_ptr<const LogReader::Batch>> LogReader::load(Segment& segment, LogIndex index,
                                                                LogIndex last) const {
  const auto entry = segment.entry_for(index, last);
  if (!entry) return entry.error();
  const auto file = segment.file();
  if (!file) return file.error();
  SegmentReader reader(**file, segment.header().journal_id,
                       {entry->offset, entry->base, std::nullopt},
                       Segment::kIndexEveryBytes + kBatchHeaderBytes);
  for (;;) {
    const auto step = reader.next();
    if (!step) return step.error();
    if (*step != Step::kBatch) {
      const auto& at = reader.position();
      return corruption_at(segment.path(), at.offset, at.next,
                           *step == Step::kBad ? reader.reason() : "the file ends too early");
    }
    if (reader.header().end() > index) break;
  }
  auto batch = std::make_shared<Batch>();
  batch->base = reader.header().base;
  std::string scratch;
  const auto raw = decode_payload(reader.header(), reader.stored(), scratch);
  if (!raw) {
    return corruption_at(segment.path(), reader.batch_offset(), batch->base, raw.error().message);
  }
  batch->raw = reader.header().compressed ? std::move(scratch) : std::string(*raw);
  batch->records.reserve(reader.header().record_count);
  RecordCursor cursor(batch->raw);
  for (std::string_view record; cursor.next(record);) batch->records.push_back(record);
  if (!cursor.at_end() || batch->records.size() != reader.header().record_count) {
    return corruption_at(segment.path(), reader.batch_offset(), batch->base,
                         "a batch's records don't add up");
  }
  return std::shared_ptr<const Batch>(std::move(batch));
}

Result<std::string> LogReader::read(LogIndex index, LogIndex durable) const {
  if (index.value == 0 || index > durable) {
    return Error{Code::kNotFound, "record " + std::to_string(index.value) + " is not there (yet)"};
  }
  auto batch = cached(index);
  if (!batch) {
    const Segments all = segments();
    const std::size_t at = find_segment(all, index);
    if (at >= all.size()) return removed(index);
    auto loaded = load(*all[at], index, last_of(all, at, durable));
    // The file may have been removed since we looked.
    if (!loaded) return loaded.error().code == Code::kNotFound ? removed(index) : loaded.error();
    batch = std::move(*loaded);
    keep(batch);
  }
  return std::string(batch->records[index.value - batch->base.value]);
}

Status LogReader::scan(LogIndex from, LogIndex to, LogIndex durable, const Visitor& visit) const {
  from = std::max(from, LogIndex{1});
  to = to.value == 0 ? durable : std::min(to, durable);
  if (from > to) return {};
  const Segments all = segments();
  std::size_t at = find_segment(all, from);
  if (at >= all.size()) return removed(from);

  std::string scratch;
  for (; at < all.size() && all[at]->first() <= to; ++at) {
    Segment& segment = *all[at];
    const LogIndex last = std::min(to, last_of(all, at, durable));
    const auto file = segment.file();
    if (!file) return file.error().code == Code::kNotFound ? removed(from) : file.error();
    const IndexEntry entry = segment.known_entry_for(std::max(from, segment.first()));
    LogPosition start{entry.offset, entry.base, std::nullopt};
    if (entry.offset == kSegmentHeaderBytes) start.previous_crc = segment.header().previous_crc;
    SegmentReader reader(**file, segment.header().journal_id, start);
    while (reader.position().next <= last) {
      const auto step = reader.next();
      if (!step) return step.error();
      if (*step != Step::kBatch) {
        return corruption_at(segment.path(), reader.position().offset, reader.position().next,
                             *step == Step::kBad ? reader.reason() : "the file ends too early");
      }
      const BatchHeader& header = reader.header();
      if (header.end() <= from) continue;
      const auto raw = decode_payload(header, reader.stored(), scratch);
      if (!raw) {
        return corruption_at(segment.path(), reader.batch_offset(), header.base,
                             raw.error().message);
      }
      RecordCursor cursor(*raw);
      LogIndex index = header.base;
      for (std::string_view record; cursor.next(record); ++index.value) {
        if (index < from || index > last) continue;
        if (auto visited = visit(index, record); !visited) return visited;
      }
      if (!cursor.at_end() || index != header.end()) {
        return corruption_at(segment.path(), reader.batch_offset(), header.base,
                             "a batch's records don't add up");
      }
    }
  }
  return {};
}

}  // namespace waystation::journal
