#include "queue/station.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/thread_executor.h"
#include "journal/memory_journal.h"
#include "queue/testing_station.h"

namespace waystation::queue {
namespace {

class InMemory : public testing::Test {
 protected:
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
  MemoryStation station_{clock_, *meter_};
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

}  // namespace
}  // namespace waystation::queue
