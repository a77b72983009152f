#include "dispatch/dispatcher.h"

#include <gtest/gtest.h>

namespace waystation::dispatch {
namespace {

constexpr WorkerId kA{1}, kB{2};

TEST(DispatcherTest, TakesTheLeastLoadedAndStopsWithoutCredit) {
  Dispatcher dispatcher;
  dispatcher.add(kA, {"m"}, 1);
  dispatcher.add(kB, {"m"}, 2);
  EXPECT_EQ(dispatcher.pick("m", "", false), kA);
  EXPECT_EQ(dispatcher.pick("m", "", false), kB);
  EXPECT_EQ(dispatcher.pick("m", "", false), kB);
  EXPECT_FALSE(dispatcher.pick("m", "", false));
  EXPECT_FALSE(dispatcher.has_credit("m"));
  dispatcher.release(kA);
  EXPECT_EQ(dispatcher.pick("m", "", false), kA);
}

TEST(DispatcherTest, OnlyWorkersOfTheModel) {
  Dispatcher dispatcher;
  dispatcher.add(kA, {"m"}, 1);
  EXPECT_FALSE(dispatcher.pick("other", "", false));
  EXPECT_TRUE(dispatcher.serves("m"));
  EXPECT_FALSE(dispatcher.serves("other"));
}

TEST(DispatcherTest, AConversationGoesBackToItsWorker) {
  Dispatcher dispatcher;
  dispatcher.add(kA, {"m"}, 4);
  dispatcher.add(kB, {"m"}, 4);
  ASSERT_EQ(dispatcher.pick("m", "", false), kA);
  ASSERT_EQ(dispatcher.pick("m", "talk", false), kB);
  ASSERT_EQ(dispatcher.pick("m", "talk", false), kB);  // although A has less to do
  dispatcher.remove(kB);
  EXPECT_EQ(dispatcher.pick("m", "talk", false), kA);
}

TEST(DispatcherTest, ASuspectRunsAloneAndAWorkerIsEmptiedForIt) {
  Dispatcher dispatcher;
  dispatcher.add(kA, {"m"}, 4);
  dispatcher.add(kB, {"m"}, 4);
  ASSERT_EQ(dispatcher.pick("m", "", false), kA);
  ASSERT_EQ(dispatcher.pick("m", "", false), kB);
  dispatcher.begin_round();
  EXPECT_FALSE(dispatcher.pick("m", "", true));     // nobody is empty: A is kept for it
  EXPECT_EQ(dispatcher.pick("m", "", false), kB);   // others go on elsewhere
  dispatcher.release(kA);
  dispatcher.begin_round();
  EXPECT_EQ(dispatcher.pick("m", "", true), kA);
  EXPECT_EQ(dispatcher.pick("m", "", false), kB);   // nothing beside it
  dispatcher.release(kA);
  EXPECT_EQ(dispatcher.pick("m", "", false), kA);
}

TEST(DispatcherTest, ALeavingWorkerGetsNothing) {
  Dispatcher dispatcher;
  dispatcher.add(kA, {"m"}, 4);
  dispatcher.set_leaving(kA);
  EXPECT_FALSE(dispatcher.pick("m", "", false));
  EXPECT_FALSE(dispatcher.pick("m", "", true));
}

}  // namespace
}  // namespace waystation::dispatch
