// Which worker gets which request: fallbacks, tasks, priorities, failed workers, begun answers.
#include <gtest/gtest.h>

#include "broker/testing.h"

namespace waystation::broker {
namespace {

using testing::Station;
using testing::TestReader;
using testing::TestWorker;

Config with_fallbacks() {
  Config config;
  config.fallbacks = {{"large", {"medium", "m"}}};
  return config;
}

TEST(RoutingTest, AModelThatNobodyServesFallsBackAndComesBack) {
  Station station(true, with_fallbacks());
  EXPECT_FALSE(station.submit("larger"));
  auto small = station.worker("w1", "m", 1);
  const auto first = station.submit("large");
  ASSERT_TRUE(first);
  ASSERT_EQ(small->assigned.size(), 1u);
  EXPECT_EQ(small->assigned[0].model(), "m");
  EXPECT_EQ(small->assigned[0].envelope().model(), "large");
  EXPECT_EQ(station.get(first->id)->attempts[0].model, "m");
  EXPECT_EQ(station.get(first->id)->model, "large");
  const auto waiting = station.submit("large");  // for the fallback's slot
  auto medium = station.worker("w2", "medium", 1);
  ASSERT_EQ(medium->assigned.size(), 1u);  // the first fallback that is served
  EXPECT_EQ(medium->assigned[0].envelope().id(), waiting->id.to_string());
  auto large = station.worker("w3", "large", 2);
  small->finish(0);
  station.settle();
  const auto after = station.submit("large");
  ASSERT_TRUE(after);
  ASSERT_EQ(large->assigned.size(), 1u);
  EXPECT_EQ(large->assigned[0].model(), "large");
  EXPECT_EQ(station.get(after->id)->attempts[0].model, "");
  EXPECT_EQ(small->assigned.size(), 1u);
}

TEST(RoutingTest, AFallbackThatIsOnlyExpectedIsWaitedFor) {
  Station station(true, with_fallbacks());
  const auto waiting = station.submit("large");  // "m" is expected
  ASSERT_TRUE(waiting);
  EXPECT_EQ(station.get(waiting->id)->state, v1::REQUEST_STATE_QUEUED);
  auto small = station.worker("w", "m", 1);
  EXPECT_EQ(small->assigned.size(), 1u);
}

TEST(RoutingTest, AFallbackThatDoesNotDoTheTaskIsNone) {
  Config config;
  config.fallbacks = {{"large", {"m", "other"}}};
  Station station(true, config);
  auto chat = station.worker("w1", "m");
  const auto submit = [&] {
    Submission submission = Station::submission_of("large");
    submission.envelope.set_type("waystation.embedding.request.v1");
    return station.submit(std::move(submission));
  };
  const auto refused = submit();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kModelNotFound);
  v1::Hello hello = TestWorker::hello_of("w2", "other");
  hello.mutable_models(0)->add_tasks("embedding");
  auto embedder = station.worker(hello);
  ASSERT_TRUE(submit());
  EXPECT_TRUE(chat->assigned.empty());
  EXPECT_EQ(embedder->assigned.size(), 1u);
}

TEST(RoutingTest, AHeadWhoseTaskNoFallbackDoesHoldsUpNobody) {
  Config config;
  config.fallbacks = {{"large", {"m"}}};
  config.expected_models = {"large"};
  Station station(true, config);
  const auto submit = [&](const char* type) {
    Submission submission = Station::submission_of("large");
    submission.envelope.set_type(type);
    return station.submit(std::move(submission));
  };
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(submit("waystation.embedding.request.v1"));
  const auto first = submit("waystation.chat.request.v1");
  const auto second = submit("waystation.chat.request.v1");
  ASSERT_TRUE(first && second);
  auto chat = station.worker("w1", "m", 1);
  ASSERT_EQ(chat->assigned.size(), 1u);
  EXPECT_EQ(chat->assigned[0].envelope().id(), first->id.to_string());
  chat->finish(0);
  station.settle();
  ASSERT_EQ(chat->assigned.size(), 2u);
  EXPECT_EQ(chat->assigned[1].envelope().id(), second->id.to_string());
  v1::Hello hello = TestWorker::hello_of("w2", "large", 8);  // they still wait for their own
  hello.mutable_models(0)->add_tasks("embedding");
  EXPECT_EQ(station.worker(hello)->assigned.size(), 3u);
}

TEST(RoutingTest, AnAnswerGoesOnByTheFallbackFromItsText) {
  Station station(true, with_fallbacks());
  auto large = station.worker("w1", "large", 1);
  auto reader = std::make_shared<TestReader>();
  const auto id = station.submit("large", "", "", reader)->id;
  large->produce(0, 2);
  station.settle();
  v1::Hello hello = TestWorker::hello_of("w2", "m");
  hello.mutable_models(0)->set_fingerprint("another");
  hello.mutable_models(0)->set_prefills(true);
  auto small = station.worker(hello);
  large->die();
  station.settle();
  ASSERT_EQ(small->assigned.size(), 1u);
  EXPECT_EQ(small->assigned[0].resume(0).token_ids_size(), 0);
  EXPECT_EQ(small->assigned[0].resume(0).text(), "t0 t1 ");
  small->produce(0, 1);
  small->finish(0);
  station.settle();
  EXPECT_EQ(reader->text, "t0 t1 t0 ");
  const auto view = station.get(id);
  EXPECT_EQ(view->attempts[1].continuation, "prefill");
  EXPECT_EQ(view->attempts[1].prefilled_bytes, 6u);
  EXPECT_EQ(view->attempts[1].regenerated_tokens, 2u);
  EXPECT_EQ(view->usage.completion_tokens(), 3u);
}

TEST(RoutingTest, ATaskThatAModelDoesNotDoIsRefusedNamingThoseThatDo) {
  Station station;
  auto chat = station.worker("w1", "m");
  v1::Hello hello = TestWorker::hello_of("w2", "embedder");
  hello.mutable_models(0)->add_tasks("embedding");
  auto submit = [&](const char* model, const char* type) {
    Submission submission = Station::submission_of(model);
    submission.envelope.set_type(type);
    return station.submit(std::move(submission));
  };
  auto refused = submit("m", "waystation.embedding.request.v1");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
  EXPECT_EQ(refused.error().param, "model");
  EXPECT_NE(refused.error().message.find("no model that is served now does"), std::string::npos);
  auto embedder = station.worker(hello);
  refused = submit("m", "waystation.embedding.request.v1");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("these do: embedder"), std::string::npos);
  refused = submit("embedder", "waystation.chat.request.v1");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("these do: m"), std::string::npos);
  EXPECT_TRUE(submit("embedder", "waystation.embedding.request.v1"));
  EXPECT_TRUE(submit("m", "waystation.completion.request.v1"));
  EXPECT_TRUE(submit("m", "waystation.chat.request.v1"));
  std::vector<ModelView> models;
  ASSERT_TRUE(station.broker->models(
      [&](Result<std::vector<ModelView>> got) { models = std::move(*got); }));
  station.settle();
  ASSERT_EQ(models.size(), 2u);
  EXPECT_EQ(models[0].tasks, (std::vector<std::string>{"embedding"}));
  EXPECT_EQ(models[1].tasks, (std::vector<std::string>{"chat", "completion"}));
}

