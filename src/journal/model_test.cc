// Random operations, faults and crashes against a naive model of what a journal promises:
// everything that was reported durable is there, identical and in order, and nothing is there that
// was not appended. Set WS_JOURNAL_SEED and WS_JOURNAL_RUNS to repeat or to search longer.
#include <cstdlib>
#include <random>

#include "journal/inspect.h"
#include "journal/test_support.h"

#include <sstream>

namespace waystation::journal {
namespace {

class ModelTest : public JournalTest {
 protected:
  void run(std::uint64_t seed);
  void random_appends();
  void random_fault();
  void check_recovered();
  std::string random_record();

  std::mt19937_64 random_;
  std::vector<std::string> appended_;  // record i at i-1; past a crash only what survived
  std::vector<bool> batch_end_;        // the record ends its batch
  std::uint64_t promised_ = 0;         // the highest number reported durable, ever
  std::uint64_t removed_ = 0;          // all below may be gone
  std::uint64_t checkpoint_ = 0;       // of the newest one that was reported written
};

std::string ModelTest::random_record() {
  std::string record(random_() % 10 == 0 ? random_() % 3000 : random_() % 100, '\0');
  const bool noise = random_() % 2 == 0;
  for (char& c : record) c = static_cast<char>(noise ? random_() : 'a' + random_() % 2);
  return record;
}

void ModelTest::random_appends() {
  const int batches = 1 + static_cast<int>(random_() % 8);
  for (int b = 0; b < batches; ++b) {
    std::vector<std::string> records(1 + random_() % 4);
    for (std::string& record : records) record = random_record();
    const LogIndex base = journal_->append(records, static_cast<TimeMs>(appended_.size()));
    ASSERT_EQ(base.value, appended_.size() + 1);
    for (std::string& record : records) {
      appended_.push_back(std::move(record));
      batch_end_.push_back(false);
    }
    batch_end_.back() = true;
  }
}

void ModelTest::random_fault() {
  using Op = FaultyFileSystem::Op;
  using Fault = FaultyFileSystem::Fault;
  constexpr Op kOps[] = {Op::kWrite,  Op::kSyncData, Op::kSync,     Op::kOpen,  Op::kAllocate,
                         Op::kRename, Op::kSyncDir,  Op::kTruncate, Op::kRemove};
  constexpr Fault kFaults[] = {Fault::kIo, Fault::kNoSpace, Fault::kShortWrite};
  disk_.fail(kOps[random_() % std::size(kOps)], 1 + static_cast<int>(random_() % 5),
             kFaults[random_() % std::size(kFaults)]);
}

void ModelTest::check_recovered() {
  const std::uint64_t last = journal_->durable_index().value;
  ASSERT_GE(last, promised_);
  ASSERT_LE(last, appended_.size());
  ASSERT_EQ(journal_->next_index().value, last + 1);
  ASSERT_TRUE(last == 0 || batch_end_[last - 1]);  // batches are whole
  const auto checkpoint = journal_->newest_checkpoint();
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  if (checkpoint_ > 0) {
    ASSERT_TRUE(*checkpoint);
    ASSERT_GE((*checkpoint)->index.value, checkpoint_);
  }
  if (*checkpoint) {
    ASSERT_EQ((*checkpoint)->state, "state " + std::to_string((*checkpoint)->index.value));
  }
  const std::uint64_t first = journal_->segments().front().first.value;
  ASSERT_LE(first, removed_ + 1);
  std::uint64_t next = first;
  const auto scanned =
      journal_->scan({first}, {}, [&](LogIndex index, std::string_view record) -> Status {
        EXPECT_EQ(index.value, next);
        EXPECT_EQ(record, appended_[next++ - 1]);
        return {};
      });
  ASSERT_TRUE(scanned) << scanned.error().message;
  ASSERT_EQ(next, last + 1);
  for (int i = 0; i < 5 && last >= first; ++i) {
    const std::uint64_t index = first + random_() % (last - first + 1);
    const auto record = journal_->read({index});
    ASSERT_TRUE(record) << record.error().message;
    ASSERT_EQ(*record, appended_[index - 1]);
  }
  // What was recovered is promised from now on.
  appended_.resize(last);
  batch_end_.resize(last);
  promised_ = last;
}

void ModelTest::run(std::uint64_t seed) {
  random_.seed(seed);
  segment_bytes_ = 1000 + random_() % 8000;
  compress_above_ = random_() % 2 ? 200 : 100'000;
  for (int life = 0; life < 6; ++life) {
    if (random_() % 4 == 0) random_fault();  // in recovery
    watcher_ = std::make_unique<Watcher>();
    auto opened = FileJournal::open(options(*watcher_));
    if (!opened) {  // only for an injected fault, and a later start goes on
      ASSERT_NE(opened.error().message.find("injected"), std::string::npos)
          << opened.error().message;
      disk_.crash(random_());
      open();
      if (HasFatalFailure()) return;
    } else {
      journal_ = std::move(*opened);
    }
    disk_.clear_faults();
    check_recovered();
    if (HasFatalFailure()) return;
    const int steps = static_cast<int>(random_() % 12);
    for (int step = 0; step < steps; ++step) {
      if (random_() % 20 == 0) random_fault();
      random_appends();
      if (HasFatalFailure()) return;
      if (random_() % 3 == 0) watcher_->wait_durable({appended_.size()});
      const LogIndex durable = journal_->durable_index();
      if (random_() % 5 == 0 && durable.value > checkpoint_) {
        const auto wrote =
            journal_->write_checkpoint({durable, "state " + std::to_string(durable.value)});
        if (wrote) checkpoint_ = durable.value;
      }
      if (random_() % 5 == 0) {
        removed_ = std::max(removed_, durable.value);
        if (auto removed = journal_->remove_below(durable); !removed) {
          EXPECT_NE(removed.error().code, Code::kCorruption);
        }
      }
    }
    const int end = static_cast<int>(random_() % 4);
    if (end == 0) close();
    promised_ = std::max(promised_, watcher_->durable().value);
    // A crash in the middle of whatever the journal's thread does now.
    if (end == 1) disk_.kill();
    if (end >= 2) disk_.crash(random_());
    journal_.reset();
    // Reported between the look and the crash: then it had been synced.
    promised_ = std::max(promised_, watcher_->durable().value);
    if (end == 0) disk_.crash(random_());
  }
  std::ostringstream report;
  ASSERT_TRUE(verify(disk_, kDir, report)) << report.str();
}

TEST_F(ModelTest, WhatWasReportedDurableIsThere) {
  const char* fixed = std::getenv("WS_JOURNAL_SEED");
  const char* runs_text = std::getenv("WS_JOURNAL_RUNS");
  const std::uint64_t start = fixed ? std::strtoull(fixed, nullptr, 10) : std::random_device()();
  const int runs = runs_text ? std::atoi(runs_text) : fixed ? 1 : 200;
  std::printf("seeds from %llu\n", static_cast<unsigned long long>(start));
  for (int i = 0; i < runs; ++i) {
    const std::uint64_t seed = start + static_cast<std::uint64_t>(i);
    SCOPED_TRACE("WS_JOURNAL_SEED=" + std::to_string(seed));
    for (const auto& path : disk_.paths()) ASSERT_TRUE(disk_.remove(path));
    disk_.make_dir(kDir).value();
    ASSERT_TRUE(disk_.sync_dir(kDir));
    appended_.clear();
    batch_end_.clear();
    promised_ = removed_ = checkpoint_ = 0;
    run(seed);
    disk_.kill();
    journal_.reset();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace waystation::journal
