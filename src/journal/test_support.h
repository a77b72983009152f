// What the journal's tests share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "journal/faulty_file_system.h"
#include "journal/file_journal.h"

namespace waystation::journal {

inline constexpr char kDir[] = "/j";

// Remembers what a journal reported, and waits for it.
class Watcher {
 public:
  Callbacks callbacks() {
    return {.on_durable =
                [this](LogIndex index) {
                  std::lock_guard lock(mutex_);
                  EXPECT_GT(index, durable_);
                  EXPECT_FALSE(failure_);
                  durable_ = index;
                  ++reports_;
                  changed_.notify_all();
                },
            .on_failure =
                [this](Error error) {
                  std::lock_guard lock(mutex_);
                  EXPECT_FALSE(failure_);
                  failure_ = std::move(error);
                  changed_.notify_all();
                }};
  }
  // False if the journal failed instead.
  bool wait_durable(LogIndex index) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return durable_ >= index || failure_; });
    return durable_ >= index;
  }
  Error wait_failure() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return failure_.has_value(); });
    return *failure_;
  }
  LogIndex durable() {
    std::lock_guard lock(mutex_);
    return durable_;
  }
  int reports() {
    std::lock_guard lock(mutex_);
    return reports_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  LogIndex durable_;
  int reports_ = 0;
  std::optional<Error> failure_;
};

// A disk that outlives journals, and a journal on it.
class JournalTest : public testing::Test {
 protected:
  JournalTest() { spdlog::set_level(spdlog::level::off); }
  FileJournal::Options options(Watcher& watcher) {
    FileJournal::Options o;
    o.dir = kDir;
    o.segment_bytes_max = segment_bytes_;
    o.durability = durability_;
    o.compress_above_bytes = compress_above_;
    o.callbacks = watcher.callbacks();
    o.file_system = &disk_;
    o.meter = meter_.get();
    o.new_journal_id = 0x0123456789abcdef;
    return o;
  }
  void open() {
    journal_.reset();
    watcher_ = std::make_unique<Watcher>();
    auto opened = FileJournal::open(options(*watcher_));
    ASSERT_TRUE(opened) << opened.error().message;
    journal_ = std::move(*opened);
  }
  // The error of an open that must be refused.
  Error open_refused() {
    journal_.reset();
    watcher_ = std::make_unique<Watcher>();
    auto opened = FileJournal::open(options(*watcher_));
    EXPECT_FALSE(opened);
    return opened ? Error{} : opened.error();
  }
  void close() { journal_.reset(); }
  // Power loss; the old journal can do no more harm.
  void crash(std::uint64_t seed) {
    disk_.crash(seed);
    journal_.reset();
  }
  void kill() {
    disk_.kill();
    journal_.reset();
  }
  LogIndex append(std::vector<std::string> records, TimeMs time_ms = 1'700'000'000'000) {
    const LogIndex base = journal_->append(records, time_ms);
    return {base.value + records.size() - 1};
  }
  // In a sync of its own.
  void append_durably(std::vector<std::string> records, TimeMs time_ms = 1'700'000'000'000) {
    ASSERT_TRUE(watcher_->wait_durable(append(std::move(records), time_ms)));
  }
  std::vector<std::string> all(LogIndex from = {1}) {
    std::vector<std::string> found;
    auto scanned = journal_->scan(from, {}, [&](LogIndex index, std::string_view record) -> Status {
      EXPECT_EQ(index.value, from.value + found.size());
      found.emplace_back(record);
      return {};
    });
    EXPECT_TRUE(scanned) << scanned.error().message;
    return found;
  }
  // Cuts the file, removes it, zeroes a sector's worth of it, or flips a bit. `pick(n)`: a number
  // below n.
  template <typename Pick>
  void damage_file(const std::string& path, Pick pick) {
    std::string bytes = disk_.contents(path);
    if (bytes.empty()) return;
    const std::size_t at = pick(bytes.size());
    switch (pick(5)) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        ASSERT_TRUE(disk_.remove(path));
        return;
      case 2: {
        const std::size_t size = std::min<std::size_t>(512, bytes.size() - at);
        bytes.replace(at, size, size, '\0');
        break;
      }
      default:
        bytes[at] ^= static_cast<char>(1 << pick(8));
    }
    disk_.set_contents(path, bytes);
  }
  std::string segment_path(std::uint64_t first) { return path_in(kDir, segment_name({first})); }
  std::string checkpoint_path(std::uint64_t at) { return path_in(kDir, checkpoint_name({at})); }

  FaultyFileSystem disk_;
  std::unique_ptr<Meter> meter_ = make_null_meter();
  std::uint64_t segment_bytes_ = 16u << 10;
  std::size_t compress_above_ = 16u << 10;
  Durability durability_ = Durability::kDisk;
  std::unique_ptr<Watcher> watcher_;
  std::unique_ptr<FileJournal> journal_;
};

}  // namespace waystation::journal
