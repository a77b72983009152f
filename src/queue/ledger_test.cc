#include <gtest/gtest.h>

#include "queue/testing.h"

namespace waystation::queue {
namespace {

MessageOptions in_lane(const std::string& lane) {
  return {.lane = lane};
}

std::string take_text(TestLedger& ledger, std::uint64_t messages = 1'000) {
  return TestLedger::text(ledger.take("q", messages));
}

class Queues : public testing::Test {
 protected:
  // Live state and log say the same (but for what only bounds the present: nothing).
  void TearDown() override { EXPECT_EQ(ledger->snapshot(), ledger.replayed()); }
  TestLedger ledger;
};

TEST_F(Queues, GiveWhatIsDurableInOrderAcrossFrames) {
  ASSERT_TRUE(ledger.publish("q", {"a", "b"}));
  EXPECT_EQ(take_text(ledger), "");  // may yet be lost
  ledger.sync();
  const auto receipt = ledger.publish("q", {"c"});
  EXPECT_EQ(receipt->first, 3u);
  ledger.sync();
  EXPECT_EQ(take_text(ledger, 2), "1:a 2:b");
  EXPECT_EQ(take_text(ledger), "3:c");
  EXPECT_EQ(ledger->info(ledger.id("q")).leased, 3u);
}

TEST_F(Queues, AckInPartsAndNothingTwice) {
  ASSERT_TRUE(ledger.publish("q", {"a", "b", "c", "d"}));
  ledger.sync();
  const Taken taken = ledger.take("q");
  ASSERT_TRUE(ledger.ack("q", taken, {{2, 2}}));
  EXPECT_EQ(ledger.ack("q", taken, {{3, 1}}).error().code, Code::kGone);
  EXPECT_EQ(ledger.ack("q", taken, {{1, 1}, {2, 1}}).error().code, Code::kGone);  // all or nothing
  EXPECT_EQ(ledger->info(ledger.id("q")).leased, 2u);
  ASSERT_TRUE(ledger.nack("q", taken));
  ledger.sync();
  EXPECT_EQ(take_text(ledger), "1:a* 4:d*");
}

TEST_F(Queues, LeaseRunsOut) {
  ASSERT_TRUE(ledger.publish("q", {"a"}));
  ledger.sync();
  const Taken first = ledger.take("q");
  ledger.now += 999;
  ledger.tick();
  ASSERT_EQ(ledger->extend(ledger.key("q", first), 1'000, ledger.now).value(), ledger.now + 1'000);
  ledger.now += 999;
  ledger.tick();
  EXPECT_EQ(take_text(ledger), "");
  ledger.now += 1;
  ledger.tick();
  EXPECT_EQ(ledger.ack("q", first).error().code, Code::kGone);
  EXPECT_EQ(take_text(ledger), "");  // its return may yet be lost
  ledger.sync();
  EXPECT_EQ(take_text(ledger), "1:a*");
}

TEST_F(Queues, RestartVoidsLeasesAndKeepsAttempts) {
  ASSERT_TRUE(ledger.publish("q", {"a", "b"}));
  ledger.sync();
  ASSERT_TRUE(ledger.nack("q", ledger.take("q", 1)));
  ledger.sync();
  const Taken taken = ledger.take("q");
  EXPECT_EQ(TestLedger::text(taken), "1:a* 2:b");
  ledger.crash();
  EXPECT_EQ(ledger.ack("q", taken).error().code, Code::kGone);
  const Taken again = ledger.take("q");
  EXPECT_NE(again.lease, taken.lease);
  EXPECT_EQ(TestLedger::text(again), "1:a* 2:b");
}

TEST_F(Queues, ConsumerThatGoesAwayReturnsWhatItHas) {
  ASSERT_TRUE(ledger.publish("q", {"a", "b", "c"}));
  ledger.sync();
  ledger.take("q", 1, ConsumerId{7});
  ledger.take("q", 1, ConsumerId{8});
  EXPECT_EQ(ledger->held(ConsumerId{7}), 1u);
  ledger->end_consumer(ConsumerId{7}, false, ledger.now, ledger.out());
  EXPECT_EQ(ledger->held(ConsumerId{7}), 0u);
  ledger.sync();
  EXPECT_EQ(take_text(ledger), "1:a 3:c");
}

TEST_F(Queues, LanesAreInOrderAndOneAtATime) {
  ASSERT_TRUE(
      ledger.publish("q", {"a1", "b1", "a2", "x"}, {in_lane("a"), in_lane("b"), in_lane("a"), {}}));
  ledger.sync();
  const Taken taken = ledger.take("q");
  EXPECT_EQ(TestLedger::text(taken), "1:a1 2:b1 4:x");
  ASSERT_TRUE(ledger.nack("q", taken, {{1, 1}}));
  ledger.sync();
  const Taken again = ledger.take("q");
  EXPECT_EQ(TestLedger::text(again), "1:a1*");  // its turn still
  ASSERT_TRUE(ledger.ack("q", again));
  EXPECT_EQ(take_text(ledger), "3:a2");
}

TEST_F(Queues, PrioritiesGoFirstButNotForEver) {
  ASSERT_TRUE(ledger.publish("q", {"low", "normal", "high"},
                             {{.priority = Priority::kLow}, {}, {.priority = Priority::kHigh}}));
  ledger.sync();
  EXPECT_EQ(take_text(ledger, 2), "3:high 2:normal");
  Schedule schedule;
  schedule.add({1, 1}, Priority::kLow);
  schedule.add({kMessagesPerStep, 1}, Priority::kNormal);
  EXPECT_EQ(schedule.front()->range.first, static_cast<MessageId>(kMessagesPerStep));
  schedule.take(*schedule.front(), 1);
  schedule.add({kMessagesPerStep + 1, 1}, Priority::kNormal);
  EXPECT_EQ(schedule.front()->range.first, 1u);  // a step of waiting
}

TEST_F(Queues, DelaysAndDeadlines) {
  ASSERT_TRUE(
      ledger.publish("q", {"later", "brief"},
                     {{.not_before_ms = ledger.now + 100}, {.deadline_ms = ledger.now + 50}}));
  ledger.sync();
  const Taken brief = ledger.take("q");
  EXPECT_EQ(TestLedger::text(brief), "2:brief");
  ledger.now += 60;
  ledger.tick();  // a lease outlives the deadline
  ASSERT_TRUE(ledger.nack("q", brief));
  ledger.sync();
  ledger.now += 40;
  EXPECT_EQ(ledger.tick(), std::vector{ledger.id("q")});
  const Taken later = ledger.take("q");
  EXPECT_EQ(TestLedger::text(later), "1:later");
  EXPECT_EQ(ledger->info(ledger.id("q")).waiting, 0u);  // brief is gone
  ASSERT_TRUE(ledger.nack("q", later, {}, 500));
  ledger.sync();
  ledger.tick();
  EXPECT_EQ(take_text(ledger), "");
  ledger.crash();
  EXPECT_EQ(take_text(ledger), "");
  ledger.now += 500;
  ledger.tick();
  EXPECT_EQ(take_text(ledger), "1:later*");
  EXPECT_EQ(ledger.publish("q", {"x"}, {{.deadline_ms = ledger.now}}).error().code, Code::kExpired);
}

TEST_F(Queues, DelayedOneExpiresBeforeItsTime) {
  ASSERT_TRUE(ledger.publish(
      "q", {"a", "b"},
      {{.lane = "l", .not_before_ms = ledger.now + 900, .deadline_ms = ledger.now + 500},
       in_lane("l")}));
  ledger.sync();
  ledger.now += 500;
  ledger.tick();
  EXPECT_EQ(take_text(ledger), "2:b");
}

TEST_F(Queues, DeadLettersComeBackOrGo) {
  ledger->configure(ledger->open("t", "q", ledger.now, ledger.out()).value(), {.attempts_max = 2},
                    ledger.now, ledger.out());
  ASSERT_TRUE(ledger.publish("q", {"a", "b"}));
  ledger.sync();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(ledger.nack("q", ledger.take("q")));
    ledger.sync();
  }
  EXPECT_EQ(take_text(ledger), "");
  ledger.crash();
  const auto letters = ledger->dead_letters(ledger.id("q"), 0, 10);
  ASSERT_EQ(letters.size(), 2u);
  EXPECT_EQ(letters[0].reason, "nack");
  EXPECT_EQ(letters[0].attempts, 2u);
  EXPECT_EQ(ledger->revive(ledger.id("q"), {1, 9}, ledger.now, ledger.out()).error().code,
            Code::kNotFound);
  EXPECT_EQ(ledger->revive(ledger.id("q"), {1}, ledger.now, ledger.out()).value(), 1u);
  EXPECT_EQ(ledger->discard(ledger.id("q"), {}, ledger.now, ledger.out()).value(), 1u);
  ledger.sync();
  EXPECT_EQ(take_text(ledger), "1:a");  // as if for the first time
  const QueueInfo info = ledger->info(ledger.id("q"));
  EXPECT_EQ(info.dead, 0u);
  EXPECT_EQ(info.leased, 1u);
  EXPECT_EQ(info.waiting, 0u);
}

TEST_F(Queues, DeadOneSkipsOrBlocksItsLane) {
  for (const bool blocks : {false, true}) {
    const std::string name = blocks ? "blocks" : "skips";
    const QueueId id = ledger->open("t", name, ledger.now, ledger.out()).value();
    ledger->configure(id, {.dead_blocks = blocks}, ledger.now, ledger.out());
    ASSERT_TRUE(ledger.publish(name, {"a", "b", "c"}, {in_lane("l"), in_lane("l"), in_lane("l")}));
    ledger.sync();
    const Taken taken = ledger.take(name);
    ASSERT_TRUE(ledger->terminate(ledger.key(name, taken), {}, "bad", ledger.now, ledger.out()));
    ledger.sync();
    ledger.checkpoint();
    ledger.crash();
    if (!blocks) {
      EXPECT_EQ(TestLedger::text(ledger.take(name)), "2:b");
      continue;
    }
    EXPECT_EQ(TestLedger::text(ledger.take(name)), "");
    ASSERT_TRUE(ledger->revive(id, {}, ledger.now, ledger.out()));
    ledger.sync();
    const Taken again = ledger.take(name);
    EXPECT_EQ(TestLedger::text(again), "1:a");  // in its old place
    ASSERT_TRUE(ledger->terminate(ledger.key(name, again), {}, "bad", ledger.now, ledger.out()));
    ledger->configure(id, {.dead_blocks = false}, ledger.now, ledger.out());
    EXPECT_EQ(TestLedger::text(ledger.take(name)), "2:b");
  }
}

TEST_F(Queues, KeysBind) {
  const auto first = ledger.publish("q", {"a", "b"}, {}, "k");
  const auto same = ledger.publish("q", {"a", "b"}, {}, "k");
  EXPECT_FALSE(first->duplicate);
  EXPECT_TRUE(same->duplicate);
  EXPECT_EQ(same->first, first->first);
  EXPECT_EQ(same->count, 2u);
  EXPECT_EQ(ledger.publish("q", {"c"}, {}, "k").error().code, Code::kIdempotencyMismatch);
  EXPECT_FALSE(ledger.publish("other", {"c"}, {}, "k")->duplicate);
  ledger.sync();
  ASSERT_TRUE(ledger.ack("q", ledger.take("q")));
  ledger.sync();
  ledger.checkpoint();
  ledger.crash();
  EXPECT_TRUE(ledger.publish("q", {"a", "b"}, {}, "k")->duplicate);  // also when they are done
  ledger.now += 24 * 3600 * 1000;
  EXPECT_EQ(ledger.publish("q", {"c"}, {}, "k")->first, 3u);
  ledger.now += 1;
  EXPECT_TRUE(ledger.publish("q", {"c"}, {}, "k")->duplicate);
}

TEST_F(Queues, TenantsHaveQueuesOfTheirOwn) {
  ASSERT_TRUE(ledger.publish("q", {"mine"}));
  ledger.sync();
  ledger.tenant = "u";
  EXPECT_EQ(ledger->find("u", "q").error().code, Code::kNotFound);
  ASSERT_TRUE(ledger.publish("q", {"theirs"}));
  ledger.sync();
  const Taken theirs = ledger.take("q");
  EXPECT_EQ(TestLedger::text(theirs), "1:theirs");
  ledger.tenant = "t";
  EXPECT_EQ(ledger.ack("q", theirs).error().code, Code::kGone);
  EXPECT_EQ(ledger->list("t").size(), 1u);
  EXPECT_EQ(TestLedger::text(ledger.take("q")), "1:mine");
}

TEST_F(Queues, DeletedQueueIsGoneWithItsLeases) {
  ASSERT_TRUE(ledger.publish("q", {"a", "b"}));
  ledger.sync();
  const Taken taken = ledger.take("q", 1);
  const LeaseKey key = ledger.key("q", taken);
  ledger->remove(ledger.id("q"), ledger.now, ledger.out());
  EXPECT_EQ(ledger->ack(key, {}, ledger.now, ledger.out()).error().code, Code::kGone);
  EXPECT_EQ(ledger->totals().messages, 0u);
  EXPECT_EQ(ledger->totals().bytes, 0u);
  EXPECT_EQ(ledger->totals().leased, 0u);
  EXPECT_EQ(ledger->totals().memory_bytes, 0u);
  ASSERT_TRUE(ledger.publish("q", {"new"}));
  ledger.sync();
  EXPECT_EQ(take_text(ledger), "1:new");
}

TEST_F(Queues, NamesAreChecked) {
  for (const std::string& bad : {std::string(), std::string("a/b"), std::string(129, 'a')}) {
    EXPECT_EQ(ledger.publish(bad, {"a"}).error().code, Code::kInvalidArgument);
  }
}

TEST(QueueBounds, RefuseWhatDoesNotFit) {
  TestLedger ledger({.queue_messages_max = 3,
                     .queue_bytes_max = 1000,
                     .messages_max = 5,
                     .tenant_queues_max = 2,
                     .keys_max = 1});
  ASSERT_TRUE(ledger.publish("q", {"a", "b"}));
  const auto full = ledger.publish("q", {"c", "d"});
  EXPECT_EQ(full.error().code, Code::kQueueFull);
  EXPECT_GT(full.error().retry_after_ms, 0);
  ASSERT_TRUE(ledger.publish("q", {"c"}, {}, "k"));
  ASSERT_TRUE(ledger.publish("r", {"a"}));
  EXPECT_EQ(ledger.publish("r", {"a", "b"}).error().code, Code::kQueueFull);  // all together
  EXPECT_EQ(ledger.publish("s", {"a"}).error().code, Code::kQueueFull);       // a third queue
  ledger.sync();
  ASSERT_TRUE(ledger.ack("q", ledger.take("q")));
  EXPECT_EQ(ledger.publish("q", {std::string(1000, 'x')}).error().code, Code::kQueueFull);
  EXPECT_EQ(ledger.publish("q", {"d"}, {}, "l").error().code, Code::kQueueFull);  // a second key
  ASSERT_TRUE(ledger.publish("q", {"d"}));
}

TEST(QueueMemory, KeepsTheOldestAndAsksForTheRest) {
  TestLedger ledger({.memory_bytes_max = 25, .queue_memory_bytes_min = 0});
  ASSERT_TRUE(ledger.publish("q", {std::string(10, 'a')}));
  ASSERT_TRUE(ledger.publish("q", {std::string(10, 'b')}));
  ASSERT_TRUE(ledger.publish("q", {std::string(10, 'c')}));
  ledger.sync();
  const Taken taken = ledger.take("q");
  EXPECT_EQ(taken.messages, 2u);
  EXPECT_TRUE(taken.cold);
  const auto wanted = ledger->cold(ledger.id("q"), 1);
  ASSERT_EQ(wanted.size(), 1u);
  EXPECT_EQ(wanted[0].first, 3u);
  const std::string content(10, 'c');
  ledger->warm(ledger.id("q"), 3, *Payload::of({content}));
  EXPECT_EQ(TestLedger::text(ledger.take("q")), "3:cccccccccc");
  EXPECT_LE(ledger->totals().memory_bytes, 25u);  // read for this delivery only
}

TEST(QueueMemory, OneThatNobodyDrainsLeavesRoomForOthers) {
  TestLedger ledger({.memory_bytes_max = 40, .queue_memory_bytes_min = 20});
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(ledger.publish("full", {std::string(10, 'a')}));
  const std::uint64_t full = ledger->totals().memory_bytes;
  ASSERT_TRUE(ledger.publish("q", {std::string(10, 'b')}));
  EXPECT_EQ(ledger->totals().memory_bytes, full + 12);
  ASSERT_TRUE(ledger.publish("q", {std::string(10, 'b')}));  // its share is used
  EXPECT_EQ(ledger->totals().memory_bytes, full + 12);
}

TEST(QueueMemory, CarriedFramesMoveAndStay) {
  TestLedger ledger;
  ASSERT_TRUE(ledger.publish("q", {"a"}));
  ASSERT_TRUE(ledger.publish("q", {"b"}));
  ledger.sync();
  const auto old = ledger->stored_below(ledger.last(), 1);
  ASSERT_EQ(old.size(), 1u);
  ledger->carry(old[0], *Payload::of({"a"}), ledger.now, ledger.out());
  EXPECT_GT(ledger->oldest_needed(), old[0].record);
  ledger->carry(old[0], *Payload::of({"a"}), ledger.now, ledger.out());  // is no longer there
  EXPECT_EQ(ledger->snapshot(), ledger.replayed());
  ledger.sync();
  EXPECT_EQ(take_text(ledger), "1:a 2:b");
}

TEST(QueuePayload, RefusesWhatIsNotThatForm) {
  EXPECT_FALSE(Payload::parse(""));
  EXPECT_FALSE(Payload::parse("a"));
  EXPECT_FALSE(
      Payload::parse(std::string("\x7a\x05"
                                 "ab")));
  std::string good;
  append_payload(good, "ab");
  append_payload(good, "");
  const auto parsed = Payload::parse(good);
  ASSERT_TRUE(parsed);
  EXPECT_EQ((*parsed)->count(), 2u);
  EXPECT_EQ((*parsed)->message(0), "ab");
  EXPECT_EQ((*parsed)->message(1), "");
  EXPECT_EQ((*parsed)->fitting(0, 0), 1u);
  EXPECT_EQ((*parsed)->fitting(0, 5), 1u);
  EXPECT_EQ((*parsed)->fitting(0, 6), 2u);
}

// The example of docs/formats/queue.md.
TEST(QueueRecords, AreAsTheDocumentSays) {
  const std::string wanted(
      "\x05\xe8\x03\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"
      "\0\0\0\x7a\x02hi",
      32);
  const PayloadPtr payload = Payload::of({"hi"}).value();
  EXPECT_EQ(encode({1000, Published{QueueId{1}, 1, {}, {}, {}, payload}}), wanted);
  std::string placed = encode_published({}, {}, {}, *payload);
  place_published(placed, QueueId{1}, 1, 1000);
  EXPECT_EQ(placed, wanted);
}

TEST(QueueRecords, AnyCutOrFlipIsAnErrorOrARecord) {
  TestLedger ledger;
  ASSERT_TRUE(ledger.publish("q", {"a", "b"}, {{.lane = "l"}, {.deadline_ms = 1 << 30}}, "k"));
  ledger.sync();
  ASSERT_TRUE(ledger.nack("q", ledger.take("q", 1)));
  for (const std::string& record : Proposal(ledger.out())) {
    ASSERT_TRUE(decode(record));
    for (std::size_t cut = 0; cut < record.size(); ++cut) (void)decode(record.substr(0, cut));
    for (std::size_t at = 0; at < record.size(); ++at) {
      std::string flipped = record;
      flipped[at] = static_cast<char>(flipped[at] ^ 0x41);
      (void)decode(flipped);
    }
  }
}

}  // namespace
}  // namespace waystation::queue
