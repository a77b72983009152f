#include "queue/station.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <set>

#include "base/thread_executor.h"
#include "journal/faulty_file_system.h"
#include "journal/file_journal.h"
#include "journal/memory_journal.h"

namespace waystation::queue {
namespace {

using std::chrono::seconds;

constexpr seconds kPatience{20};

PayloadPtr payload_of(const std::vector<std::string>& messages) {
  return Payload::of({messages.begin(), messages.end()}).value();
}

// A future of what a call answers.
template <typename T>
struct Answer {
  std::shared_ptr<std::promise<Result<T>>> promise = std::make_shared<std::promise<Result<T>>>();
  std::future<Result<T>> future = promise->get_future();
  Done<T> done() {
    return [promise = promise](Result<T> result) { promise->set_value(std::move(result)); };
  }
  bool is_there() { return future.wait_for(seconds(0)) == std::future_status::ready; }
  Result<T> get() {
    EXPECT_EQ(future.wait_for(kPatience), std::future_status::ready);
    return future.get();
  }
};

// Notes what it gets.
class Recorder final : public Consumer {
 public:
  void deliver(Taken taken) override {
    std::lock_guard lock(mutex_);
    taken_.push_back(std::move(taken));
  }
  bool has_room() const override { return true; }
  void kick() override { changed_.notify_all(); }
  void on_closed(const Error& why) override {
    std::lock_guard lock(mutex_);
    closed_ = why;
    changed_.notify_all();
  }
  std::vector<Taken> wait_messages(std::uint64_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return sum() >= count; })) << sum();
    return std::exchange(taken_, {});
  }
  std::optional<Error> wait_closed() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return closed_.has_value(); });
    return closed_;
  }

 private:
  std::uint64_t sum() const {
    std::uint64_t count = 0;
    for (const Taken& taken : taken_) count += taken.messages;
    return count;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Taken> taken_;
  std::optional<Error> closed_;
};

std::vector<std::string> contents(const std::vector<Taken>& all) {
  std::vector<std::string> found;
  for (const Taken& taken : all) {
    for (const Piece& piece : taken.pieces) {
      for (std::uint32_t i = 0; i < piece.count; ++i) {
        found.emplace_back(piece.payload->message(piece.at + i));
      }
    }
  }
  return found;
}

