// What a crash may leave, and what only damage leaves (I8, I9).
#include "journal/recovery.h"

#include <map>

#include "journal/log_scan.h"
#include "journal/test_support.h"

namespace waystation::journal {
namespace {

using Op = FaultyFileSystem::Op;
using Strings = std::vector<std::string>;

class RecoveryTest : public JournalTest {
 protected:
  // Three appends, each synced alone, then kill -9: no closing mark.
  void three_batches() {
    open();
    append_durably({"first one", "first two"});
    append_durably({"second"});
    append_durably({"third"});
    kill();
    bytes_ = disk_.contents(segment_path(1));
    const auto listing = list_journal(disk_, kDir);
    const auto log = scan_log(disk_, kDir, *listing, {}, {});
    ASSERT_TRUE(log->damages.empty());
    end_ = log->segments[0].valid_bytes;
    third_ = log->segments[0].unsynced.back().offset;
  }
  // A disk with just these bytes as its first segment.
  void put_segment(std::string bytes) {
    for (const std::string& path : disk_.paths()) {
      if (path.starts_with(std::string(kDir) + "/0")) {
        EXPECT_TRUE(disk_.remove(path));
      }
    }
    disk_.set_contents(segment_path(1), std::move(bytes));
  }
  // A folder with several segments, of which the first record is `first`.
  std::map<std::string, std::string> history(const std::string& first) {
    for (const std::string& path : disk_.paths()) EXPECT_TRUE(disk_.remove(path));
    segment_bytes_ = 512;
    open();
    append_durably({first});
    for (int i = 0; i < 12; ++i) append_durably({std::string(60, 'r')});
    close();
    std::map<std::string, std::string> files;
    for (const std::string& path : disk_.paths()) files[path] = disk_.contents(path);
    return files;
  }
  std::string bytes_;
  std::uint64_t third_ = 0;
  std::uint64_t end_ = 0;
};

TEST_F(RecoveryTest, ATailTornAtAnyByteIsCut) {
  three_batches();
  const Strings whole{"first one", "first two", "second", "third"};
  for (std::uint64_t cut = third_; cut <= end_; ++cut) {
    for (const bool zeros : {true, false}) {
      SCOPED_TRACE("cut at " + std::to_string(cut) + (zeros ? " to zeros" : " by size"));
      std::string bytes = bytes_.substr(0, cut);
      if (zeros) bytes.resize(bytes_.size(), '\0');
      put_segment(bytes);
      open();
      Strings want = whole;
      if (cut < end_) want.pop_back();
      ASSERT_EQ(all(), want);
      EXPECT_EQ(journal_->next_index().value, want.size() + 1);
      append_durably({"after"});
      want.push_back("after");
      kill();
      open();
      ASSERT_EQ(all(), want);
      close();
    }
  }
}

TEST_F(RecoveryTest, AFlippedBitInTheLastBatchIsCutAsATornTail) {
  three_batches();
  for (std::uint64_t byte = third_; byte < end_; ++byte) {
    put_segment(bytes_);
    disk_.flip_bit(segment_path(1), byte, static_cast<int>(byte % 8));
    open();
    ASSERT_EQ(all(), (Strings{"first one", "first two", "second"})) << byte;
    close();
  }
}

TEST_F(RecoveryTest, AFlippedBitBeforeTheLastBatchIsRefused) {
  three_batches();
  for (std::uint64_t byte = 0; byte < third_; ++byte) {
    for (const int bit : {static_cast<int>(byte % 8), 7 - static_cast<int>(byte % 8)}) {
      put_segment(bytes_);
      disk_.flip_bit(segment_path(1), byte, bit);
      const Error error = open_refused();
      ASSERT_EQ(error.code, Code::kCorruption) << byte;
      ASSERT_NE(error.message.find(segment_path(1)), std::string::npos);
      if (byte < kSegmentHeaderBytes) continue;
      ASSERT_NE(error.message.find("waystation journal verify /j"), std::string::npos);
      ASSERT_NE(error.message.find("waystation journal salvage"), std::string::npos);
    }
  }
  // Refusing changes nothing: the undamaged bytes still open.
  put_segment(bytes_);
  open();
  EXPECT_EQ(all().size(), 4u);
}

TEST_F(RecoveryTest, AfterACleanStopTheLastBatchIsProtectedToo) {
  open();
  append_durably({"a"});
  append_durably({"b"});
  close();
  disk_.flip_bit(segment_path(1), kSegmentHeaderBytes + 2 * (kBatchHeaderBytes + 2) - 1, 0);
  EXPECT_EQ(open_refused().code, Code::kCorruption);
}

TEST_F(RecoveryTest, TheMarkOfACleanStopOutlivesAPowerCut) {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    for (const std::string& path : disk_.paths()) ASSERT_TRUE(disk_.remove(path));
    ASSERT_TRUE(disk_.sync_dir(kDir));
    open();
    append_durably({"a"});
    append_durably({"b"});
    close();
    disk_.crash(seed);
    disk_.flip_bit(segment_path(1), kSegmentHeaderBytes + 2 * (kBatchHeaderBytes + 2) - 1, 0);
    EXPECT_EQ(open_refused().code, Code::kCorruption) << seed;
  }
}

TEST_F(RecoveryTest, AfterARecoveryTheCarriedBatchesAreProtected) {
  open();
  append_durably({"a"});
  append_durably({"b"});
  kill();
  open();  // carries "b" over
  kill();
  EXPECT_EQ(disk_.contents(segment_path(1)).size(), kSegmentHeaderBytes + kBatchHeaderBytes + 2);
  disk_.flip_bit(segment_path(2), kSegmentHeaderBytes + kBatchHeaderBytes + 1, 0);
  EXPECT_EQ(open_refused().code, Code::kCorruption);
}

// Several batches of one group in one sync; the first is lost, the later ones are whole.
TEST_F(RecoveryTest, AHoleInTheLastGroupIsATornTail) {
  open();
  append_durably({"kept"});
  {
    // Hold the journal in a sync so that the next three are one group.
    std::mutex mutex;
    std::condition_variable changed;
    int syncs = 0;
    bool go_on = false;
    disk_.on_sync_data([&] {
      std::unique_lock lock(mutex);
      ++syncs;
      changed.notify_all();
      changed.wait(lock, [&] { return go_on; });
    });
    append({"alone"});
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return syncs == 1; });
    }
    append({"g1"});
    append({"g2"});
    const LogIndex last = append({"g3"});
    {
      std::lock_guard lock(mutex);
      go_on = true;
      changed.notify_all();
    }
    ASSERT_TRUE(watcher_->wait_durable(last));
    disk_.on_sync_data(nullptr);
  }
  kill();
  const std::uint64_t g1 = kSegmentHeaderBytes + (kBatchHeaderBytes + 5) + (kBatchHeaderBytes + 6);
  const std::string bytes = disk_.contents(segment_path(1));
  std::string hole = bytes;
  hole.replace(g1, kBatchHeaderBytes, kBatchHeaderBytes, '\0');
  put_segment(hole);
  open();
  EXPECT_EQ(all(), (Strings{"kept", "alone"}));
  append_durably({"new"});
  kill();
  open();
  EXPECT_EQ(all(), (Strings{"kept", "alone", "new"}));
  close();
  // The same hole one batch earlier: that one had been synced before the group was written.
  hole = bytes;
  hole.replace(g1 - kBatchHeaderBytes - 6, kBatchHeaderBytes, kBatchHeaderBytes, '\0');
  put_segment(hole);
  EXPECT_EQ(open_refused().code, Code::kCorruption);
}

