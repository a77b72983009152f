// From a lease to the worker: what waits for the disk, what is composed, what happens meanwhile.
#include <gtest/gtest.h>

#include "broker/testing.h"

namespace waystation::broker {
namespace {

using testing::Station;
using testing::TestReader;
using testing::TestWorker;

// Keeps what it is asked until the test answers.
class FakeComposer final : public Composer {
 public:
  void compose(v1::Envelope envelope, Callback<std::string> done) override {
    asked.push_back(std::move(envelope));
    done_.push_back(std::move(done));
  }
  void answer(std::size_t index, Result<std::string> data) { done_.at(index)(std::move(data)); }

  std::vector<v1::Envelope> asked;

 private:
  std::vector<Callback<std::string>> done_;
};

v1::Hello careful_hello(const std::string& name, std::uint32_t slots = 1) {
  v1::Hello hello = TestWorker::hello_of(name, "m", slots);
  hello.set_wait_durable(true);
  return hello;
}

RequestId id_of(const v1::Envelope& envelope) {
  return *RequestId::parse(envelope.id());
}

// ---- Workers that wait for the disk -----------------------------------------------------------

TEST(AssigningTest, AWorkerThatCostsGetsItsWorkOnlyWhenTheLeaseIsDurable) {
  Station station(/*immediately_durable=*/false);
  station.sync();
  auto careful = station.worker(careful_hello("upstream"));
  ASSERT_TRUE(careful->welcome);
  (void)station.submit("m");
  EXPECT_TRUE(careful->assigned.empty());
  station.journal->make_all_durable();
  station.settle();
  ASSERT_EQ(careful->assigned.size(), 1u);
  // After a crash nothing is run twice that the server did not know to be running.
  const RequestId id = id_of(careful->assigned[0].envelope());
  station.restart();
  station.sync();
  Result<RequestView> view = station.get(id);
  ASSERT_TRUE(view);
  EXPECT_EQ(view->attempts.size(), 1u);
  EXPECT_EQ(view->attempts[0].outcome, "server_restart");
}

TEST(AssigningTest, WhatIsCancelledBetweenLeaseAndSendingIsNotSent) {
  Station station(/*immediately_durable=*/false);
  station.sync();
  auto careful = station.worker(careful_hello("upstream"));
  Submission submission = Station::submission_of("m");
  const RequestId id = RequestId::make(station.clock.wall_ms(), 1, 2);
  submission.envelope.set_id(id.to_string());
  (void)station.submit(std::move(submission));
  (void)station.cancel(id);
  EXPECT_TRUE(careful->assigned.empty());
  station.sync();
  EXPECT_TRUE(careful->assigned.empty());
  EXPECT_TRUE(careful->cancelled.empty());
  EXPECT_EQ(station.get(id)->state, v1::REQUEST_STATE_CANCELLED);
  // Its slot is free again.
  (void)station.submit("m");
  station.sync();
  EXPECT_EQ(careful->assigned.size(), 1u);
}

TEST(AssigningTest, AWorkerThatDiesBeforeItWasGivenAnythingHasFailedNothing) {
  Station station(/*immediately_durable=*/false);
  station.sync();
  RequestId id = RequestId::make(station.clock.wall_ms(), 1, 2);
  Submission submission = Station::submission_of("m");
  submission.envelope.set_id(id.to_string());
  (void)station.submit(std::move(submission));
  station.sync();
  for (int i = 0; i < 4; ++i) {
    auto careful = station.worker(careful_hello("upstream", 2));
    station.settle();
    EXPECT_TRUE(careful->assigned.empty());  // leased, and not durable yet
    careful->die();
    station.settle();
    station.sync();
  }
  const auto view = station.get(id);
  ASSERT_TRUE(view);
  EXPECT_EQ(view->state, v1::REQUEST_STATE_QUEUED);
  EXPECT_EQ(view->attempts.size(), 4u);
  EXPECT_EQ(view->attempts[0].outcome, "returned");
  // And it is no suspect: it may run beside others.
  auto worker = station.worker("w", "m", 2);
  (void)station.submit("m");
  EXPECT_EQ(worker->assigned.size(), 2u);
}

// ---- Composed requests ------------------------------------------------------------------------

class ComposingTest : public ::testing::Test {
 protected:
  RequestId submit(const std::string& conversation = "talk") {
    Submission submission = Station::submission_of("m");
    submission.envelope.set_partitionkey(conversation);
    submission.envelope.set_data("new words");
    submission.compose = true;
    return station.submit(std::move(submission))->id;
  }
  void answer(std::size_t index, Result<std::string> data) {
    composer.answer(index, std::move(data));
    station.settle();
  }
  v1::RequestState state(RequestId id) { return station.get(id)->state; }

