#include "journal/salvage.h"

#include <map>
#include <random>
#include <sstream>

#include "journal/inspect.h"
#include "journal/test_support.h"

namespace waystation::journal {
namespace {

// What a walk found.
struct Found {
  std::map<std::uint64_t, std::string> records;
  std::vector<LostRange> lost;
  Leftover leftover;
  std::uint64_t lost_records() const {
    std::uint64_t all = 0;
    for (const LostRange& range : lost) all += range.records();
    return all;
  }
};

class SalvageTest : public JournalTest {
 protected:
  static std::string record_of(std::uint64_t number) {
    return "r" + std::to_string(number) + std::string(40, '.');
  }
  void SetUp() override {
    segment_bytes_ = 512;
    open();
    for (std::uint64_t i = 1; i <= 29; i += 2) {
      append_durably({record_of(i), record_of(i + 1)}, static_cast<TimeMs>(i));
    }
    segments_ = journal_->segments();
    close();  // with a closing mark
  }
  Result<Found> read(LogIndex covered = {}) {
    const auto listing = list_journal(disk_, kDir);
    if (!listing) return listing.error();
    Found found;
    std::uint64_t next = 1;
    auto leftover = read_leftover(disk_, kDir, *listing, covered, std::nullopt,
                                  {[&](LogIndex index, TimeMs, std::string_view record) -> Status {
                                     EXPECT_EQ(index.value, next++);
                                     found.records[index.value] = record;
                                     return {};
                                   },
                                   [&](const LostRange& range) -> Status {
                                     EXPECT_EQ(range.first.value, next);
                                     next = range.last.value + 1;
                                     found.lost.push_back(range);
                                     return {};
                                   }});
    if (!leftover) return leftover.error();
    EXPECT_EQ(leftover->last.value, next - 1);
    found.leftover = *leftover;
    return found;
  }
  std::vector<SegmentInfo> segments_;
};

TEST_F(SalvageTest, ASoundJournalHasEverything) {
  const auto found = read();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->records.size(), 30u);
  EXPECT_TRUE(found->lost.empty());
  EXPECT_EQ(found->leftover.journal_id, 0x0123456789abcdefu);
}

TEST_F(SalvageTest, ReadingGoesOnAfterADamagedBatch) {
  const std::string path = segment_path(segments_[1].first.value);
  disk_.flip_bit(path, kSegmentHeaderBytes + kBatchHeaderBytes + 10, 1);  // its first payload
  const auto found = read();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->records.size(), 28u);
  ASSERT_EQ(found->lost.size(), 1u);
  EXPECT_EQ(found->lost[0].path, path);
  EXPECT_EQ(found->lost[0].from_byte, kSegmentHeaderBytes);
  EXPECT_EQ(found->lost[0].to_byte, kSegmentHeaderBytes + kBatchHeaderBytes + 2 * (1 + 42u));
  EXPECT_EQ(found->lost[0].first, segments_[1].first);
  EXPECT_EQ(found->lost[0].last.value, segments_[1].first.value + 1);
}

TEST_F(SalvageTest, ADamagedSegmentHeaderCostsNoRecord) {
  for (const SegmentInfo& segment : segments_)
    disk_.flip_bit(segment_path(segment.first.value), 30, 1);
  EXPECT_EQ(read().error().code, Code::kCorruption);  // nothing tells the journal's id
  disk_.flip_bit(segment_path(1), 30, 1);             // mended
  const auto found = read();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->records.size(), 30u);
  EXPECT_EQ(found->lost.size(), segments_.size() - 1);
}

TEST_F(SalvageTest, AMissingSegmentIsAHole) {
  ASSERT_TRUE(disk_.remove(segment_path(segments_[2].first.value)));
  const auto found = read();
  ASSERT_TRUE(found);
  ASSERT_EQ(found->lost.size(), 1u);
  EXPECT_EQ(found->lost[0].first, segments_[2].first);
  EXPECT_EQ(found->lost[0].last, segments_[2].last);
}

TEST_F(SalvageTest, ABatchOfAnotherHistoryIsTold) {
  std::map<std::string, std::string> files;
  for (const std::string& path : disk_.paths()) {
    files[path] = disk_.contents(path);
    ASSERT_TRUE(disk_.remove(path));
  }
  open();
  append_durably({record_of(7), record_of(8)}, 1);
  close();
  constexpr std::size_t kEnd = kSegmentHeaderBytes + kBatchHeaderBytes + 2 * (1 + 42u);
  const std::string other = disk_.contents(segment_path(1)).substr(0, kEnd);
  for (const auto& [path, bytes] : files) disk_.set_contents(path, bytes);
  disk_.set_contents(segment_path(1), other + files.at(segment_path(1)).substr(kEnd));
  const auto found = read();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->records.size(), 30u);
  EXPECT_EQ(found->records.at(1), record_of(7));
  ASSERT_EQ(found->lost.size(), 1u);
  EXPECT_EQ(found->lost[0].records(), 0u);
  EXPECT_EQ(found->lost[0].from_byte, kEnd);
  EXPECT_EQ(found->lost[0].reason, "a batch doesn't follow the one before it");
}

