// Dead letters through restarts, checkpoints and carrying over.
#include "broker/dead_letters.h"

#include <gtest/gtest.h>

#include "broker/testing.h"

namespace waystation::broker {
namespace {

using testing::Station;

class DeadLettersTest : public ::testing::Test {
 protected:
  explicit DeadLettersTest(Config config = {}) : station_(true, std::move(config)) {}

  Submission submission(const std::string& conversation, const std::string& body = "{}") {
    Submission made = Station::submission_of("m");
    made.envelope.set_partitionkey(conversation);
    made.envelope.set_data(body);
    made.block_on_dead = true;
    return made;
  }
  RequestId ask(const std::string& conversation, const std::string& body = "{}") {
    const auto submitted = station_.submit(submission(conversation, body));
    EXPECT_TRUE(submitted);
    return submitted->id;
  }
  // Lets workers die under the next request until it is dead.
  void kill(RequestId id) {
    for (int i = 0; i < 3; ++i) {
      auto worker = station_.worker("victim", "m");
      ASSERT_EQ(worker->assigned.size(), 1u);
      worker->die();
      station_.settle();
    }
    ASSERT_EQ(station_.get(id)->state, v1::REQUEST_STATE_DEAD);
  }
  template <typename T, typename Call>
  Result<T> answer(Call call) {
    auto got = std::make_shared<Result<T>>(Error{Code::kInternal, "not answered"});
    EXPECT_TRUE(call([got](Result<T> result) { *got = std::move(result); }));
    station_.settle();
    return *got;
  }
  Result<Submitted> requeue(RequestId id, const std::string& tenant = "default") {
    return answer<Submitted>([&](auto done) { return station_.broker->requeue(tenant, id, done); });
  }
  Result<RequestView> discard(RequestId id, const std::string& tenant = "default") {
    return answer<RequestView>(
        [&](auto done) { return station_.broker->discard(tenant, id, done); });
  }
  std::vector<RequestView> list(const std::string& tenant = "default") {
    return answer<std::vector<RequestView>>([&](auto done) {
             return station_.broker->dead_letters(tenant, std::nullopt, 10, done);
           })
        .value();
  }

