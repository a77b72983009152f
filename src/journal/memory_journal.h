// The journal in memory: for tests, and for `durability = none`.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "journal/journal.h"

namespace waystation::journal {

// Has no thread: callbacks come on the thread that made something durable (the appender's own when
// `immediate`, before append() returns) or failed it. Any thread may read meanwhile.
class MemoryJournal final : public Journal {
 public:
  struct Options {
    Callbacks callbacks;
    bool immediate = true;  // else records wait for make_durable_up_to()
    std::size_t records_per_segment = 1024;
  };

  explicit MemoryJournal(Options options) : options_(std::move(options)) {}

  // What a restart after a crash finds: the durable records and checkpoints of `crashed`, which
  // stays as it is.
  static std::unique_ptr<MemoryJournal> reopen(const MemoryJournal& crashed, Options options);

  // With `immediate` off: reports everything up to `index` (at most what was appended).
  void make_durable_up_to(LogIndex index);
  void make_all_durable() { make_durable_up_to({next_index().value - 1}); }
  // From now on nothing becomes durable. Once.
  void fail(Error error);

  LogIndex next_index() const override;
  LogIndex append(std::vector<std::string> records, TimeMs now_ms) override;
  std::uint64_t backlog_bytes() const override;
  LogIndex durable_index() const override;
  Result<std::string> read(LogIndex index) const override;
  Status scan(LogIndex from, LogIndex to, const Visitor& visit) const override;
  Status write_checkpoint(const Checkpoint& checkpoint) override;
  Result<std::optional<Checkpoint>> newest_checkpoint() const override;
  std::vector<SegmentInfo> segments() const override;
  // As FileJournal: keeps what the older of two checkpoints needs.
  Status remove_below(LogIndex index) override;

 private:
  struct Entry {
    std::string record;
    TimeMs time_ms = 0;
  };

  const Options options_;
  mutable std::mutex mutex_;
  std::deque<Entry> entries_;  // from first_ on
  LogIndex first_{1};
  LogIndex durable_{0};
  std::uint64_t backlog_bytes_ = 0;
  bool failed_ = false;
  std::vector<Checkpoint> checkpoints_;  // at most two, ascending
};

}  // namespace waystation::journal