TEST(RoutingTest, AHigherPriorityIsGivenOutFirst) {
  Station station;
  auto submit = [&](std::int32_t priority) {
    Submission submission = Station::submission_of("m");
    submission.envelope.set_priority(priority);
    return station.submit(std::move(submission))->id.to_string();
  };
  const std::string flex = submit(-1);
  const std::string normal = submit(0);
  const std::string urgent = submit(1);
  EXPECT_EQ(station.get(*RequestId::parse(urgent))->queue_position, 1u);
  EXPECT_EQ(station.get(*RequestId::parse(urgent))->priority, 1);
  auto worker = station.worker("w", "m", 1);
  for (std::size_t i = 0; i < 3; ++i) {
    ASSERT_EQ(worker->assigned.size(), i + 1);
    EXPECT_EQ(worker->assigned[i].envelope().id(), (std::vector{urgent, normal, flex}[i]));
    worker->finish(i);
    station.settle();
  }
}

TEST(RoutingTest, AfterAnEngineErrorAnotherWorkerTriesIfThereIsOne) {
  Station station;
  auto bad = station.worker("bad", "m", 2);
  const auto id = station.submit("m")->id;
  bad->fail(0, Code::kInternal);
  station.settle();
  ASSERT_EQ(bad->assigned.size(), 2u);  // it is the only one
  auto good = station.worker("good", "m", 1);
  bad->fail(1, Code::kInternal);
  station.settle();
  EXPECT_EQ(bad->assigned.size(), 2u);
  ASSERT_EQ(good->assigned.size(), 1u);
  good->finish(0);
  station.settle();
  EXPECT_EQ(station.get(id)->state, v1::REQUEST_STATE_COMPLETED);
}

