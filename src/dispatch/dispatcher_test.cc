#include "dispatch/dispatcher.h"

#include <cstdlib>
#include <map>
#include <string>

#include <gtest/gtest.h>

namespace waystation::dispatch {
namespace {

constexpr WorkerId kA{1}, kB{2};

Offer offer(std::string model, std::uint32_t slots) {
  return {.services = {{.model = std::move(model)}}, .slots = slots};
}

TEST(DispatcherTest, TakesTheLeastLoadedAndStopsWithoutCredit) {
  Dispatcher dispatcher;
  dispatcher.add(kA, "kA", offer("m", 1));
  dispatcher.add(kB, "kB", offer("m", 2));
  EXPECT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = false}), kA);
  EXPECT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = false}), kB);
  EXPECT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = false}), kB);
  EXPECT_FALSE(dispatcher.pick({.model = "m", .lane = "", .alone = false}));
  EXPECT_FALSE(dispatcher.has_credit("m"));
  dispatcher.release(kA);
  EXPECT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = false}), kA);
}

TEST(DispatcherTest, OnlyWorkersOfTheModel) {
  Dispatcher dispatcher;
  dispatcher.add(kA, "kA", offer("m", 1));
  EXPECT_FALSE(dispatcher.pick({.model = "other", .lane = "", .alone = false}));
  EXPECT_TRUE(dispatcher.serves("m"));
  EXPECT_FALSE(dispatcher.serves("other"));
}

TEST(DispatcherTest, AConversationGoesBackToItsWorker) {
  Dispatcher dispatcher;
  dispatcher.add(kA, "kA", offer("m", 4));
  dispatcher.add(kB, "kB", offer("m", 4));
  ASSERT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = false}), kA);
  ASSERT_EQ(dispatcher.pick({.model = "m", .lane = "talk", .alone = false}), kB);
  ASSERT_EQ(dispatcher.pick({.model = "m", .lane = "talk", .alone = false}),
            kB);  // although A has less to do
  dispatcher.remove(kB);
  EXPECT_EQ(dispatcher.pick({.model = "m", .lane = "talk", .alone = false}), kA);
}

// A chat without a conversation: each turn brings the whole history.
TEST(DispatcherTest, AGrownPromptGoesToWhoeverHasItsBeginning) {
  Dispatcher dispatcher;
  dispatcher.add(kA, "kA", offer("m", 32));
  dispatcher.add(kB, "kB", offer("m", 32));
  EXPECT_TRUE(dispatcher.has_choice("m"));
  std::string chat(500, 'x');
  const auto turn = [&](std::string_view scope = "t") {
    return dispatcher.pick({.model = "m", .prefix = prefix_chain(scope, chat)});
  };
  ASSERT_EQ(dispatcher.pick({.model = "m"}), kA);
  ASSERT_EQ(turn(), kB);
  ASSERT_EQ(dispatcher.pick({.model = "m"}), kA);
  ASSERT_EQ(dispatcher.pick({.model = "m"}), kB);
  dispatcher.release(kA);
  chat += std::string(300, 'y');
  EXPECT_EQ(turn(), kB) << "although A has less to do";
  EXPECT_EQ(turn("u"), kA) << "another tenant's";
  dispatcher.release(kA);
  chat += std::string(3000, 'z');
  EXPECT_EQ(turn(), kA) << "what B has is the smaller part, so the load decides";
}

TEST(DispatcherTest, ABeginningThatAllShareDoesNotBringAllToOne) {
  for (const std::uint32_t slots : {4U, 8U, 32U}) {
    Dispatcher dispatcher;
    dispatcher.add(kA, "kA", offer("m", slots));
    dispatcher.add(kB, "kB", offer("m", slots));
    const auto chain = prefix_chain("t", std::string(1000, 's'));
    std::map<std::uint64_t, int> got;
    for (std::uint32_t i = 0; i < slots; ++i) {
      ++got[dispatcher.pick({.model = "m", .prefix = chain})->value];
    }
    EXPECT_LE(std::abs(got[kA.value] - got[kB.value]), static_cast<int>(slots / 8 + 1)) << slots;
  }
}

TEST(DispatcherTest, APrefixHasWholeBlocksOnly) {
  EXPECT_TRUE(prefix_chain("t", std::string(127, 'x')).empty());
  EXPECT_EQ(prefix_chain("t", std::string(128 * 200, 'x')).size(), 128U);
  EXPECT_NE(prefix_chain("t", std::string(128, 'x')), prefix_chain("u", std::string(128, 'x')));
}

