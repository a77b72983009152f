// The station on a disk that loses what wasn't synced.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "base/thread_executor.h"
#include "journal/faulty_file_system.h"
#include "journal/file_journal.h"
#include "queue/testing_station.h"

namespace waystation::queue {
namespace {

// A disk that is slow to answer: what is to be done on it waits for release().
class Holding final : public Executor {
 public:
  void run(Task task) override {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  void release() {
    std::unique_lock lock(mutex_);
    auto tasks = std::exchange(tasks_, {});
    lock.unlock();
    for (Task& task : tasks) task();
  }

 private:
  std::mutex mutex_;
  std::vector<Task> tasks_;
};

class OnDisk {
 public:
  explicit OnDisk(journal::FaultyFileSystem& files, std::uint64_t memory_bytes = 256u << 20,
                  Executor* executor = nullptr) {
    Station::Options options;
    options.limits.memory_bytes_max = memory_bytes;
    options.limits.queue_memory_bytes_min = 0;
    options.checkpoint_bytes = 64u << 10;
    options.segment_bytes = 32u << 10;
    station = std::make_unique<Station>(
        options, Station::Deps{clock, executor ? *executor : background, *meter});
    journal::FileJournal::Options log;
    log.dir = "/queues";
    log.segment_bytes_max = 32u << 10;
    log.compress_above_bytes = 1u << 30;
    log.callbacks = station->journal_callbacks();
    log.file_system = &files;
    log.meter = meter.get();
    auto opened = journal::FileJournal::open(std::move(log));
    EXPECT_TRUE(opened) << opened.error().message;
    journal = std::move(*opened);
    const Status started = station->start(*journal);
    EXPECT_TRUE(started) << started.error().message;
  }
  ~OnDisk() {
    station->stop();
    background.stop();
    journal.reset();
  }