  FakeComposer composer;
  Station station{true, Config{}, &composer};
};

TEST_F(ComposingTest, TheComposedDataReachesTheWorkerInItsTurn) {
  auto worker = station.worker("w", "m", 2);
  const RequestId first = submit();
  const RequestId second = submit();
  ASSERT_EQ(composer.asked.size(), 1u);  // the second's turn hasn't come
  EXPECT_EQ(id_of(composer.asked[0]), first);
  EXPECT_EQ(composer.asked[0].data(), "new words");
  EXPECT_TRUE(worker->assigned.empty());
  answer(0, "old and new words");
  ASSERT_EQ(worker->assigned.size(), 1u);
  EXPECT_EQ(worker->assigned[0].envelope().data(), "old and new words");
  worker->finish(0);
  station.settle();
  ASSERT_EQ(composer.asked.size(), 2u);
  EXPECT_EQ(id_of(composer.asked[1]), second);
}

TEST_F(ComposingTest, AnErrorOfTheComposerFailsTheRequestWithItsCode) {
  auto worker = station.worker("w", "m", 1);
  const RequestId id = submit();
  answer(0, Error{Code::kNotFound, "the conversation was deleted", "conversation"});
  const auto view = station.get(id);
  EXPECT_EQ(view->state, v1::REQUEST_STATE_FAILED);
  EXPECT_EQ(view->failure.code(), "not_found");
  EXPECT_EQ(view->failure.message(), "the conversation was deleted");
  EXPECT_EQ(view->failure.param(), "conversation");
  EXPECT_TRUE(worker->assigned.empty());
  ASSERT_TRUE(station.submit("m"));  // its slot is free
  EXPECT_EQ(worker->assigned.size(), 1u);
}

TEST_F(ComposingTest, AnErrorThatMayPassIsTriedAgain) {
  auto worker = station.worker("w", "m", 1);
  const RequestId id = submit();
  answer(0, Error{Code::kIo, "the disk hiccuped"});
  EXPECT_EQ(state(id), v1::REQUEST_STATE_RUNNING);
  ASSERT_EQ(composer.asked.size(), 2u);
  answer(1, "words");
  EXPECT_EQ(worker->assigned.size(), 1u);
}

TEST_F(ComposingTest, WithoutAComposerSuchRequestsFail) {
  station.composer = nullptr;
  station.restart();
  auto worker = station.worker("w", "m", 1);
  const RequestId id = submit();
  EXPECT_EQ(state(id), v1::REQUEST_STATE_FAILED);
  EXPECT_EQ(station.get(id)->failure.code(), "invalid_argument");
  ASSERT_TRUE(station.submit("m"));
  EXPECT_EQ(worker->assigned.size(), 1u);
}

TEST_F(ComposingTest, AWorkerLostWhileComposingHasFailedNothing) {
  const RequestId id = submit();
  for (std::size_t i = 0; i < 4; ++i) {
    auto worker = station.worker("w", "m", 1);
    ASSERT_EQ(composer.asked.size(), i + 1);
    worker->die();
    station.settle();
    EXPECT_EQ(state(id), v1::REQUEST_STATE_QUEUED);
    answer(i, "too late");
  }
  EXPECT_EQ(station.get(id)->attempts[0].outcome, "returned");
  auto worker = station.worker("w", "m", 1);
  answer(4, "words");
  ASSERT_EQ(worker->assigned.size(), 1u);
  EXPECT_EQ(worker->assigned[0].fence().attempt(), 5u);
}

TEST_F(ComposingTest, OnlyWhatWasNotSentIsForgivenWhenAWorkerDies) {
  auto worker = station.worker("w", "m", 2);
  const RequestId sent = station.submit("m")->id;
  const RequestId composing = submit();
  ASSERT_EQ(worker->assigned.size(), 1u);
  worker->die();
  station.settle();
  EXPECT_EQ(station.get(sent)->attempts[0].outcome, "worker_lost");
  EXPECT_EQ(station.get(composing)->attempts[0].outcome, "returned");
}

TEST_F(ComposingTest, AWorkerThatLeavesWhileComposingIsGivenNothing) {
  auto leaver = station.worker("w1", "m", 1);
  const RequestId id = submit();
  leaver->leave();
  station.settle();
  auto stayer = station.worker("w2", "m", 1);
  answer(0, "words");
  EXPECT_TRUE(leaver->assigned.empty());
  ASSERT_EQ(composer.asked.size(), 2u);  // asked again on the next attempt
  EXPECT_EQ(id_of(composer.asked[1]), id);
  answer(1, "words");
  ASSERT_EQ(stayer->assigned.size(), 1u);
  EXPECT_EQ(stayer->assigned[0].envelope().data(), "words");
  EXPECT_EQ(station.get(id)->attempts[0].outcome, "returned");
}

TEST_F(ComposingTest, WhatIsCancelledWhileComposingIsNotSent) {
  auto worker = station.worker("w", "m", 1);
  const RequestId id = submit();
  ASSERT_TRUE(station.cancel(id));
  const RequestId after = submit();  // its lane is free, the slot not yet
  EXPECT_EQ(composer.asked.size(), 1u);
  answer(0, "words");
  EXPECT_TRUE(worker->assigned.empty());
  EXPECT_TRUE(worker->cancelled.empty());
  ASSERT_EQ(composer.asked.size(), 2u);
  EXPECT_EQ(id_of(composer.asked[1]), after);
  answer(1, Error{Code::kNotFound, "gone"});
  EXPECT_EQ(state(id), v1::REQUEST_STATE_CANCELLED);
  EXPECT_EQ(state(after), v1::REQUEST_STATE_FAILED);
}

TEST_F(ComposingTest, ItIsAskedAgainAfterAFailedAttemptAndAfterARestart) {
  RequestId id;
  {
    auto worker = station.worker("w", "m", 1);
    id = submit();
    answer(0, "words");
    worker->produce(0, 2);
    station.settle();
    worker->die();
    station.settle();
    auto second = station.worker("w2", "m", 1);
    ASSERT_EQ(composer.asked.size(), 2u);
    EXPECT_EQ(composer.asked[1].data(), "new words");  // as accepted
    answer(1, "words");
    ASSERT_EQ(second->assigned.size(), 1u);
    EXPECT_EQ(second->assigned[0].resume(0).text(), "t0 t1 ");
  }
  station.restart();
  auto worker = station.worker("w3", "m", 1);
  ASSERT_EQ(composer.asked.size(), 3u);
  EXPECT_EQ(id_of(composer.asked[2]), id);
  answer(2, "words");
  ASSERT_EQ(worker->assigned.size(), 1u);
  EXPECT_EQ(worker->assigned[0].envelope().data(), "words");
  EXPECT_EQ(worker->assigned[0].resume(0).token_ids_size(), 2);
}

TEST_F(ComposingTest, ALockedTurnIsRefusedWhileAnotherComposes) {
  auto worker = station.worker("w", "m", 1);
  submit();
  Submission submission = Station::submission_of("m");
  submission.envelope.set_partitionkey("talk");
  submission.locked = true;
  const auto refused = station.submit(std::move(submission));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kConversationLocked);
}

}  // namespace
}  // namespace waystation::broker