TEST(DispatcherTest, ASuspectRunsAloneAndAWorkerIsEmptiedForIt) {
  Dispatcher dispatcher;
  dispatcher.add(kA, "kA", offer("m", 4));
  dispatcher.add(kB, "kB", offer("m", 4));
  ASSERT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = false}), kA);
  ASSERT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = false}), kB);
  dispatcher.begin_round();
  EXPECT_FALSE(dispatcher.pick(
      {.model = "m", .lane = "", .alone = true}));  // nobody is empty: A is kept for it
  EXPECT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = false}),
            kB);  // others go on elsewhere
  dispatcher.release(kA);
  dispatcher.begin_round();
  EXPECT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = true}), kA);
  EXPECT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = false}), kB);  // nothing beside it
  dispatcher.release(kA);
  EXPECT_EQ(dispatcher.pick({.model = "m", .lane = "", .alone = false}), kA);
}

TEST(DispatcherTest, ALeavingWorkerGetsNothing) {
  Dispatcher dispatcher;
  dispatcher.add(kA, "kA", offer("m", 4));
  dispatcher.set_leaving(kA);
  EXPECT_FALSE(dispatcher.pick({.model = "m", .lane = "", .alone = false}));
  EXPECT_FALSE(dispatcher.pick({.model = "m", .lane = "", .alone = true}));
}

TEST(DispatcherTest, ABegunAnswerGoesToWhoCanGoOnFromIt) {
  Dispatcher dispatcher;
  Offer plain = offer("m", 4);
  Offer same = offer("m", 1);
  same.services[0].fingerprint = "sha";
  dispatcher.add(kA, "a", plain);
  EXPECT_EQ(dispatcher.pick({.model = "m", .begun = true, .fingerprint = "sha"}),
            kA);  // will say no
  dispatcher.add(kB, "b", same);
  EXPECT_EQ(dispatcher.pick({.model = "m", .begun = true, .fingerprint = "sha"}), kB);
  EXPECT_FALSE(
      dispatcher.pick({.model = "m", .begun = true, .fingerprint = "sha"}));  // waits for B
  EXPECT_EQ(dispatcher.pick({.model = "m", .begun = true}), kA);  // from the text nobody can
  Offer prefills = offer("m", 1);
  prefills.services[0].prefills = true;
  dispatcher.add(WorkerId{3}, "c", prefills);
  EXPECT_EQ(dispatcher.pick({.model = "m", .begun = true}), WorkerId{3});
}

TEST(DispatcherTest, AHigherRankOnlyWhenNobodyElseIsFree) {
  Dispatcher dispatcher;
  Offer spare = offer("m", 4);
  spare.rank = 1;
  dispatcher.add(kA, "a", spare);
  dispatcher.add(kB, "b", offer("m", 1));
  EXPECT_EQ(dispatcher.pick({.model = "m"}), kB);
  EXPECT_EQ(dispatcher.pick({.model = "m"}), kA);
  dispatcher.release(kB);
  EXPECT_EQ(dispatcher.pick({.model = "m"}), kB);
}

TEST(DispatcherTest, WorkIsSharedByWeight) {
  Dispatcher dispatcher;
  Offer heavy = offer("m", 100);
  heavy.weight = 3;
  Offer light = offer("m", 100);
  light.weight = 1;
  dispatcher.add(kA, "a", heavy);
  dispatcher.add(kB, "b", light);
  int to_heavy = 0;
  for (int i = 0; i < 80; ++i) {
    const auto chosen = dispatcher.pick({.model = "m"});
    to_heavy += chosen == kA;
    dispatcher.release(*chosen);  // one at a time: the load alone would say nothing
  }
  EXPECT_EQ(to_heavy, 60);
}

TEST(DispatcherTest, TheWorkerThatFailedItOnlyWhenItIsTheOnlyOne) {
  Dispatcher dispatcher;
  dispatcher.add(kA, "a", offer("m", 4));
  EXPECT_EQ(dispatcher.pick({.model = "m", .avoid = "a"}), kA);
  dispatcher.add(kB, "b", offer("m", 1));
  EXPECT_EQ(dispatcher.pick({.model = "m", .avoid = "a"}), kB);
}

}  // namespace
}  // namespace waystation::dispatch
