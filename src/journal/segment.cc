#include "journal/segment.h"

#include <algorithm>

namespace waystation::journal {

Segment::Segment(FileSystem& file_system, std::string path, SegmentHeader header,
                 std::uint64_t file_bytes)
    : used_bytes(file_bytes), file_system_(file_system), path_(std::move(path)), header_(header) {}

void Segment::index_while_writing() {
  std::lock_guard lock(mutex_);
  indexed_ = true;
}

void Segment::add_batch(LogIndex base, std::uint64_t offset) {
  std::lock_guard lock(mutex_);
  if (entries_.empty() || offset >= entries_.back().offset + kIndexEveryBytes) {
    entries_.push_back({base, offset});
  }
}

void Segment::pin(std::shared_ptr<File> file) {
  std::lock_guard lock(mutex_);
  pinned_ = std::move(file);
}

void Segment::unpin() {
  pin(nullptr);
}

Result<std::shared_ptr<File>> Segment::file() const {
  {
    std::lock_guard lock(mutex_);
    if (pinned_) return pinned_;
  }
  auto opened = file_system_.open(path_, OpenMode::kRead);
  if (!opened) return opened.error();
  return std::shared_ptr<File>(std::move(*opened));
}

IndexEntry Segment::lookup(LogIndex index) const {
  auto after = std::upper_bound(entries_.begin(), entries_.end(), index,
                                [](LogIndex i, const IndexEntry& entry) { return i < entry.base; });
  if (after == entries_.begin()) return {header_.first, kSegmentHeaderBytes};
  return *std::prev(after);
}

IndexEntry Segment::known_entry_for(LogIndex index) const {
  std::lock_guard lock(mutex_);
  return lookup(index);
}

Result<IndexEntry> Segment::entry_for(LogIndex index, LogIndex last) {
  {
    std::lock_guard lock(mutex_);
    if (indexed_) return lookup(index);
  }
  if (auto built = build(last); !built) return built.error();
  return known_entry_for(index);
}

Status Segment::build(LogIndex last) {
  const auto opened = file();
  if (!opened) return opened.error();
  SegmentReader reader(**opened, header_.journal_id,
                       {kSegmentHeaderBytes, header_.first, header_.previous_crc});
  std::vector<IndexEntry> entries;
  while (reader.position().next <= last) {
    const auto step = reader.next();
    if (!step) return step.error();
    // Damage: what comes before it can still be read; reading the rest will report it.
    if (*step != Step::kBatch) break;
    const std::uint64_t offset = reader.batch_offset();
    if (entries.empty() || offset >= entries.back().offset + kIndexEveryBytes) {
      entries.push_back({reader.header().base, offset});
    }
  }
  std::lock_guard lock(mutex_);
  entries_ = std::move(entries);
  indexed_ = true;
  return {};
}

}  // namespace waystation::journal
