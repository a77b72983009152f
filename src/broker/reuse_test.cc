// Answers that are given again: when an earlier request's answer may stand for a new one.
#include <gtest/gtest.h>

#include "broker/testing.h"

namespace waystation::broker {
namespace {

using testing::Station;
using testing::TestReader;
using testing::TestWorker;

class ReuseTest : public ::testing::Test {
 protected:
  Submission make(const std::string& key = "k", CacheUse use = CacheUse::kFull) {
    Submission submission = Station::submission_of("m");
    submission.envelope.set_cachekey(key);
    submission.cache = use;
    submission.cache_ttl_ms = 60'000;
    return submission;
  }
  Submitted submit(const std::string& key = "k", CacheUse use = CacheUse::kFull) {
    const auto submitted = station.submit(make(key, use));
    EXPECT_TRUE(submitted);
    return submitted ? *submitted : Submitted{};
  }
  // Runs what was submitted last to its end.
  void answer() {
    worker->produce(worker->assigned.size() - 1, 2);
    worker->finish(worker->assigned.size() - 1);
    station.settle();
  }

  Station station;
  std::shared_ptr<TestWorker> worker = station.worker("w", "m", 4);
};

TEST_F(ReuseTest, ACompletedAnswerIsGivenAgainAsItWas) {
  const Submitted first = submit();
  EXPECT_FALSE(first.cached);
  answer();
  station.clock.advance_ms(59'999);
  const Submitted again = submit();
  EXPECT_TRUE(again.cached);
  EXPECT_TRUE(again.duplicate);
  EXPECT_EQ(again.id, first.id);
  EXPECT_EQ(again.accepted_ms, first.accepted_ms);
  EXPECT_EQ(worker->assigned.size(), 1u);
  const auto reader = station.attach(again.id);
  EXPECT_EQ(reader->text, "t0 t1 ");
  EXPECT_TRUE(reader->ending);
  EXPECT_FALSE(submit("another").cached);
}

TEST_F(ReuseTest, ADeletedAnswerIsGivenToNobody) {
  const Submitted first = submit();
  answer();
  std::optional<Result<void>> erased;
  ASSERT_TRUE(station.broker->erase("other", first.id, [&](Result<void> r) { erased = r; }));
  station.settle();
  EXPECT_EQ(erased->error().code, Code::kNotFound);
  ASSERT_TRUE(station.broker->erase("default", first.id, [&](Result<void> r) { erased = r; }));
  station.settle();
  EXPECT_TRUE(*erased);
  EXPECT_EQ(station.get(first.id).error().code, Code::kGone);
  EXPECT_EQ(station.attach(first.id)->text, "");
  EXPECT_FALSE(submit().cached);
  station.restart();
  EXPECT_EQ(station.get(first.id).error().code, Code::kGone);
}

TEST_F(ReuseTest, WhoReadsAlongWhileItIsDeletedIsToldTheEndAfterWhatWasSeen) {
  const Submitted first = submit();
  worker->produce(0, 2);
  station.settle();
  const auto reader = station.attach(first.id);
  EXPECT_EQ(reader->next, 2u);  // the start, and the tokens
  ASSERT_TRUE(station.broker->erase("default", first.id, [](Result<void>) {}));
  station.settle();
  ASSERT_TRUE(reader->ending);
  EXPECT_EQ(reader->ending->state, v1::REQUEST_STATE_CANCELLED);
  EXPECT_EQ(reader->ending->sequence, 2u);
}

// A server that dies before the deletion is durable has the answer again: who was told that it is gone
// would be contradicted.
TEST(ErasingTest, NobodyHearsOfItBeforeItIsDurable) {
  Config config;
  config.hub_bytes_max = 1;  // so that the reader's events are read from the journal
  Station station(/*immediately_durable=*/false, config);
  const auto worker = station.worker("w", "m");
  std::optional<Result<Submitted>> submitted;
  ASSERT_TRUE(station.broker->submit(Station::submission_of("m"),
                                     [&](Result<Submitted> r) { submitted = r; }));
  station.sync();
  worker->produce(0, 2);
  worker->finish(0);
  station.settle();
  station.sync();
  const RequestId id = (*submitted)->id;

  const auto reader = std::make_shared<TestReader>();
  std::optional<Result<void>> erased;
  ASSERT_TRUE(station.broker->attach("default", id, 0, reader, [](Result<RequestView>) {}));
  ASSERT_TRUE(station.broker->erase("default", id, [&](Result<void> r) { erased = r; }));
  station.settle();
  EXPECT_FALSE(erased);
  EXPECT_FALSE(reader->interrupted);
  station.sync();
  EXPECT_TRUE(erased && *erased);
  ASSERT_TRUE(reader->interrupted);
  EXPECT_EQ(reader->interrupted->code, Code::kGone);
}

TEST_F(ReuseTest, AnAnswerThatIsTooOldIsNotGiven) {
  const Submitted first = submit();
  answer();
  station.clock.advance_ms(60'000);
  const Submitted again = submit();
  EXPECT_FALSE(again.cached);
  EXPECT_NE(again.id, first.id);
  Submission never = make();
  never.cache_ttl_ms = 0;
  answer();
  EXPECT_FALSE(station.submit(std::move(never))->cached);
}

TEST_F(ReuseTest, EqualRequestsAtOnceRunOnce) {
  const Submitted first = submit();
  const Submitted second = submit();
  EXPECT_TRUE(second.cached);
  EXPECT_EQ(second.id, first.id);
  EXPECT_EQ(worker->assigned.size(), 1u);
  const auto reader = station.attach(second.id);
  answer();
  EXPECT_EQ(reader->text, "t0 t1 ");
  EXPECT_TRUE(reader->ending);
}

TEST_F(ReuseTest, ASharedRunningRequestDoesNotGoWithItsFirstClient) {
  auto first_reader = std::make_shared<TestReader>();
  Submission first = make();
  first.detached = false;
  first.reader = first_reader;
  const RequestId id = station.submit(std::move(first))->id;
  Submission second = make();
  second.detached = false;
  ASSERT_TRUE(station.submit(std::move(second))->cached);
  station.broker->detach(id, first_reader, true);  // before the second one's reader has come
  station.settle();
  EXPECT_EQ(station.get(id)->state, v1::REQUEST_STATE_RUNNING);
  const auto reader = station.attach(id);
  answer();
  EXPECT_EQ(reader->text, "t0 t1 ");
}

TEST_F(ReuseTest, ASharedRunningRequestGoesWithItsLastClient) {
  auto first_reader = std::make_shared<TestReader>();
  Submission first = make();
  first.detached = false;
  first.reader = first_reader;
  const RequestId id = station.submit(std::move(first))->id;
  ASSERT_TRUE(submit().cached);
  const auto reader = station.attach(id);
  station.broker->detach(id, first_reader, true);
  station.settle();
  EXPECT_EQ(station.get(id)->state, v1::REQUEST_STATE_RUNNING);
  station.broker->detach(id, reader, true);
  station.settle();
  EXPECT_EQ(station.get(id)->state, v1::REQUEST_STATE_CANCELLED);
}

TEST_F(ReuseTest, ASharedRequestWhoseOtherClientNeverComesDoesNotRunForEver) {
  auto reader = std::make_shared<TestReader>();
  Submission first = make();
  first.detached = false;
  first.reader = reader;
  const RequestId id = station.submit(std::move(first))->id;
  ASSERT_TRUE(submit().cached);
  station.broker->detach(id, reader, true);
  station.settle();
  for (TimeMs waited = 0; waited <= station.config.orphan_wait_ms; waited += 1000) {
    station.clock.advance_ms(1000);
    station.settle();
  }
  EXPECT_EQ(station.get(id)->state, v1::REQUEST_STATE_CANCELLED);
}

TEST_F(ReuseTest, ARequestThatIsSentAgainWithItsKeyOutlivesItsFirstConnection) {
  auto reader = std::make_shared<TestReader>();
  const auto first = station.submit("m", "", "key", reader, /*detached=*/false);
  ASSERT_TRUE(first);
  const auto again = station.submit("m", "", "key", nullptr, /*detached=*/false);
  ASSERT_TRUE(again && again->duplicate);
  station.broker->detach(first->id, reader, true);
  station.settle();
  EXPECT_EQ(station.get(first->id)->state, v1::REQUEST_STATE_RUNNING);
  const auto second = station.attach(first->id);
  station.broker->detach(first->id, second, true);
  station.settle();
  EXPECT_EQ(station.get(first->id)->state, v1::REQUEST_STATE_CANCELLED);
}

TEST_F(ReuseTest, OtherTenantsGetNothingOfIt) {
  submit();
  answer();
  Submission others = make();
  others.envelope.set_tenant("other");
  EXPECT_FALSE(station.submit(std::move(others))->cached);
}

TEST_F(ReuseTest, AnotherModelFileBehindTheNameAnswersAnew) {
  submit();
  answer();
  worker->die();
  station.settle();
  EXPECT_TRUE(submit().cached);  // nobody serves it now
  v1::Hello hello = TestWorker::hello_of("w", "m", 4);
  hello.mutable_models(0)->set_fingerprint("another");
  worker = station.worker(hello);
  EXPECT_FALSE(submit().cached);
  answer();
  EXPECT_TRUE(submit().cached);
}

TEST_F(ReuseTest, RefreshAsksAnewAndKeepsTheNewAnswer) {
  const Submitted first = submit();
  answer();
  const Submitted fresh = submit("k", CacheUse::kRefresh);
  EXPECT_FALSE(fresh.cached);
  answer();
  const Submitted again = submit();
  EXPECT_TRUE(again.cached);
  EXPECT_EQ(again.id, fresh.id);
  EXPECT_NE(again.id, first.id);
}

TEST_F(ReuseTest, WithNoneNothingIsLookedUpAndNothingKept) {
  submit("k", CacheUse::kNone);
  answer();
  EXPECT_FALSE(submit("k", CacheUse::kFull).cached);
  answer();
  EXPECT_FALSE(submit("k", CacheUse::kNone).cached);
}

TEST_F(ReuseTest, AFailedOrCancelledAnswerIsNotGiven) {
  submit();
  worker->fail(0, Code::kTooLarge);
  station.settle();
  const Submitted second = submit();
  EXPECT_FALSE(second.cached);
  ASSERT_TRUE(station.cancel(second.id));
  const Submitted third = submit();
  EXPECT_FALSE(third.cached);
  answer();
  EXPECT_EQ(submit().id, third.id);
}

TEST_F(ReuseTest, AKeyNamesARequestOfItsOwn) {
  const Submitted first = submit();
  answer();
  Submission keyed = make();
  keyed.envelope.set_idempotencykey("key");
  const auto own = station.submit(keyed);
  ASSERT_TRUE(own);
  EXPECT_FALSE(own->cached);
  EXPECT_NE(own->id, first.id);
  answer();
  const auto again = station.submit(keyed);  // by its key
  EXPECT_EQ(again->id, own->id);
  EXPECT_FALSE(again->cached);
  EXPECT_EQ(submit().id, own->id);  // others may have its answer
}

TEST_F(ReuseTest, WhatCanBeGivenAgainIsKnownAfterARestart) {
  const Submitted done = submit();
  answer();
  const Submitted failed = submit("k2");
  worker->fail(1, Code::kTooLarge);
  station.settle();
  const Submitted running = submit("k3");
  worker.reset();
  station.restart();
  worker = station.worker("w", "m", 4);
  EXPECT_EQ(submit().id, done.id);
  EXPECT_NE(submit("k2").id, failed.id);
  EXPECT_EQ(submit("k3").id, running.id);
}

}  // namespace
}  // namespace waystation::broker
