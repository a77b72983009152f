#include "broker/broker.h"

#include <gtest/gtest.h>

#include "broker/testing.h"

namespace waystation::broker {
namespace {

using testing::Station;
using testing::TestReader;

TEST(BrokerTest, ARequestTravels) {
  Station station;
  auto worker = station.worker("w", "m");
  auto reader = std::make_shared<TestReader>();
  const auto submitted = station.submit("m", "", "", reader);
  ASSERT_TRUE(submitted);
  ASSERT_EQ(worker->assigned.size(), 1u);
  worker->produce(0, 3);
  station.settle();
  EXPECT_EQ(reader->text, "t0 t1 t2 ");
  worker->finish(0);
  station.settle();
  ASSERT_TRUE(reader->ending);
  EXPECT_EQ(reader->ending->state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(reader->ending->usage.completion_tokens(), 3u);
  EXPECT_EQ(station.get(submitted->id)->state, v1::REQUEST_STATE_COMPLETED);
}

TEST(BrokerTest, NothingIsVisibleBeforeItIsDurable) {
  Station station(/*immediately_durable=*/false);
  station.journal->make_all_durable();
  auto worker = station.worker("w", "m");
  ASSERT_TRUE(worker->welcome);  // the epoch is durable
  auto reader = std::make_shared<TestReader>();
  EXPECT_FALSE(station.submit("m", "", "", reader));  // not answered yet
  ASSERT_EQ(worker->assigned.size(), 1u);             // but the work has begun
  worker->produce(0, 2);
  station.settle();
  EXPECT_EQ(reader->text, "");
  station.journal->make_all_durable();
  station.settle();
  EXPECT_EQ(reader->text, "t0 t1 ");
}

TEST(BrokerTest, NoWorkerJoinsBeforeTheEpochIsDurable) {
  Station station(/*immediately_durable=*/false);
  auto worker = station.worker("w", "m");
  EXPECT_FALSE(worker->welcome);
  station.journal->make_all_durable();
  station.settle();
  EXPECT_TRUE(worker->welcome);
}

TEST(BrokerTest, ADeadWorkersRequestGoesOnElsewhereInTheSameStream) {
  Station station;
  auto first = station.worker("w1", "m");
  auto reader = std::make_shared<TestReader>();
  const auto submitted = station.submit("m", "", "", reader);
  first->produce(0, 3);
  station.settle();
  first->die();
  auto second = station.worker("w2", "m");
  ASSERT_EQ(second->assigned.size(), 1u);
  EXPECT_EQ(second->assigned[0].resume(0).token_ids_size(), 3);
  EXPECT_EQ(second->assigned[0].resume(0).text().size(), 9u);
  EXPECT_EQ(second->assigned[0].fence().attempt(), 2u);
  second->produce(0, 2);
  second->finish(0);
  station.settle();
  EXPECT_EQ(reader->text, "t0 t1 t2 t3 t4 ");
  EXPECT_EQ(station.get(submitted->id)->attempts.size(), 2u);
}

TEST(BrokerTest, AKilledServersRequestGoesOnAndItsStreamIsReadFromAnyPoint) {
  Station station;
  RequestId id;
  {
    auto worker = station.worker("w1", "m");
    id = station.submit("m")->id;
    worker->produce(0, 3);
    station.settle();
  }
  station.restart();
  auto from_start = station.attach(id);
  auto from_middle = station.attach(id, 2);
  EXPECT_EQ(from_start->text, "t0 t1 t2 ");
  auto worker = station.worker("w2", "m");
  ASSERT_EQ(worker->assigned.size(), 1u);
  EXPECT_EQ(worker->assigned[0].fence().epoch(), 2u);
  worker->produce(0, 1);
  worker->finish(0);
  station.settle();
  EXPECT_EQ(from_start->text, "t0 t1 t2 t3 ");
  EXPECT_TRUE(from_start->ending);
  EXPECT_EQ(from_middle->next, from_start->next);
  station.restart();
  EXPECT_EQ(station.attach(id)->text, "t0 t1 t2 t3 ");  // ended and not in memory
  EXPECT_EQ(station.get(id)->state, v1::REQUEST_STATE_COMPLETED);
}

TEST(BrokerTest, WhatWasNotDurableIsGoneAfterACrashAndWasNeverSeen) {
  Station station(/*immediately_durable=*/false);
  station.journal->make_all_durable();
  auto worker = station.worker("w", "m");
  auto reader = std::make_shared<TestReader>();
  EXPECT_FALSE(station.submit("m", "", "k", reader));
  station.restart();
  station.journal->make_all_durable();
  station.settle();
  EXPECT_FALSE(station.submit("m", "", "k"));  // unanswered, but taken as new:
  station.journal->make_all_durable();
  station.settle();
  auto after = station.worker("w2", "m");
  EXPECT_EQ(after->assigned.size(), 1u);
}

TEST(BrokerTest, LateOutputsOfALostAttemptChangeNothing) {
  Station station;
  auto worker = station.worker("w1", "m", 2);
  const auto id = station.submit("m")->id;
  worker->produce(0, 1);
  station.settle();
  ASSERT_TRUE(station.cancel(id));
  EXPECT_EQ(worker->cancelled.size(), 1u);
  worker->produce(0, 5);
  station.settle();
  EXPECT_EQ(station.attach(id)->text, "t0 ");
}

TEST(BrokerTest, AConversationRunsOneAtATimeInOrder) {
  Station station;
  auto worker = station.worker("w", "m", 4);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(station.submit("m", "talk"));
  ASSERT_TRUE(station.submit("m", "other"));
  EXPECT_EQ(worker->assigned.size(), 2u);
  worker->finish(0);
  station.settle();
  EXPECT_EQ(worker->assigned.size(), 3u);
}

TEST(BrokerTest, OneKeyIsOneRequest) {
  Station station;
  const auto first = station.submit("m", "", "key");
  const auto again = station.submit("m", "", "key");
  ASSERT_TRUE(first && again);
  EXPECT_EQ(first->id, again->id);
  EXPECT_TRUE(again->duplicate);
  station.restart();
  EXPECT_EQ(station.submit("m", "", "key")->id, first->id);
}

TEST(BrokerTest, AnUnknownModelIsRefusedWithTheKnownOnes) {
  Station station;
  auto worker = station.worker("w", "m");
  const auto refused = station.submit("nope");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kModelNotFound);
  EXPECT_NE(refused.error().message.find("served now: m"), std::string::npos);
}

TEST(BrokerTest, AClientThatGoesTakesItsPlainRequestWithIt) {
  Station station;
  auto worker = station.worker("w", "m");
  auto reader = std::make_shared<TestReader>();
  const auto id = station.submit("m", "", "", reader, /*detached=*/false)->id;
  station.broker->detach(id, reader, true);
  station.settle();
  EXPECT_EQ(station.get(id)->state, v1::REQUEST_STATE_CANCELLED);
  EXPECT_EQ(worker->cancelled.size(), 1u);
  auto kept = std::make_shared<TestReader>();
  const auto other = station.submit("m", "", "", kept, /*detached=*/true)->id;
  station.broker->detach(other, kept, true);
  station.settle();
  EXPECT_NE(station.get(other)->state, v1::REQUEST_STATE_CANCELLED);
}

TEST(BrokerTest, APlainRequestWaitsForItsClientAfterARestartButNotForever) {
  Station station;
  auto reader = std::make_shared<TestReader>();
  const auto lonely = station.submit("m", "", "", reader, false)->id;
  const auto visited = station.submit("m", "", "", reader, false)->id;
  station.restart();
  auto back = station.attach(visited);
  station.clock.advance_ms(station.config.orphan_wait_ms + 1);
  station.settle();
  EXPECT_EQ(station.get(lonely)->state, v1::REQUEST_STATE_CANCELLED);
  EXPECT_EQ(station.get(visited)->state, v1::REQUEST_STATE_QUEUED);
}

TEST(BrokerTest, ARequestThatKillsItsWorkersIsDeadAndOthersGoOn) {
  Station station;
  const auto poison = station.submit("m")->id;
  const auto innocent = station.submit("m")->id;
  for (int i = 0; i < 3; ++i) {
    auto worker = station.worker("w", "m", 2);
    worker->die();
    station.settle();
  }
  // Both were there the first time; alone, each gets its own chance.
  const auto after_poison = station.get(poison);
  const auto after_innocent = station.get(innocent);
  ASSERT_TRUE(after_poison && after_innocent);
  EXPECT_EQ(after_poison->state, v1::REQUEST_STATE_DEAD);
  EXPECT_EQ(after_innocent->state, v1::REQUEST_STATE_QUEUED);
  auto worker = station.worker("w", "m", 2);
  ASSERT_EQ(worker->assigned.size(), 1u);
  worker->produce(0, 1);
  worker->finish(0);
  station.settle();
  EXPECT_EQ(station.get(innocent)->state, v1::REQUEST_STATE_COMPLETED);
}

TEST(BrokerTest, AFailedJournalStopsAcceptanceAndKeepsReads) {
  Station station(/*immediately_durable=*/false);
  station.journal->make_all_durable();
  auto worker = station.worker("w", "m");
  (void)station.submit("m", "", "k");
  station.journal->make_all_durable();
  station.settle();
  worker->produce(0, 2);
  station.settle();
  station.journal->make_all_durable();
  station.settle();
  const auto id = RequestId::parse(worker->assigned[0].envelope().id());
  worker->produce(0, 2);  // these two never become durable
  station.settle();
  station.journal->fail(Error{Code::kIo, "no space left on device"});
  station.settle();
  EXPECT_FALSE(station.broker->health().accepting);
  EXPECT_FALSE(worker->connected);
  const auto refused = station.submit("m");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kUnavailable);
  auto reader = station.attach(*id);
  EXPECT_EQ(reader->text, "t0 t1 ");
  EXPECT_TRUE(reader->interrupted);              // it can't go on here
  EXPECT_EQ(station.get(*id)->event_count, 2u);  // the start and one block of two tokens
  station.restart();
  station.journal->make_all_durable();
  station.settle();
  auto next = station.worker("w2", "m");
  ASSERT_EQ(next->assigned.size(), 1u);
  EXPECT_EQ(next->assigned[0].resume(0).token_ids_size(), 2);
}

TEST(BrokerTest, AWorkerThatLeavesBeforeItWasWelcomedGetsNothing) {
  Station station(/*immediately_durable=*/false);
  auto worker = station.worker("w", "m");
  worker->leave();
  station.settle();
  (void)station.submit("m");
  station.journal->make_all_durable();
  station.settle();
  EXPECT_TRUE(worker->welcome);
  EXPECT_TRUE(worker->assigned.empty());
}

TEST(BrokerTest, WhatALeavingWorkerHadNotBegunCountsAgainstNothing) {
  Station station;
  const auto id = station.submit("m")->id;
  for (int i = 0; i < 5; ++i) {
    auto worker = station.worker("w", "m");
    ASSERT_EQ(worker->assigned.size(), 1u);
    worker->leave();
    station.settle();
    worker->die();
    station.settle();
  }
  const auto view = station.get(id);
  EXPECT_EQ(view->state, v1::REQUEST_STATE_QUEUED);
  EXPECT_EQ(view->attempts.front().outcome, "returned");
}

TEST(BrokerTest, ASilentWorkerLosesItsLease) {
  Station station;
  auto worker = station.worker("w1", "m");
  ASSERT_TRUE(station.submit("m"));
  for (int i = 0; i <= 4; ++i) {
    station.clock.advance_ms(station.config.link.lease_ms / 4);
    station.settle();
  }
  EXPECT_FALSE(worker->connected);
  EXPECT_EQ(station.stuck, (std::vector<std::int64_t>{4711}));
  auto next = station.worker("w2", "m");
  EXPECT_EQ(next->assigned.size(), 1u);
}

// Nobody could be heard while the machine slept.
TEST(BrokerTest, AWorkerIsNotLostForTheServersOwnAbsence) {
  Station station;
  auto worker = station.worker("w1", "m");
  ASSERT_TRUE(station.submit("m"));
  station.clock.advance_ms(3 * station.config.link.lease_ms);
  station.settle();
  EXPECT_TRUE(worker->connected);
  EXPECT_TRUE(station.stuck.empty());
}

TEST(BrokerTest, DeadlinesExpireWhileQueued) {
  Station station;
  Submission submission;
  submission.envelope.set_tenant("default");
  submission.envelope.set_model("m");
  submission.envelope.set_expirytime_ms(station.clock.wall_ms() + 500);
  RequestId id;
  ASSERT_TRUE(
      station.broker->submit(std::move(submission), [&](Result<Submitted> got) { id = got->id; }));
  station.settle();
  station.clock.advance_ms(501);
  station.settle();
  EXPECT_EQ(station.get(id)->state, v1::REQUEST_STATE_EXPIRED);
}

TEST(BrokerTest, CheckpointsAndTrimmingKeepWhatIsLive) {
  Config config;
  config.limits.retain_ms = 10'000;
  config.limits.idempotency_ttl_ms = 10'000;
  Station station(true, config);
  auto worker = station.worker("w", "m", 1);
  const auto old = station.submit("m", "", "", nullptr, true)->id;  // runs through everything
  worker->produce(0, 4);
  station.settle();
  auto second = station.worker("w2", "m", 1);
  RequestId ended;
  for (std::size_t i = 0; i < 100; ++i) {
    ended = station.submit("m")->id;
    second->produce(i, 1);
    second->finish(i);
    station.clock.advance_ms(1000);
    v1::WorkerMessage beat;
    worker->produce(0, 0);
    station.settle();
  }
  EXPECT_GT(station.journal->segments().front().first.value, 1u);  // the start is gone
  station.restart();
  auto reader = station.attach(old);
  EXPECT_EQ(reader->text, "t0 t1 t2 t3 ");
  EXPECT_EQ(station.get(ended)->state, v1::REQUEST_STATE_COMPLETED);
  auto third = station.worker("w3", "m", 1);
  ASSERT_EQ(third->assigned.size(), 1u);
  EXPECT_EQ(third->assigned[0].resume(0).token_ids_size(), 4);
  EXPECT_EQ(third->assigned[0].envelope().data(), "{}");
}

std::uint64_t bytes_of(const Station& station) {
  std::uint64_t bytes = 0;
  for (const auto& segment : station.journal->segments()) bytes += segment.bytes;
  return bytes;
}

TEST(BrokerTest, AtItsSizeLimitTheJournalForgetsTheOldestEndedRequests) {
  Config config;
  config.journal_bytes_max = 40'000;  // of the test's journal: a dozen segments
  Station station(true, config);
  auto worker = station.worker("w", "m", 2);
  const auto live = station.submit("m")->id;
  worker->produce(0, 2);
  std::vector<RequestId> ended;
  for (std::size_t i = 1; i <= 400; ++i) {
    const auto submitted = station.submit("m");
    ASSERT_TRUE(submitted) << submitted.error().message;
    ended.push_back(submitted->id);
    worker->produce(i, 3);
    worker->finish(i);
    station.clock.advance_ms(1000);
    station.settle();
    ASSERT_LE(bytes_of(station), config.journal_bytes_max * 5 / 4);
  }
  const auto oldest = station.get(ended.front());
  ASSERT_FALSE(oldest);
  EXPECT_TRUE(oldest.error().code == Code::kGone || oldest.error().code == Code::kNotFound);
  station.restart();
  EXPECT_EQ(station.get(ended.back())->state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(station.attach(ended.back())->text, "t0 t1 t2 ");
  EXPECT_EQ(station.attach(live)->text, "t0 t1 ");  // what runs is never forgotten
}

TEST(BrokerTest, AtTheSizeLimitNewWorkIsRefusedRatherThanKeysForgotten) {
  Config config;
  config.journal_bytes_max = 40'000;
  Station station(true, config);
  auto worker = station.worker("w", "m");
  RequestId first;
  std::size_t taken = 0;
  Result<Submitted> submitted = Error{Code::kInternal, "none yet"};
  for (; taken < 2000; ++taken) {
    submitted = station.submit("m", "", "key " + std::to_string(taken));
    if (!submitted) break;
    if (taken == 0) first = submitted->id;
    worker->produce(taken, 3);
    worker->finish(taken);
    station.clock.advance_ms(1000);
    station.settle();
  }
  ASSERT_FALSE(submitted) << taken;
  EXPECT_EQ(submitted.error().code, Code::kQueueFull);
  EXPECT_FALSE(station.broker->health().accepting);
  // Who asks again by a known key gets what it stands for.
  const auto again = station.submit("m", "", "key 0");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->id, first);
  EXPECT_EQ(station.attach(first)->text, "t0 t1 t2 ");
  // Full doesn't mean busy: nothing is written while nobody asks for anything.
  for (int i = 0; i < 100; ++i) {
    station.clock.advance_ms(1000);
    station.settle();
  }
  const LogIndex before = station.journal->next_index();
  for (int i = 0; i < 100; ++i) {
    station.clock.advance_ms(1000);
    station.settle();
  }
  EXPECT_EQ(station.journal->next_index(), before);
  // Room comes when the keys end.
  station.clock.advance_ms(config.limits.idempotency_ttl_ms);
  for (int i = 0; i < 100; ++i) {
    station.clock.advance_ms(1000);
    station.settle();
  }
  auto another = station.worker("w2", "m");
  EXPECT_TRUE(station.submit("m", "", "another"));
  EXPECT_TRUE(station.broker->health().ready);
}

TEST(BrokerTest, AReaderThatComesWhileItsRequestIsCarriedOverGetsAllOfIt) {
  Config config;
  config.hub_bytes_max = 0;  // what has ended is read from the journal
  config.journal_bytes_max = 5'000;
  Station station(false, config);
  auto worker = station.worker("w", "m", 2);
  station.sync();
  std::vector<RequestId> ids;
  const auto submit = [&](const std::string& key) {
    Submission submission = Station::submission_of("m");
    submission.envelope.set_idempotencykey(key);
    ASSERT_TRUE(station.broker->submit(std::move(submission),
                                       [&](Result<Submitted> got) { ids.push_back(got->id); }));
    station.settle();
    station.sync();
  };
  for (std::size_t i = 0; i < 40; ++i) {
    submit("key " + std::to_string(i));
    worker->produce(i, 3);
    station.settle();
    worker->finish(i);
    station.settle();
    station.sync();
  }
  submit("another");
  station.clock.advance_ms(1000);
  station.settle();  // the checkpoint without which nothing is carried

  worker->produce(40, 1);
  station.settle();  // something that isn't durable, so that the reader waits
  auto reader = station.attach(ids.front());
  const LogIndex seen{station.journal->next_index().value - 1};
  station.clock.advance_ms(1000);
  station.settle();  // carries the oldest requests over
  ASSERT_GT(station.journal->next_index().value - 1, seen.value);
  station.journal->make_durable_up_to(seen);
  station.settle();
  station.sync();
  EXPECT_EQ(reader->text, "t0 t1 t2 ");
  EXPECT_TRUE(reader->ending);
}

TEST(BrokerTest, ManyRecordsMakeACheckpointInTheMiddleOfASegment) {
  Config config;
  config.checkpoint_records = 40;  // a segment of these tests has 64
  Station station(true, config);
  auto worker = station.worker("w", "m", 1);
  const auto result = station.submit("m");
  ASSERT_TRUE(result);
  for (int i = 0; i < 20; ++i) {
    worker->produce(0, 1);
    station.settle();
  }
  station.clock.advance_ms(1000);
  station.settle();
  EXPECT_EQ(station.journal->newest_checkpoint().value(), std::nullopt);  // too few yet
  for (int i = 0; i < 25; ++i) {
    worker->produce(0, 1);
    station.settle();
  }
  station.clock.advance_ms(1000);
  station.settle();
  const auto checkpoint = station.journal->newest_checkpoint().value();
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(checkpoint->index, station.journal->durable_index());
  EXPECT_FALSE(station.journal->segments().back().sealed);
  station.restart();
  EXPECT_EQ(station.get(result->id)->event_count, 46u);
}

// A checkpoint writes every request that is known, so many of them make it rarer.
TEST(BrokerTest, ACheckpointAlsoWaitsForFourRecordsARequestThatIsKnown) {
  Config config;
  config.checkpoint_records = 5;
  Station station(true, config);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(station.submit("m"));
  auto worker = station.worker("w", "m", 1);
  const auto write_up_to = [&](std::uint64_t index) {
    while (station.journal->durable_index().value < index) {
      worker->produce(0, 1);
      station.settle();
    }
    ASSERT_EQ(station.journal->durable_index().value, index);
    station.clock.advance_ms(1000);
    station.settle();
  };
  write_up_to(39);
  EXPECT_EQ(station.journal->newest_checkpoint().value(), std::nullopt);
  write_up_to(40);
  const auto checkpoint = station.journal->newest_checkpoint().value();
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(checkpoint->index.value, 40u);
}

TEST(BrokerTest, ARequestThatEndsWhileItsHistoryIsReadIsReadAgain) {
  Config config;
  config.hub_bytes_max = 0;  // what has ended is not held
  Station station(true, config);
  auto worker = station.worker("w", "m");
  const auto id = station.submit("m")->id;
  worker->produce(0, 2);
  station.settle();
  station.restart();
  auto second = station.worker("w2", "m");

  auto reader = std::make_shared<TestReader>();
  ASSERT_TRUE(station.broker->attach("default", id, 0, reader, [](Result<RequestView>) {}));
  station.broker->turn(std::chrono::milliseconds(0));  // reads what there is, in the background
  second->produce(0, 2);
  second->finish(0);
  station.link->deliver_all();
  station.broker->turn(std::chrono::milliseconds(0));
  station.broker->turn(std::chrono::milliseconds(0));
  station.settle();
  EXPECT_EQ(reader->text, "t0 t1 t2 t3 ");
  EXPECT_TRUE(reader->ending);
  EXPECT_EQ(station.attach(id)->text, "t0 t1 t2 t3 ");
}

TEST(BrokerTest, NoSegmentGoesBeforeWhatMakesItSuperfluousIsDurable) {
  Config config;
  config.journal_bytes_max = 10'000;
  Station station(false, config);
  auto worker = station.worker("w", "m", 2);
  station.sync();
  std::vector<RequestId> ids;
  for (std::size_t i = 0; i < 60; ++i) {
    ASSERT_TRUE(station.broker->submit(Station::submission_of("m"), [&](Result<Submitted> got) {
      ids.push_back(got->id);
    }));
    station.settle();
    station.sync();
    worker->produce(i, 3);
    station.settle();
    worker->finish(i);
    station.settle();
    station.sync();
    if (i == 16 || i == 30) station.clock.advance_ms(1000);  // a checkpoint
  }
  const LogIndex first = station.journal->segments().front().first;
  for (int second = 0; second < 3; ++second) {  // nothing that is written now gets to the disk
    station.clock.advance_ms(1000);
    station.settle();
  }
  EXPECT_EQ(station.journal->segments().front().first, first);
  station.restart();
  station.sync();
  for (const RequestId id : ids) {
    const auto reader = station.attach(id);
    station.sync();
    if (reader->interrupted) {
      ADD_FAILURE() << reader->interrupted->message;
    } else if (reader->ending) {
      EXPECT_EQ(reader->text, "t0 t1 t2 ");
    }
  }
}

TEST(BrokerTest, DrainingFinishesWhatRunsAndLeavesTheRest) {
  Station station;
  auto worker = station.worker("w", "m", 1);
  const auto running = station.submit("m")->id;
  const auto waiting = station.submit("m")->id;
  station.broker->drain();
  station.settle();
  EXPECT_FALSE(station.broker->wait_drained(std::chrono::milliseconds(0)));
  EXPECT_FALSE(station.submit("m"));
  worker->produce(0, 1);
  worker->finish(0);
  station.settle();
  EXPECT_TRUE(station.broker->drained());
  EXPECT_TRUE(station.broker->wait_drained(std::chrono::milliseconds(0)));
  EXPECT_EQ(station.get(running)->state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(station.get(waiting)->state, v1::REQUEST_STATE_QUEUED);
  station.restart();
  auto next = station.worker("w2", "m", 1);
  EXPECT_EQ(next->assigned.size(), 1u);
}

}  // namespace
}  // namespace waystation::broker