  SystemClock clock;
  std::unique_ptr<Meter> meter = make_null_meter();
  ThreadExecutor background{1};
  std::unique_ptr<Station> station;
  std::unique_ptr<journal::FileJournal> journal;
};

std::string content_of(int i) {
  return std::to_string(i) + std::string(1000, 'x');
}

TEST(QueueDisk, WhatIsNotInMemoryIsReadBack) {
  journal::FaultyFileSystem files;
  OnDisk server(files, 5'000);
  std::vector<std::string> wanted;
  for (int i = 0; i < 100; ++i) {
    Answer<Receipt> receipt;
    server.station->publish("t", "q", {payload_of({content_of(i)})}, receipt.done());
    ASSERT_TRUE(receipt.get());
    wanted.push_back(content_of(i));
  }
  auto consumer = std::make_shared<Recorder>();
  ASSERT_TRUE(server.station->subscribe("t", "q", {.window = 1'000}, consumer));
  EXPECT_EQ(contents(consumer->wait_messages(100)), wanted);
}

TEST(QueueDisk, WhoDoesNotWaitStillGetsWhatMustBeReadBack) {
  journal::FaultyFileSystem files;
  Holding disk;
  OnDisk server(files, 0, &disk);
  Answer<Receipt> receipt;
  server.station->publish("t", "q", {payload_of({"a"})}, receipt.done());
  ASSERT_TRUE(receipt.get());
  Answer<Taken> taken;
  server.station->lease("t", "q", {.window = 1, .lease_ms = 60'000}, 0, taken.done());
  // Those of another queue, which is empty, are sent away meanwhile: the clock has been looked at.
  const auto joined =
      server.station->subscribe("t", "empty", {.window = 1}, std::make_shared<Recorder>());
  ASSERT_TRUE(joined);
  for (int i = 0; i < 2; ++i) {
    Answer<Taken> nothing;
    server.station->lease("t", "empty", {.window = 1, .lease_ms = 60'000}, 0, nothing.done());
    EXPECT_EQ(nothing.get()->messages, 0u);
  }
  disk.release();
  EXPECT_EQ(contents({*taken.get()}), std::vector<std::string>{"a"});
}

// One old message stays while much passes: it is carried on, and old segments go.
TEST(QueueDisk, OldMessagesDoNotHoldTheDisk) {
  journal::FaultyFileSystem files;
  {
    OnDisk server(files);
    Answer<Receipt> old;
    server.station->publish("t", "old", {payload_of({"old"})}, old.done());
    ASSERT_TRUE(old.get());
    auto consumer = std::make_shared<Recorder>();
    const auto joined = server.station->subscribe("t", "q", {.window = 1'000}, consumer);
    for (int i = 0; i < 2'000; ++i) {
      Answer<Receipt> receipt;
      server.station->publish("t", "q", {payload_of({content_of(i)})}, receipt.done());
      ASSERT_TRUE(receipt.get());
      for (const Taken& taken : consumer->wait_messages(1)) {
        Answer<TimeMs> acked;
        server.station->settle(joined->queue, {Action::kAck, taken.lease}, acked.done());
        ASSERT_TRUE(acked.get());
      }
    }
    std::uint64_t stored = 0;
    for (const auto& segment : server.journal->segments()) stored += segment.bytes;
    EXPECT_LT(stored, 1'200'000u);  // of more than two million written
  }
  files.crash(1);
  OnDisk server(files);
  Answer<Taken> taken;
  server.station->lease("t", "old", {.lease_ms = 60'000}, 60'000, taken.done());
  EXPECT_EQ(contents({*taken.get()}), (std::vector<std::string>{"old"}));
  EXPECT_EQ(server.station->info("t", "q")->waiting, 0u);
}

TEST(QueueDisk, PowerCutLosesNothingThatWasAnswered) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  journal::FaultyFileSystem files;
  std::set<std::string> accepted, acked, tried;
  for (int round = 0; round < 6; ++round) {
    {
      OnDisk server(files, 20'000);
      std::vector<std::pair<std::string, Answer<Receipt>>> sent;
      std::vector<std::pair<std::string, Answer<TimeMs>>> settled;
      const auto count = static_cast<int>(random() % 60);
      for (int i = 0; i < count; ++i) {
        const std::string content = content_of(round * 1000 + i);
        sent.emplace_back(content, Answer<Receipt>{});
        server.station->publish("t", "q", {payload_of({content})}, sent.back().second.done());
      }
      Answer<Taken> taken;
      server.station->lease("t", "q", {.window = random() % 80 + 1, .lease_ms = 60'000}, 5,
                            taken.done());
      if (auto given = taken.get(); given && given->lease != 0) {
        for (const std::string& content : contents({*given})) {
          EXPECT_FALSE(acked.contains(content)) << "given again after its ack";
        }
        for (const Piece& piece : given->pieces) {
          settled.emplace_back(std::string(piece.payload->message(piece.at)), Answer<TimeMs>{});
          server.station->settle("t", "q", {Action::kAck, given->lease, {{piece.first, 1}}},
                                 settled.back().second.done());
        }
      }
      if (random() % 2 == 0) files.fail(journal::FaultyFileSystem::Op::kSyncData, 1);
      server.station->stop();
      for (auto& [content, answer] : sent) {
        if (answer.get()) accepted.insert(content);
      }
      for (auto& [content, answer] : settled) {
        tried.insert(content);
        if (answer.get()) acked.insert(content);
      }
      files.crash(random());
    }
    files.clear_faults();
  }
  OnDisk server(files);
  auto consumer = std::make_shared<Recorder>();
  ASSERT_TRUE(
      server.station->subscribe("t", "q", {.window = 100'000, .lease_ms = 60'000}, consumer));
  const auto info = server.station->info("t", "q");
  const auto all = contents(consumer->wait_messages(info->waiting + info->leased));
  const std::set<std::string> left(all.begin(), all.end());
  EXPECT_EQ(left.size(), all.size());
  for (const std::string& content : accepted) {
    EXPECT_TRUE(left.contains(content) || tried.contains(content)) << content.substr(0, 8);
    EXPECT_FALSE(left.contains(content) && acked.contains(content)) << content.substr(0, 8);
  }
}

}  // namespace
}  // namespace waystation::queue