TEST(RoutingTest, ABegunAnswerWaitsForAWorkerThatCanGoOnFromIt) {
  Station station;
  auto first = station.worker("w1", "m", 1);
  const auto id = station.submit("m")->id;
  first->produce(0, 2);
  station.settle();
  auto second = station.worker("w2", "m", 1);  // the same model; takes other work meanwhile
  ASSERT_TRUE(station.submit("m"));
  ASSERT_EQ(second->assigned.size(), 1u);
  v1::Hello hello = TestWorker::hello_of("w3", "m", 2);
  hello.mutable_models(0)->set_fingerprint("another");
  auto other = station.worker(hello);
  first->die();
  station.settle();
  EXPECT_TRUE(other->assigned.empty());
  const auto plain = station.submit("m");  // is not held up by it
  ASSERT_TRUE(plain);
  EXPECT_EQ(other->assigned.size(), 1u);
  second->finish(0);
  station.settle();
  ASSERT_EQ(second->assigned.size(), 2u);
  EXPECT_EQ(second->assigned[1].envelope().id(), id.to_string());
  EXPECT_EQ(station.get(id)->attempts[1].continuation, "exact");
}

TEST(RoutingTest, TextWithoutIdsIsGivenToAnotherWhenItsMakerFailedIt) {
  Station station;
  auto first = station.worker("far-0", "m", 1);
  const auto id = station.submit("m")->id;
  v1::Output half;
  *half.mutable_fence() = first->assigned[0].fence();
  half.set_started(true);
  half.set_text("half");
  first->send(half);
  v1::Hello hello = TestWorker::hello_of("far-1", "m", 1);
  hello.mutable_models(0)->set_fingerprint("another");
  auto second = station.worker(hello);
  first->fail(0, Code::kUnavailable);
  station.settle();
  EXPECT_EQ(first->assigned.size(), 1u);
  ASSERT_EQ(second->assigned.size(), 1u);  // nobody can go on from it; who broke it isn't asked
  EXPECT_EQ(second->assigned[0].resume(0).text(), "half");
  EXPECT_EQ(station.get(id)->attempts[1].continuation, "prefill");
}

TEST(RoutingTest, AHigherRankGetsWorkWhenTheLowerIsFull) {
  Station station;
  v1::Hello hello = TestWorker::hello_of("spare", "m", 4);
  hello.set_rank(1);
  auto spare = station.worker(hello);
  auto local = station.worker("local", "m", 1);
  ASSERT_TRUE(station.submit("m"));
  EXPECT_EQ(local->assigned.size(), 1u);
  ASSERT_TRUE(station.submit("m"));
  EXPECT_EQ(spare->assigned.size(), 1u);
}

// ---- Several choices --------------------------------------------------------------------------

TEST(RoutingTest, AWorkerKeepsItsSlotUntilTheLastChoiceHasFinished) {
  Station station;
  auto worker = station.worker("w", "m", 1);
  Submission submission = Station::submission_of("m");
  submission.choices = 2;
  auto reader = std::make_shared<TestReader>();
  submission.reader = reader;
  const auto id = station.submit(std::move(submission))->id;
  ASSERT_TRUE(station.submit("m"));
  EXPECT_EQ(worker->assigned[0].choices(), 2u);
  v1::Output output;
  *output.mutable_fence() = worker->assigned[0].fence();
  output.set_started(true);
  output.set_choice(1);
  output.set_finish_reason("stop");
  output.set_more(true);
  worker->send(output);
  station.settle();
  EXPECT_EQ(worker->assigned.size(), 1u);
  EXPECT_FALSE(reader->ending);
  output.set_started(false);
  output.set_choice(0);
  output.set_more(false);
  worker->send(output);
  station.settle();
  EXPECT_EQ(worker->assigned.size(), 2u);
  ASSERT_TRUE(reader->ending);
  EXPECT_EQ(reader->next, 4u);  // two starts, two finishes
  EXPECT_EQ(station.get(id)->choices, 2u);
}

TEST(RoutingTest, AWorkerThatBreaksAChoicesRulesIsToldToStop) {
  Station station;
  auto worker = station.worker("w", "m", 1);
  ASSERT_TRUE(station.submit("m"));
  v1::Output output;
  *output.mutable_fence() = worker->assigned[0].fence();
  output.set_started(true);
  output.set_choice(5);
  output.set_text("x");
  worker->send(output);
  station.settle();
  ASSERT_EQ(worker->cancelled.size(), 1u);
  EXPECT_EQ(worker->assigned.size(), 1u);  // its slot is taken until it says that it has dropped it
  v1::Output dropped;
  *dropped.mutable_fence() = worker->assigned[0].fence();
  dropped.set_dropped(true);
  worker->send(dropped);
  station.settle();
  EXPECT_EQ(worker->assigned.size(), 2u);
}

}  // namespace
}  // namespace waystation::broker