  Station station_;
};

TEST_F(DeadLettersTest, ABlockedLaneIsRequeuedAfterARestart) {
  const RequestId first = ask("talk", "first body");
  const RequestId second = ask("talk");
  kill(first);
  station_.restart();
  auto worker = station_.worker("w", "m", 4);
  EXPECT_TRUE(worker->assigned.empty());
  EXPECT_TRUE(station_.get(first)->blocks_lane);
  const auto made = requeue(first);
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_EQ(worker->assigned.size(), 1u);
  EXPECT_EQ(worker->assigned[0].envelope().id(), made->id.to_string());
  EXPECT_EQ(worker->assigned[0].envelope().data(), "first body");
  EXPECT_EQ(worker->assigned[0].envelope().causationid(), first.to_string());
  station_.restart();  // in the middle of it
  const auto again = requeue(first);
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->duplicate);
  EXPECT_EQ(again->id, made->id);
  auto other = station_.worker("w2", "m", 4);
  ASSERT_EQ(other->assigned.size(), 1u);
  EXPECT_EQ(other->assigned[0].envelope().id(), made->id.to_string());
  other->produce(0, 1);
  other->finish(0);
  station_.settle();
  ASSERT_EQ(other->assigned.size(), 2u);
  EXPECT_EQ(other->assigned[1].envelope().id(), second.to_string());
  EXPECT_EQ(station_.get(made->id)->state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(station_.get(made->id)->requeue_of, first);
  EXPECT_EQ(station_.attach(made->id)->text, "t0 ");
}

TEST_F(DeadLettersTest, AnotherServersDefaultChangesNoLane) {
  Submission unsaid = submission("talk");
  unsaid.block_on_dead.reset();
  station_.config.block_on_dead = true;
  station_.restart();
  const RequestId first = station_.submit(std::move(unsaid))->id;
  const RequestId second = ask("talk");
  station_.config.block_on_dead = false;
  station_.restart();
  kill(first);
  auto worker = station_.worker("w", "m");
  EXPECT_TRUE(worker->assigned.empty());
  const auto view = discard(first);
  ASSERT_TRUE(view);
  EXPECT_TRUE(view->discarded);
  EXPECT_FALSE(view->blocks_lane);
  ASSERT_EQ(worker->assigned.size(), 1u);
  EXPECT_EQ(worker->assigned[0].envelope().id(), second.to_string());
  EXPECT_TRUE(discard(first)->discarded);
}

TEST_F(DeadLettersTest, OthersSeeNothingOfThem) {
  const RequestId id = ask("talk");
  kill(id);
  EXPECT_EQ(requeue(id, "stranger").error().code, Code::kNotFound);
  EXPECT_EQ(discard(id, "stranger").error().code, Code::kNotFound);
  EXPECT_TRUE(list("stranger").empty());
  const auto letters = list();
  ASSERT_EQ(letters.size(), 1u);
  EXPECT_EQ(letters[0].id, id);
  EXPECT_TRUE(letters[0].blocks_lane);
  EXPECT_EQ(letters[0].attempts.size(), 3u);
}

TEST_F(DeadLettersTest, TwoAtOnceMakeOneRequest) {
  const RequestId id = ask("");
  kill(id);
  std::vector<Result<Submitted>> answers;
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(station_.broker->requeue(
        "default", id, [&](Result<Submitted> made) { answers.push_back(std::move(made)); }));
  }
  station_.settle();
  ASSERT_EQ(answers.size(), 2u);
  ASSERT_TRUE(answers[0] && answers[1]);
  EXPECT_EQ(answers[0]->id, answers[1]->id);
  EXPECT_NE(answers[0]->duplicate, answers[1]->duplicate);
}

TEST_F(DeadLettersTest, ALetterThatWasDealtWithMeanwhileIsNotRequeued) {
  const RequestId id = ask("talk");
  kill(id);
  std::optional<Result<Submitted>> made;
  ASSERT_TRUE(station_.broker->requeue(
      "default", id, [&](Result<Submitted> result) { made = std::move(result); }));
  station_.broker->turn(std::chrono::milliseconds(0));  // the body is being read
  ASSERT_FALSE(made);
  ASSERT_TRUE(station_.broker->discard("default", id, [](Result<RequestView>) {}));
  station_.settle();
  ASSERT_TRUE(made);
  EXPECT_EQ(made->error().code, Code::kConflict);
}

TEST_F(DeadLettersTest, NothingIsAnsweredBeforeItIsDurable) {
  Station station(/*immediately_durable=*/false);
  station.sync();
  std::optional<Result<Submitted>> submitted;
  Submission asked = submission("talk");
  ASSERT_TRUE(station.broker->submit(
      std::move(asked), [&](Result<Submitted> result) { submitted = std::move(result); }));
  station.sync();
  ASSERT_TRUE(submitted);
  for (int i = 0; i < 3; ++i) {
    auto worker = station.worker("victim", "m");
    station.sync();
    worker->die();
    station.sync();
  }
  std::optional<Result<Submitted>> made;
  ASSERT_TRUE(station.broker->requeue("default", (*submitted)->id,
                                      [&](Result<Submitted> result) { made = std::move(result); }));
  station.settle();
  EXPECT_FALSE(made);
  station.restart();  // what nobody was told is gone
  station.sync();
  EXPECT_TRUE(station.get((*submitted)->id)->blocks_lane);
}

// Small segments, so that the oldest ones are to go at once.
class CarriedLettersTest : public DeadLettersTest {
 protected:
  CarriedLettersTest() : DeadLettersTest(small()) {}
  static Config small() {
    Config config;
    config.limits.retain_ms = 60'000;
    config.limits.idempotency_ttl_ms = 60'000;
    return config;
  }
  // Time passes, and others' requests with it.
  void grow_old() {
    for (int i = 0; i < 200; ++i) {
      const RequestId id = station_.submit("m")->id;
      (void)station_.cancel(id);
      station_.clock.advance_ms(1500);
      station_.settle();
    }
  }
};

TEST_F(CarriedLettersTest, WhatBlocksOutlivesItsSegmentAndCanBeRequeued) {
  const RequestId id = ask("talk", "the body");
  const LogIndex accepted{station_.journal->next_index().value - 1};
  kill(id);
  grow_old();
  ASSERT_GT(station_.journal->segments().front().first, accepted);  // its acceptance is gone
  station_.restart();
  EXPECT_TRUE(station_.get(id)->blocks_lane);
  auto worker = station_.worker("w", "m");
  ASSERT_TRUE(worker->assigned.empty());
  const auto made = requeue(id);
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_EQ(worker->assigned.size(), 1u);
  EXPECT_EQ(worker->assigned[0].envelope().data(), "the body");
}

TEST_F(CarriedLettersTest, WhatBlocksNothingIsForgotten) {
  Submission skips = submission("talk");
  skips.block_on_dead = false;
  const RequestId id = station_.submit(std::move(skips))->id;
  kill(id);
  grow_old();
  EXPECT_EQ(requeue(id).error().code, Code::kGone);
  EXPECT_EQ(discard(id).error().code, Code::kGone);
}

}  // namespace
}  // namespace waystation::broker