TEST_F(SalvageTest, WhatACheckpointCoversIsKnownToBeLost) {
  const auto found = read({34});
  ASSERT_TRUE(found);
  ASSERT_EQ(found->lost.size(), 1u);
  EXPECT_EQ(found->lost[0].first.value, 31u);
  EXPECT_EQ(found->lost[0].last.value, 34u);
}

TEST_F(SalvageTest, ATornTailIsNothingLost) {
  open();
  append(std::vector<std::string>{record_of(31)});
  ASSERT_TRUE(watcher_->wait_durable({31}));
  const std::string path = segment_path(journal_->segments().back().first.value);
  kill();
  std::string bytes = disk_.contents(path);
  const std::size_t at = bytes.find(record_of(31));
  ASSERT_NE(at, std::string::npos);
  disk_.flip_bit(path, at, 1);
  const auto found = read();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->records.size(), 30u);
  EXPECT_TRUE(found->lost.empty());
  EXPECT_GT(found->leftover.torn_bytes, 0u);
}

// Flipped bits, zeroed sectors and cut files at random: every record is handed on as it was
// written, or told to be lost; a segment that wasn't touched loses nothing.
TEST_F(SalvageTest, WhateverIsDamaged) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    std::map<std::string, std::string> before;
    std::map<std::string, bool> touched;
    for (const SegmentInfo& segment : segments_) {
      const std::string path = segment_path(segment.first.value);
      before[path] = disk_.contents(path);
    }
    for (std::uint64_t i = 1 + random() % 3; i > 0; --i) {
      const std::string path = segment_path(segments_[random() % segments_.size()].first.value);
      std::string bytes = disk_.contents(path);
      if (bytes.empty()) continue;
      touched[path] = true;
      const std::size_t at = random() % bytes.size();
      switch (random() % 3) {
        case 0:
          bytes[at] ^= static_cast<char>(1 << (random() % 8));
          break;
        case 1:
          bytes.replace(at, std::min<std::size_t>(64, bytes.size() - at),
                        std::min<std::size_t>(64, bytes.size() - at), '\0');
          break;
        default:
          bytes.resize(at);
          break;
      }
      disk_.set_contents(path, bytes);
    }
    const auto found = read();
    if (found) {
      for (const auto& [number, record] : found->records) EXPECT_EQ(record, record_of(number));
      const std::uint64_t told = found->records.size() + found->lost_records();
      EXPECT_LE(told, 30u);
      const bool last_touched = touched[segment_path(segments_.back().first.value)];
      EXPECT_TRUE(last_touched || told == 30u) << told;
      for (const SegmentInfo& segment : segments_) {
        if (touched[segment_path(segment.first.value)]) continue;
        for (std::uint64_t n = segment.first.value; n <= segment.last.value; ++n) {
          EXPECT_TRUE(found->records.contains(n)) << n;
        }
      }
    } else {
      EXPECT_EQ(found.error().code, Code::kCorruption);
    }
    for (const auto& [path, bytes] : before) disk_.set_contents(path, bytes);
    if (HasFailure()) return;
  }
}

TEST_F(SalvageTest, ACopyIsASoundJournal) {
  ASSERT_TRUE(disk_.make_dir("/new"));
  LogCopy copy(
      {.file_system = &disk_, .dir = "/new", .journal_id = 7, .first = {5}, .segment_bytes = 512});
  for (std::uint64_t i = 5; i <= 40; ++i) {
    EXPECT_EQ(copy.next().value, i);
    // Large ones, so that batches end and segments are full.
    ASSERT_TRUE(copy.append(record_of(i) + std::string(200u << 10, 'x'), static_cast<TimeMs>(i)));
  }
  ASSERT_TRUE(copy.finish());
  CheckpointStore store(disk_, "/new");
  store.set_journal_id(7);
  ASSERT_TRUE(store.write({.index = {4}, .state = "state"}));
  std::ostringstream out;
  EXPECT_TRUE(verify(disk_, "/new", out)) << out.str();
  watcher_ = std::make_unique<Watcher>();
  auto o = options(*watcher_);
  o.dir = "/new";
  auto opened = FileJournal::open(std::move(o));
  ASSERT_TRUE(opened) << opened.error().message;
  journal_ = std::move(*opened);
  EXPECT_EQ(all({5}).size(), 36u);
  EXPECT_GT(journal_->segments().size(), 3u);
}

TEST_F(SalvageTest, ACopyOfNothingCanBeStartedWith) {
  ASSERT_TRUE(disk_.make_dir("/new"));
  LogCopy copy({.file_system = &disk_, .dir = "/new", .journal_id = 7});
  ASSERT_TRUE(copy.finish());
  std::ostringstream out;
  EXPECT_TRUE(verify(disk_, "/new", out)) << out.str();
}

}  // namespace
}  // namespace waystation::journal