TEST_F(RecoveryTest, ABatchInsideARecordProvesNothing) {
  three_batches();
  // A torn batch whose record holds a whole journal of another id.
  std::string inner;
  BatchEncoder(SIZE_MAX).encode({777, {9}, {8}, 1, 1}, Strings{"x"}, inner);
  open();
  append_durably({inner});
  kill();
  const std::string path = segment_path(4);
  disk_.flip_bit(path, disk_.contents(path).find(inner) + inner.size() - 1, 0);
  open();
  EXPECT_EQ(all().size(), 4u);
}

TEST_F(RecoveryTest, WhatACheckpointCoversMustBeThere) {
  open();
  append_durably({"a"});
  append_durably({"b"});
  ASSERT_TRUE(journal_->write_checkpoint({{2}, "s"}));
  kill();
  // The last batch: without the checkpoint this would be a torn tail.
  disk_.flip_bit(segment_path(1), kSegmentHeaderBytes + 2 * (kBatchHeaderBytes + 2) - 1, 0);
  const Error error = open_refused();
  EXPECT_EQ(error.code, Code::kCorruption);
  EXPECT_NE(error.message.find("record 2"), std::string::npos);
}

TEST_F(RecoveryTest, TheTailIsWrittenAgainBeforeItIsServed) {
  open();
  append_durably({"a"});
  disk_.fail(Op::kSyncData, 1);
  append({"doubtful"});
  watcher_->wait_failure();  // the system's memory still shows the record, the disk never got it
  kill();
  open();
  EXPECT_EQ(all(), (Strings{"a", "doubtful"}));
  // From here on it must survive power loss, whatever is lost.
  crash(0);
  open();
  EXPECT_EQ(all(), (Strings{"a", "doubtful"}));
}

