#include "journal/memory_journal.h"

#include <gtest/gtest.h>

#include "journal/test_support.h"

namespace waystation::journal {
namespace {

TEST(MemoryJournalTest, ImmediateReportsBeforeAppendReturns) {
  Watcher watcher;
  MemoryJournal journal({.callbacks = watcher.callbacks()});
  EXPECT_EQ(journal.append({"a", "b"}, 1), LogIndex{1});
  EXPECT_EQ(watcher.durable(), LogIndex{2});
  EXPECT_EQ(*journal.read({2}), "b");
  EXPECT_EQ(journal.next_index(), LogIndex{3});
}

TEST(MemoryJournalTest, SteppedKeepsOnlyTheDurableInACrash) {
  Watcher watcher;
  MemoryJournal journal({.callbacks = watcher.callbacks(), .immediate = false});
  journal.append({"a", "b"}, 1);
  journal.append({"c"}, 2);
  EXPECT_EQ(journal.durable_index(), LogIndex{0});
  EXPECT_EQ(journal.backlog_bytes(), 3u);
  EXPECT_EQ(journal.read({1}).error().code, Code::kNotFound);
  journal.make_durable_up_to({2});
  EXPECT_EQ(watcher.durable(), LogIndex{2});
  ASSERT_TRUE(journal.write_checkpoint({{2}, "state"}));
  EXPECT_FALSE(journal.write_checkpoint({{3}, "state"}));

  Watcher after;
  auto reopened = MemoryJournal::reopen(journal, {.callbacks = after.callbacks()});
  EXPECT_EQ(reopened->next_index(), LogIndex{3});
  EXPECT_EQ((*reopened->newest_checkpoint())->state, "state");
  reopened->append({"other"}, 3);
  EXPECT_EQ(*reopened->read({3}), "other");
}

TEST(MemoryJournalTest, AfterAFailureNothingBecomesDurable) {
  Watcher watcher;
  MemoryJournal journal({.callbacks = watcher.callbacks()});
  journal.append({"a"}, 1);
  journal.fail({Code::kIo, "disk gone"});
  journal.append({"b"}, 1);
  EXPECT_EQ(watcher.durable(), LogIndex{1});
  EXPECT_EQ(watcher.wait_failure().message, "disk gone");
  EXPECT_EQ(*journal.read({1}), "a");
}

TEST(MemoryJournalTest, RetentionFollowsTheSameRuleAsFiles) {
  MemoryJournal journal({.callbacks = {}, .immediate = true, .records_per_segment = 10});
  for (int i = 0; i < 35; ++i) journal.append({std::to_string(i)}, i);
  EXPECT_EQ(journal.segments().size(), 4u);
  ASSERT_TRUE(journal.write_checkpoint({{25}, "s"}));
  ASSERT_TRUE(journal.remove_below({35}));
  EXPECT_TRUE(journal.read({1}));
  ASSERT_TRUE(journal.write_checkpoint({{30}, "s"}));
  ASSERT_TRUE(journal.remove_below({35}));
  EXPECT_EQ(journal.segments().front().first, LogIndex{21});
  EXPECT_FALSE(journal.read({20}));
  EXPECT_EQ(*journal.read({21}), "20");
  EXPECT_FALSE(journal.segments().back().sealed);
}

}  // namespace
}  // namespace waystation::journal
