#include "journal/memory_journal.h"

#include <algorithm>

#include "base/check.h"

namespace waystation::journal {

std::unique_ptr<MemoryJournal> MemoryJournal::reopen(const MemoryJournal& crashed,
                                                     Options options) {
  auto journal = std::make_unique<MemoryJournal>(std::move(options));
  std::lock_guard lock(crashed.mutex_);
  journal->first_ = crashed.first_;
  journal->durable_ = crashed.durable_;
  journal->checkpoints_ = crashed.checkpoints_;
  const auto count = static_cast<std::ptrdiff_t>(crashed.durable_.value + 1 - crashed.first_.value);
  journal->entries_.assign(crashed.entries_.begin(), crashed.entries_.begin() + count);
  return journal;
}

void MemoryJournal::make_durable_up_to(LogIndex index) {
  {
    std::lock_guard lock(mutex_);
    index.value = std::min(index.value, first_.value + entries_.size() - 1);
    if (failed_ || index <= durable_) return;
    for (std::uint64_t i = durable_.value + 1; i <= index.value; ++i) {
      backlog_bytes_ -= entries_[i - first_.value].record.size();
    }
    durable_ = index;
  }
  if (options_.callbacks.on_durable) options_.callbacks.on_durable(index);
}

void MemoryJournal::fail(Error error) {
  {
    std::lock_guard lock(mutex_);
    if (failed_) return;
    failed_ = true;
  }
  if (options_.callbacks.on_failure) options_.callbacks.on_failure(std::move(error));
}

LogIndex MemoryJournal::next_index() const {
  std::lock_guard lock(mutex_);
  return {first_.value + entries_.size()};
}

LogIndex MemoryJournal::append(std::vector<std::string> records, TimeMs now_ms) {
  CHECK(!records.empty());
  LogIndex base;
  LogIndex last;
  {
    std::lock_guard lock(mutex_);
    base.value = first_.value + entries_.size();
    last.value = base.value + records.size() - 1;
    for (std::string& record : records) {
      backlog_bytes_ += record.size();
      entries_.push_back({std::move(record), now_ms});
    }
  }
  if (options_.immediate) make_durable_up_to(last);
  return base;
}

std::uint64_t MemoryJournal::backlog_bytes() const {
  std::lock_guard lock(mutex_);
  return backlog_bytes_;
}

LogIndex MemoryJournal::durable_index() const {
  std::lock_guard lock(mutex_);
  return durable_;
}

Result<std::string> MemoryJournal::read(LogIndex index) const {
  std::lock_guard lock(mutex_);
  if (index < first_ || index > durable_) {
    return Error{Code::kNotFound, "record " + std::to_string(index.value) + " is not there"};
  }
  return entries_[index.value - first_.value].record;
}

Status MemoryJournal::scan(LogIndex from, LogIndex to, const Visitor& visit) const {
  from = std::max(from, LogIndex{1});
  const LogIndex durable = durable_index();
  to = to.value == 0 ? durable : std::min(to, durable);
  // Record by record, so that the visitor may use the journal.
  for (; from <= to; ++from.value) {
    const auto record = read(from);
    if (!record) return record.error();
    if (auto visited = visit(from, *record); !visited) return visited;
  }
  return {};
}

Status MemoryJournal::write_checkpoint(const Checkpoint& checkpoint) {
  std::lock_guard lock(mutex_);
  if (failed_) return Error{Code::kUnavailable, "the journal has stopped; restart the server"};
  if (checkpoint.index.value == 0 || checkpoint.index > durable_ ||
      (!checkpoints_.empty() && checkpoint.index < checkpoints_.back().index)) {
    return Error{
        Code::kInvalidArgument,
        "a checkpoint's record must be durable and not older than the newest checkpoint's"};
  }
  if (!checkpoints_.empty() && checkpoints_.back().index == checkpoint.index) {
    checkpoints_.pop_back();
  }
  checkpoints_.push_back(checkpoint);
  if (checkpoints_.size() > 2) checkpoints_.erase(checkpoints_.begin());
  return {};
}

Result<std::optional<Checkpoint>> MemoryJournal::newest_checkpoint() const {
  std::lock_guard lock(mutex_);
  if (checkpoints_.empty()) return std::optional<Checkpoint>();
  return std::optional(checkpoints_.back());
}

std::vector<SegmentInfo> MemoryJournal::segments() const {
  std::lock_guard lock(mutex_);
  std::vector<SegmentInfo> infos;
  const std::uint64_t per = options_.records_per_segment;
  // Borders are at multiples of the size, whatever was removed.
  for (std::uint64_t first = first_.value; first <= durable_.value || infos.empty();) {
    const std::uint64_t border = (first - 1) / per * per + per;
    SegmentInfo info{.first = {first},
                     .last = {std::min(border, durable_.value)},
                     .sealed = border <= durable_.value};
    for (std::uint64_t i = first; i <= info.last.value; ++i) {
      info.bytes += entries_[i - first_.value].record.size();
      info.last_time_ms = entries_[i - first_.value].time_ms;
    }
    infos.push_back(info);
    first = border + 1;
  }
  return infos;
}

Status MemoryJournal::remove_below(LogIndex index) {
  std::lock_guard lock(mutex_);
  if (checkpoints_.size() < 2) return {};
  index = std::min(index, LogIndex{checkpoints_.front().index.value + 1});
  const std::uint64_t per = options_.records_per_segment;
  const std::uint64_t border = index.value == 0 ? 1 : (index.value - 1) / per * per + 1;
  while (first_.value < border) {
    entries_.pop_front();
    ++first_.value;
  }
  return {};
}

}  // namespace waystation::journal
