#include "journal/file_journal.h"

#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "journal/posix_file_system.h"
#include "journal/test_support.h"

namespace waystation::journal {
namespace {

using Op = FaultyFileSystem::Op;
using Fault = FaultyFileSystem::Fault;
using Strings = std::vector<std::string>;

TEST_F(JournalTest, WhatIsAppendedIsReadBackBeforeAndAfterReopening) {
  open();
  EXPECT_EQ(journal_->next_index(), LogIndex{1});
  EXPECT_EQ(journal_->append({"a", "", "c"}, 5), LogIndex{1});
  EXPECT_EQ(journal_->next_index(), LogIndex{4});
  append_durably({std::string(100'000, 'z')});
  EXPECT_EQ(journal_->durable_index(), LogIndex{4});
  EXPECT_EQ(journal_->backlog_bytes(), 0u);
  const Strings want{"a", "", "c", std::string(100'000, 'z')};
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(all(), want);
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(*journal_->read({i + 1}), want[i]);
    EXPECT_EQ(journal_->read({5}).error().code, Code::kNotFound);
    EXPECT_EQ(journal_->read({0}).error().code, Code::kNotFound);
    open();
  }
}

TEST_F(JournalTest, WithAnExecutorItWritesWhenThatSaysSo) {
  struct Later final : Executor {
    void run(Task task) override { tasks.push_back(std::move(task)); }
    std::vector<Task> tasks;
  } later;
  Watcher watcher;
  auto o = options(watcher);
  o.executor = &later;
  auto journal = FileJournal::open(std::move(o));
  ASSERT_TRUE(journal) << journal.error().message;
  (*journal)->append({"a"}, 1);
  (*journal)->append({"b"}, 2);
  EXPECT_EQ(watcher.durable(), LogIndex{0});
  ASSERT_EQ(later.tasks.size(), 1u);  // one for the group
  later.tasks[0]();
  EXPECT_EQ(watcher.durable(), LogIndex{2});
  (*journal)->append({"c"}, 3);
  journal->reset();  // what is queued is written at the end
  EXPECT_EQ(watcher.durable(), LogIndex{3});
  open();
  EXPECT_EQ(all(), (Strings{"a", "b", "c"}));
}

TEST_F(JournalTest, BatchesThatQueueUpShareOneSync) {
  open();
  std::mutex mutex;
  std::condition_variable changed;
  bool in_sync = false;
  bool go_on = false;
  disk_.on_sync_data([&] {
    std::unique_lock lock(mutex);
    in_sync = true;
    changed.notify_all();
    changed.wait(lock, [&] { return go_on; });
  });
  append({"first"});
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return in_sync; });
  }
  LogIndex last;
  for (int i = 0; i < 100; ++i) last = append({"queued " + std::to_string(i)});
  EXPECT_GT(journal_->backlog_bytes(), 100u);
  EXPECT_EQ(watcher_->durable(), LogIndex{0});  // nothing is reported before its sync
  EXPECT_EQ(journal_->read({1}).error().code, Code::kNotFound);
  const auto writes = disk_.count(Op::kWrite);
  const auto syncs = disk_.count(Op::kSyncData);
  {
    std::lock_guard lock(mutex);
    go_on = true;
    changed.notify_all();
  }
  ASSERT_TRUE(watcher_->wait_durable(last));
  EXPECT_EQ(disk_.count(Op::kSyncData) - syncs, 2u);  // the one held up, and one for all the rest
  EXPECT_EQ(disk_.count(Op::kWrite) - writes, 1u);
  EXPECT_EQ(watcher_->reports(), 2);
  disk_.on_sync_data(nullptr);
  EXPECT_EQ(all().size(), 101u);
}

TEST_F(JournalTest, SegmentsRollAtTheirSizeAndKeepTheOrder) {
  segment_bytes_ = 4096;
  open();
  Strings want;
  for (int i = 0; i < 200; ++i) {
    want.push_back("record " + std::to_string(i) +
                   std::string(static_cast<std::size_t>(i) % 90, '.'));
    append_durably({want.back()}, 1000 + i);
  }
  want.push_back(std::string(20'000, 'L'));  // larger than a segment
  compress_above_ = SIZE_MAX;
  append_durably({want.back()}, 1500);
  EXPECT_EQ(all(), want);
  const auto segments = journal_->segments();
  ASSERT_GT(segments.size(), 5u);
  for (std::size_t i = 0; i + 1 < segments.size(); ++i) {
    EXPECT_EQ(segments[i].last.value + 1, segments[i + 1].first.value);
    EXPECT_TRUE(segments[i].sealed);
    EXPECT_LE(segments[i].bytes, 4096u);
    EXPECT_EQ(segments[i].last_time_ms, 999 + static_cast<TimeMs>(segments[i].last.value));
  }
  EXPECT_FALSE(segments.back().sealed);
  EXPECT_EQ(segments.back().last.value, want.size());
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(*journal_->read({i + 1}), want[i]);
  // From anywhere to anywhere.
  Strings part;
  ASSERT_TRUE(journal_->scan({50}, {60}, [&](LogIndex, std::string_view r) -> Status {
    part.emplace_back(r);
    return {};
  }));
  EXPECT_EQ(part, Strings(want.begin() + 49, want.begin() + 60));
  open();
  EXPECT_EQ(all(), want);
}

TEST_F(JournalTest, AVisitorsErrorEndsTheScan) {
  open();
  append_durably({"a", "b", "c"});
  int visited = 0;
  const auto status = journal_->scan({1}, {}, [&](LogIndex, std::string_view) -> Status {
    if (++visited == 2) return Error{Code::kCancelled, "enough"};
    return {};
  });
  EXPECT_EQ(status.error().code, Code::kCancelled);
  EXPECT_EQ(visited, 2);
}

struct FaultCase {
  Op op;
  Fault fault;
};
class FaultTest : public JournalTest, public testing::WithParamInterface<FaultCase> {};

TEST_P(FaultTest, StopsTheJournalForGoodAndReadsGoOn) {
  segment_bytes_ = 4096;
  open();
  append_durably({"kept"});
  disk_.fail(GetParam().op, 1, GetParam().fault);
  // Enough to need a new segment, for the faults that only come there.
  for (int i = 0; i < 100; ++i) append({std::string(100, 'x')});
  const Error error = watcher_->wait_failure();
  EXPECT_NE(error.message.find("injected"), std::string::npos);
  const LogIndex durable = journal_->durable_index();
  const auto writes = disk_.count(Op::kWrite);
  const auto syncs = disk_.count(Op::kSyncData);
  append({"refused"});
  EXPECT_EQ(journal_->write_checkpoint({{1}, "state"}).error().code, Code::kUnavailable);
  EXPECT_EQ(*journal_->read({1}), "kept");
  EXPECT_EQ(all().size(), durable.value);
  close();  // not even a closing mark
  EXPECT_EQ(disk_.count(Op::kWrite), writes);
  EXPECT_EQ(disk_.count(Op::kSyncData), syncs);
  EXPECT_EQ(watcher_->durable(), durable);
  crash(1);
  open();
  EXPECT_EQ(all().front(), "kept");
  EXPECT_GE(journal_->durable_index(), durable);
  append_durably({"goes on"});
  EXPECT_EQ(all().back(), "goes on");
}

INSTANTIATE_TEST_SUITE_P(
    Faults, FaultTest,
    testing::Values(FaultCase{Op::kWrite, Fault::kIo}, FaultCase{Op::kWrite, Fault::kNoSpace},
                    FaultCase{Op::kWrite, Fault::kShortWrite}, FaultCase{Op::kSyncData, Fault::kIo},
                    FaultCase{Op::kOpen, Fault::kIo}, FaultCase{Op::kAllocate, Fault::kNoSpace},
                    FaultCase{Op::kSync, Fault::kIo}, FaultCase{Op::kRename, Fault::kIo},
                    FaultCase{Op::kSyncDir, Fault::kIo}, FaultCase{Op::kTruncate, Fault::kIo}));

TEST_F(JournalTest, ReadsWhileItAppends) {
  segment_bytes_ = 16 << 10;
  open();
  constexpr int kRecords = 3000;
  std::atomic<bool> done{false};
  std::vector<std::thread> readers;
  for (int r = 0; r < 2; ++r) {
    readers.emplace_back([&, r] {
      for (std::uint64_t step = 1; !done; ++step) {
        const LogIndex durable = journal_->durable_index();
        if (durable.value == 0) continue;
        if (r == 0) {
          const LogIndex index{step * 7919 % durable.value + 1};
          const auto record = journal_->read(index);
          EXPECT_TRUE(record) << record.error().message;
          EXPECT_EQ(record.value_or(""), "r" + std::to_string(index.value));
        } else {
          std::uint64_t next = 1;
          const auto scanned =
              journal_->scan({1}, {}, [&](LogIndex index, std::string_view record) -> Status {
                EXPECT_EQ(index.value, next);
                EXPECT_EQ(record, "r" + std::to_string(next++));
                return {};
              });
          EXPECT_TRUE(scanned) << scanned.error().message;
          EXPECT_GT(next, durable.value);
        }
      }
    });
  }
  for (int i = 1; i <= kRecords; ++i) {
    append({"r" + std::to_string(i)});
    if (i % 50 == 0) {
      ASSERT_TRUE(watcher_->wait_durable({static_cast<std::uint64_t>(i)}));
    }
  }
  done = true;
  for (auto& reader : readers) reader.join();
}

TEST_F(JournalTest, RetentionKeepsWhatTheOlderCheckpointNeeds) {
  segment_bytes_ = 2048;
  open();
  for (int i = 0; i < 300; ++i) append_durably({std::string(50, 'x')});
  const auto before = journal_->segments().size();
  ASSERT_TRUE(journal_->remove_below({300}));
  EXPECT_EQ(journal_->segments().size(), before);  // no checkpoint
  ASSERT_TRUE(journal_->write_checkpoint({{150}, "s150"}));
  ASSERT_TRUE(journal_->remove_below({300}));
  EXPECT_EQ(journal_->segments().size(), before);  // only one
  ASSERT_TRUE(journal_->write_checkpoint({{250}, "s250"}));
  ASSERT_TRUE(journal_->remove_below({300}));
  const auto segments = journal_->segments();
  EXPECT_LT(segments.size(), before);
  EXPECT_LE(segments.front().first, LogIndex{151});
  EXPECT_GT(segments.front().last, LogIndex{150});
  EXPECT_EQ(journal_->read({1}).error().code, Code::kNotFound);
  EXPECT_TRUE(journal_->read({151}));
  EXPECT_EQ(
      journal_->scan({1}, {}, [](LogIndex, std::string_view) { return Status(); }).error().code,
      Code::kNotFound);
  open();
  EXPECT_EQ((*journal_->newest_checkpoint())->state, "s250");
  EXPECT_EQ((*journal_->newest_checkpoint())->state, "s250");
  EXPECT_EQ(all({151}).size(), 150u);
  // The newest checkpoint turns out unreadable: the older one has all it needs.
  close();
  disk_.flip_bit(checkpoint_path(250), 58, 3);
  open();
  EXPECT_EQ((*journal_->newest_checkpoint())->state, "s150");
  EXPECT_EQ(all({151}).size(), 150u);
  ASSERT_TRUE(journal_->write_checkpoint({{300}, "s300"}));
  const auto paths = disk_.paths();
  EXPECT_EQ(std::count(paths.begin(), paths.end(), checkpoint_path(250)), 0);
  EXPECT_EQ(std::count(paths.begin(), paths.end(), checkpoint_path(150)), 1);
}

TEST_F(JournalTest, CheckpointsAreRefusedForWhatIsNotDurable) {
  open();
  EXPECT_EQ(journal_->write_checkpoint({{1}, "s"}).error().code, Code::kInvalidArgument);
  append_durably({"a", "b"});
  EXPECT_TRUE(journal_->write_checkpoint({{2}, std::string(200'000, 's')}));
  EXPECT_TRUE(journal_->write_checkpoint({{2}, "again"}));
  EXPECT_EQ(journal_->write_checkpoint({{1}, "s"}).error().code, Code::kInvalidArgument);
  EXPECT_EQ((*journal_->newest_checkpoint())->state, "again");
  // A failed checkpoint is no failure of the log.
  disk_.fail(Op::kSync, 1);
  EXPECT_FALSE(journal_->write_checkpoint({{2}, "fails"}));
  append_durably({"c"});
  open();
  EXPECT_EQ((*journal_->newest_checkpoint())->state, "again");
}

TEST_F(JournalTest, DurabilityOsDoesNotSyncButACheckpointDoes) {
  durability_ = Durability::kOs;
  open();
  append_durably({"a"});
  append_durably({"b"});
  EXPECT_EQ(disk_.count(Op::kSyncData), 0u);
  kill();  // of the process only
  open();
  EXPECT_EQ(all(), (Strings{"a", "b"}));
  append_durably({"c"});
  ASSERT_TRUE(journal_->write_checkpoint({{3}, "s3"}));
  EXPECT_EQ(disk_.count(Op::kSyncData), 1u);
  append_durably({"d"});
  for (std::uint64_t seed = 0; seed < 1; ++seed) crash(seed);
  open();
  const auto found = all();
  ASSERT_GE(found.size(), 3u);
  EXPECT_EQ(found[2], "c");
}

TEST_F(JournalTest, WithDurabilityOsACheckpointCoversTheSegmentsBeforeItToo) {
  durability_ = Durability::kOs;
  segment_bytes_ = 512;
  Strings want;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    open();
    for (int i = 0; i < 20; ++i) {
      want.push_back("record " + std::to_string(want.size()) + std::string(60, '.'));
      append_durably({want.back()});
    }
    ASSERT_GT(journal_->segments().size(), 3u);
    ASSERT_TRUE(journal_->write_checkpoint({{want.size()}, "s"}));
    crash(seed);
    open();
    ASSERT_EQ(all(), want) << seed;
  }
}

TEST_F(JournalTest, DurabilityNoneIsRefused) {
  durability_ = Durability::kNone;
  EXPECT_EQ(open_refused().code, Code::kInvalidArgument);
}

TEST_F(JournalTest, AFolderHasOneJournal) {
  open();
  Watcher other;
  const auto second = FileJournal::open(options(other));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kBusy);
}

// ---- On the real file system.

class RealFilesTest : public JournalTest {
 protected:
  void SetUp() override {
    std::string path = (std::filesystem::temp_directory_path() / "journal-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    dir_ = path;
  }
  void TearDown() override {
    journal_.reset();
    std::filesystem::remove_all(dir_);
  }
  Result<std::unique_ptr<FileJournal>> open_real(Watcher& watcher) {
    auto o = options(watcher);
    o.dir = dir_ + "/new/data/";
    o.segment_bytes_max = 64 << 10;
    o.file_system = &posix_;
    return FileJournal::open(std::move(o));
  }
  std::string dir_;
  PosixFileSystem posix_;
};

TEST_F(RealFilesTest, AppendsRollsReopensAndRetains) {
  std::uint64_t count = 0;
  for (int round = 0; round < 3; ++round) {
    Watcher watcher;
    auto opened = open_real(watcher);
    ASSERT_TRUE(opened) << opened.error().message;
    journal_ = std::move(*opened);
    EXPECT_EQ(journal_->durable_index().value, count);
    for (int i = 0; i < 1000; ++i)
      append({"record " + std::to_string(++count) + std::string(200, '.')});
    ASSERT_TRUE(watcher.wait_durable({count}));
    EXPECT_EQ(all().size(), count);
    EXPECT_EQ(journal_->read({777})->substr(0, 10), "record 777");
    ASSERT_TRUE(journal_->write_checkpoint({{count}, std::string(100'000, 's')}));
    journal_.reset();
  }
  Watcher watcher;
  journal_ = std::move(*open_real(watcher));
  EXPECT_EQ((*journal_->newest_checkpoint())->index, LogIndex{3000});
  ASSERT_TRUE(journal_->remove_below({3000}));
  EXPECT_GT(journal_->segments().front().first, LogIndex{1800});
  EXPECT_LE(journal_->segments().front().first, LogIndex{2001});
  EXPECT_EQ(all({2001}).size(), 1000u);
  journal_.reset();
}

TEST_F(RealFilesTest, ASecondServerIsToldThePid) {
  Watcher watcher;
  journal_ = std::move(*open_real(watcher));
  Watcher other;
  const auto second = open_real(other);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kBusy);
  EXPECT_NE(second.error().message.find("process " + std::to_string(::getpid())),
            std::string::npos);
  journal_.reset();
  EXPECT_TRUE(open_real(other));
}

TEST_F(RealFilesTest, TheSegmentIsPreallocated) {
  Watcher watcher;
  journal_ = std::move(*open_real(watcher));
  EXPECT_EQ(std::filesystem::file_size(dir_ + "/new/data/" + segment_name({1})), 64u << 10);
  ASSERT_TRUE(watcher.wait_durable(append({"x"})));
  EXPECT_EQ(std::filesystem::file_size(dir_ + "/new/data/" + segment_name({1})), 64u << 10);
  journal_.reset();
}

}  // namespace
}  // namespace waystation::journal