class InMemory : public testing::Test {
 protected:
  InMemory() {
    journal_ = std::make_unique<journal::MemoryJournal>(
        journal::MemoryJournal::Options{station_->journal_callbacks(), true});
    EXPECT_TRUE(station_->start(*journal_));
  }
  ~InMemory() override {
    station_->stop();
    background_.stop();
  }
  Result<Receipt> publish(const std::vector<std::string>& messages) {
    Answer<Receipt> answer;
    station_->publish("t", "q", {payload_of(messages)}, answer.done());
    return answer.get();
  }
  Result<Taken> lease(TimeMs wait_ms, std::uint64_t window = 100) {
    Answer<Taken> answer;
    station_->lease("t", "q", {.window = window, .lease_ms = 60'000}, wait_ms, answer.done());
    return answer.get();
  }

  SystemClock clock_;
  std::unique_ptr<Meter> meter_ = make_null_meter();
  ThreadExecutor background_{1};
  std::unique_ptr<Station> station_ =
      std::make_unique<Station>(Station::Options{}, Station::Deps{clock_, background_, *meter_});
  std::unique_ptr<journal::MemoryJournal> journal_;
};

TEST_F(InMemory, PublishLeaseSettle) {
  ASSERT_EQ(publish({"a", "b"})->first, 1u);
  const auto taken = lease(0);
  ASSERT_TRUE(taken);
  EXPECT_EQ(contents({*taken}), (std::vector<std::string>{"a", "b"}));
  Answer<TimeMs> acked;
  station_->settle("t", "q", {Action::kAck, taken->lease}, acked.done());
  ASSERT_TRUE(acked.get());
  Answer<TimeMs> again;
  station_->settle("t", "q", {Action::kAck, taken->lease}, again.done());
  EXPECT_EQ(again.get().error().code, Code::kGone);
  EXPECT_EQ(station_->info("t", "q")->waiting, 0u);
  EXPECT_EQ(station_->info("u", "q").error().code, Code::kNotFound);
}

TEST_F(InMemory, LeaseWaitsForWhatComesOrForItsTime) {
  ASSERT_TRUE(publish({"a"}));
  ASSERT_EQ(lease(0)->messages, 1u);
  EXPECT_EQ(lease(20)->lease, 0u);
  Answer<Taken> waits;
  station_->lease("t", "q", {.lease_ms = 1'000}, 60'000, waits.done());
  EXPECT_FALSE(waits.is_there());
  ASSERT_TRUE(publish({"b"}));
  EXPECT_EQ(contents({*waits.get()}), (std::vector<std::string>{"b"}));
}

TEST_F(InMemory, ConsumersShareAndTheirWindowsHold) {
  auto one = std::make_shared<Recorder>();
  auto two = std::make_shared<Recorder>();
  const Subscription how{.window = 2, .lease_ms = 60'000};
  const auto first = station_->subscribe("t", "q", how, one);
  ASSERT_TRUE(station_->subscribe("t", "q", how, two));
  ASSERT_TRUE(publish({"a", "b", "c", "d", "e"}));
  const auto given = one->wait_messages(2);
  two->wait_messages(2);
  EXPECT_EQ(station_->info("t", "q")->waiting, 1u);
  Answer<TimeMs> acked;
  station_->settle(first->queue, {Action::kAck, given[0].lease}, acked.done());
  ASSERT_TRUE(acked.get());
  EXPECT_EQ(contents(one->wait_messages(1)), (std::vector<std::string>{"e"}));
  station_->unsubscribe(first->consumer, false);
  Answer<void> removed;
  station_->remove("t", "q", removed.done());
  ASSERT_TRUE(removed.get());
  EXPECT_EQ(two->wait_closed()->code, Code::kNotFound);
}

TEST_F(InMemory, LeaseThatRunsOutIsGivenAgain) {
  ASSERT_TRUE(publish({"a"}));
  Answer<Taken> answer;
  station_->lease("t", "q", {.lease_ms = 1}, 0, answer.done());
  ASSERT_EQ(answer.get()->messages, 1u);
  const auto again = lease(60'000);
  ASSERT_EQ(again->messages, 1u);
  EXPECT_EQ(again->pieces[0].attempt, 2u);
}

TEST_F(InMemory, DeadLettersAreShownWithTheirPayload) {
  ASSERT_TRUE(publish({"a", "b"}));
  const auto taken = lease(0);
  Answer<TimeMs> ended;
  station_->settle("t", "q", {Action::kTerminate, taken->lease, {{2, 1}}, 0, "broken"},
                   ended.done());
  ASSERT_TRUE(ended.get());
  Answer<std::vector<DeadMessage>> listed;
  station_->dead_letters("t", "q", 0, 10, listed.done());
  const auto letters = listed.get();
  ASSERT_EQ(letters->size(), 1u);
  EXPECT_EQ((*letters)[0].payload.value(), "b");
  EXPECT_EQ((*letters)[0].entry.reason, "broken");
  Answer<std::uint64_t> revived;
  station_->revive("t", "q", {2}, revived.done());
  EXPECT_EQ(revived.get().value(), 1u);
  EXPECT_EQ(contents({*lease(60'000)}), (std::vector<std::string>{"b"}));
}

// The journal says when something is durable.
class Gated : public testing::Test {
 protected:
  Gated() {
    journal_ = std::make_unique<journal::MemoryJournal>(
        journal::MemoryJournal::Options{station_.journal_callbacks(), false});
    std::thread syncs([this] {
      while (journal_->next_index().value == 1) std::this_thread::yield();
      journal_->make_all_durable();
    });
    EXPECT_TRUE(station_.start(*journal_));
    syncs.join();
  }
  ~Gated() override {
    station_.stop();
    background_.stop();
  }

  SystemClock clock_;
  std::unique_ptr<Meter> meter_ = make_null_meter();
  ThreadExecutor background_{1};
  // Nothing stays in memory.
  Station station_{Station::Options{.limits = {.memory_bytes_max = 0}},
                   Station::Deps{clock_, background_, *meter_}};
  std::unique_ptr<journal::MemoryJournal> journal_;
};

TEST_F(Gated, NothingIsSeenBeforeItIsDurable) {
  Answer<Receipt> receipt, duplicate;
  station_.publish("t", "q", {payload_of({"a"}), {}, "k", "f"}, receipt.done());
  station_.publish("t", "q", {payload_of({"a"}), {}, "k", "f"}, duplicate.done());
  Answer<Taken> taken;
  station_.lease("t", "q", {.lease_ms = 60'000}, 60'000, taken.done());
  EXPECT_FALSE(receipt.is_there());
  EXPECT_FALSE(duplicate.is_there());
  EXPECT_FALSE(taken.is_there());
  journal_->make_all_durable();
  EXPECT_FALSE(receipt.get()->duplicate);
  EXPECT_TRUE(duplicate.get()->duplicate);
  const auto given = taken.get();
  EXPECT_EQ(given->messages, 1u);
  Answer<TimeMs> acked;
  station_.settle("t", "q", {Action::kAck, given->lease}, acked.done());
  EXPECT_FALSE(acked.is_there());
  journal_->make_all_durable();
  EXPECT_TRUE(acked.get());
}

// Reading back what is durable doesn't wait for what isn't yet.
TEST_F(Gated, ColdMessagesDoNotWaitForLaterOnes) {
  Answer<Receipt> first, second;
  station_.publish("t", "q", {payload_of({"a"})}, first.done());
  journal_->make_all_durable();
  ASSERT_TRUE(first.get());
  station_.publish("t", "q", {payload_of({"b"})}, second.done());
  Answer<Taken> taken;
  station_.lease("t", "q", {.lease_ms = 60'000}, 60'000, taken.done());
  EXPECT_EQ(contents({*taken.get()}), (std::vector<std::string>{"a"}));
  journal_->make_all_durable();
}

TEST_F(Gated, FailedJournalEndsEverything) {
  auto consumer = std::make_shared<Recorder>();
  ASSERT_TRUE(station_.subscribe("t", "q", {}, consumer));
  Answer<Receipt> receipt;
  station_.publish("t", "q", {payload_of({"a"})}, receipt.done());
  journal_->fail({Code::kIo, "no space"});
  EXPECT_EQ(receipt.get().error().code, Code::kUnavailable);
  EXPECT_EQ(consumer->wait_closed()->code, Code::kUnavailable);
  Answer<Receipt> next;
  station_.publish("t", "q", {payload_of({"a"})}, next.done());
  EXPECT_EQ(next.get().error().code, Code::kUnavailable);
  EXPECT_FALSE(station_.accepting());
}

// On a disk that loses what wasn't synced.
class OnDisk {
 public:
  explicit OnDisk(journal::FaultyFileSystem& files, std::uint64_t memory_bytes = 256u << 20) {
    Station::Options options;
    options.limits.memory_bytes_max = memory_bytes;
    options.limits.queue_memory_bytes_min = 0;
    options.checkpoint_bytes = 64u << 10;
    options.segment_bytes = 32u << 10;
    station = std::make_unique<Station>(options, Station::Deps{clock, background, *meter});
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
    EXPECT_LT(stored, 600'000u);
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