TEST_F(RecoveryTest, RecoveryFailsCleanlyAtEachOfItsSteps) {
  for (const Op op : {Op::kOpen, Op::kRead, Op::kWrite, Op::kSync, Op::kAllocate, Op::kRename,
                      Op::kSyncDir, Op::kTruncate}) {
    for (int n = 1; n <= 12; ++n) {
      disk_.crash(0);
      for (const auto& path : disk_.paths()) EXPECT_TRUE(disk_.remove(path));
      EXPECT_TRUE(disk_.sync_dir(kDir));
      open();
      append_durably({"a"});
      append_durably({"b"});
      kill();
      disk_.fail(op, n);
      watcher_ = std::make_unique<Watcher>();
      auto opened = FileJournal::open(options(*watcher_));
      if (opened) {
        EXPECT_TRUE(opened.value()->durable_index() == LogIndex{2});
        opened->reset();
      }
      disk_.crash(static_cast<std::uint64_t>(n));
      open();
      ASSERT_EQ(all(), (Strings{"a", "b"})) << static_cast<int>(op) << " " << n;
      kill();
    }
  }
}

TEST_F(RecoveryTest, LeftoversAreRemovedOthersAreLeftAlone) {
  three_batches();
  disk_.set_contents(segment_path(9) + ".tmp", "half");
  disk_.set_contents(checkpoint_path(9) + ".tmp", "half");
  disk_.set_contents(std::string(kDir) + "/notes.txt", "mine");
  open();
  const auto paths = disk_.paths();
  for (const auto& path : paths) EXPECT_FALSE(path.ends_with(".tmp")) << path;
  EXPECT_EQ(std::count(paths.begin(), paths.end(), std::string(kDir) + "/notes.txt"), 1);
}

TEST_F(RecoveryTest, EmptyUnknownAndForeignFilesAreNamed) {
  three_batches();
  put_segment("");
  EXPECT_NE(open_refused().message.find("empty"), std::string::npos);
  std::string newer = bytes_;
  newer[8] = 9;
  put_segment(newer);
  EXPECT_NE(open_refused().message.find("version 9"), std::string::npos);
  put_segment(bytes_);
  disk_.set_contents(segment_path(5), encode_segment_header({1, {5}, 0, 0}));
  EXPECT_NE(open_refused().message.find("another journal"), std::string::npos);
}

// All of it is whole, has the journal's number, and the numbers that must come.
TEST_F(RecoveryTest, WhatIsOfAnotherHistoryDoesNotFollow) {
  const std::string mine = history("mine").at(segment_path(1));
  const auto other = history("else");
  ASSERT_GT(other.size(), 3u);
  disk_.set_contents(segment_path(1), mine);
  EXPECT_NE(open_refused().message.find("doesn't follow the segment before it"), std::string::npos);
  const std::size_t end = kSegmentHeaderBytes + kBatchHeaderBytes + 5;  // of the first batch
  disk_.set_contents(segment_path(1), mine.substr(0, end) + other.at(segment_path(1)).substr(end));
  EXPECT_NE(open_refused().message.find("a batch doesn't follow the one before it"),
            std::string::npos);
  disk_.set_contents(segment_path(1), other.at(segment_path(1)));
  open();
  EXPECT_EQ(all().size(), 13u);
}

TEST_F(RecoveryTest, MissingSegmentsAreRefused) {
  segment_bytes_ = 512;
  open();
  for (int i = 0; i < 30; ++i) append_durably({std::string(60, 'x')});
  const auto segments = journal_->segments();
  ASSERT_GT(segments.size(), 4u);
  kill();
  const std::string middle = segment_path(segments[2].first.value);
  const std::string bytes = disk_.contents(middle);
  ASSERT_TRUE(disk_.remove(middle));
  EXPECT_EQ(open_refused().code, Code::kCorruption);
  disk_.set_contents(middle, bytes);
  ASSERT_TRUE(disk_.remove(segment_path(1)));
  EXPECT_EQ(open_refused().code, Code::kCorruption);
}

TEST_F(RecoveryTest, OldSegmentsAreNotReadAtTheStartButCheckedWhenRead) {
  segment_bytes_ = 512;
  open();
  for (int i = 0; i < 30; ++i) append_durably({std::string(60, static_cast<char>('a' + i % 20))});
  ASSERT_TRUE(journal_->write_checkpoint({{20}, "s"}));
  kill();
  disk_.flip_bit(segment_path(1), 200, 1);
  open();
  EXPECT_EQ(*journal_->read({1}), std::string(60, 'a'));
  EXPECT_EQ(journal_->read({2}).error().code, Code::kCorruption);
  EXPECT_EQ(*journal_->read({10}), std::string(60, 'j'));
  EXPECT_EQ(
      journal_->scan({1}, {}, [](LogIndex, std::string_view) { return Status(); }).error().code,
      Code::kCorruption);
  EXPECT_EQ(all({21}).size(), 10u);
}

TEST_F(RecoveryTest, ManyRestartsWithoutAppendsLeaveTheFolderAsItIs) {
  open();
  append_durably({"a"});
  open();
  const auto files = disk_.paths().size();
  for (int i = 0; i < 10; ++i) i % 2 ? open() : (kill(), open());
  EXPECT_EQ(disk_.paths().size(), files);
  EXPECT_EQ(all(), Strings{"a"});
}

TEST_F(RecoveryTest, AnyCheckpointByteFlippedFallsBackToTheOlderOrIsRefused) {
  open();
  append_durably({"a"});
  ASSERT_TRUE(journal_->write_checkpoint({{1}, "older"}));
  append_durably({"b"});
  ASSERT_TRUE(journal_->write_checkpoint({{2}, "newer"}));
  kill();
  const std::string bytes = disk_.contents(checkpoint_path(2));
  for (std::uint64_t byte = 0; byte < bytes.size(); ++byte) {
    disk_.set_contents(checkpoint_path(2), bytes);
    disk_.flip_bit(checkpoint_path(2), byte, 2);
    if (byte == 8 || byte == 9) {  // the version
      EXPECT_NE(open_refused().message.find("version"), std::string::npos);
      continue;
    }
    open();
    ASSERT_EQ((*journal_->newest_checkpoint())->state, "older") << byte;
    EXPECT_EQ(all().size(), 2u);
    kill();
  }
  // Both bad: the log reaches back to the first record, so nothing is lost.
  disk_.flip_bit(checkpoint_path(1), 57, 0);
  open();
  EXPECT_FALSE(*journal_->newest_checkpoint());
  EXPECT_EQ(all().size(), 2u);
}

}  // namespace
}  // namespace waystation::journal
