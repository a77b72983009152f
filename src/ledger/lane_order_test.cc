// Who goes next: levels by priority and age, and turns of tenants within a level.
#include "ledger/lane_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace waystation::ledger {
namespace {

class LaneOrderTest : public ::testing::Test {
 protected:
  // `accepted` is the request's number; its id says the same.
  LaneHead head(const std::string& tenant, std::uint64_t accepted, std::int32_t priority = 0) {
    const RequestId id = RequestId::make(1, 0, accepted << 8);
    tenants_[id] = tenant;
    return {id, "small", LogIndex{accepted}, priority, tenant};
  }

  // The tenants of the heads, in the order to run them.
  std::string visited() {
    std::string names;
    order_->visit("small", [&](RequestId id) {
      names += tenants_.at(id);
      return true;
    });
    return names;
  }

  std::unique_ptr<LaneOrder> order_ = make_fair_order();
  std::map<RequestId, std::string> tenants_;
};

TEST_F(LaneOrderTest, TenantsTakeTurnsHoweverMuchOneAsksFor) {
  for (std::uint64_t i = 1; i <= 5; ++i) order_->add(head("A", i));
  order_->add(head("B", 6));
  order_->add(head("B", 7));
  EXPECT_EQ(visited(), "ABABAAA");
}

TEST_F(LaneOrderTest, WhoHadHisTurnIsNextWhenTheOthersHadTheirs) {
  for (std::uint64_t i = 1; i <= 3; ++i) order_->add(head("A", i));
  order_->take(head("A", 1));
  order_->add(head("B", 4));
  EXPECT_EQ(visited(), "BAA");
  order_->take(head("B", 4));
  order_->add(head("B", 5));
  EXPECT_EQ(visited(), "ABA");
}

TEST_F(LaneOrderTest, APauseBringsNoCredit) {
  for (std::uint64_t i = 1; i <= 20; ++i) order_->add(head("A", i));
  for (std::uint64_t i = 1; i <= 15; ++i) order_->take(head("A", i));
  for (std::uint64_t i = 21; i <= 25; ++i) order_->add(head("B", i));
  EXPECT_EQ(visited(), "BABABABABA");
}

TEST_F(LaneOrderTest, PriorityGoesBeforeTurns) {
  order_->add(head("A", 1));
  order_->add(head("B", 2, 1));
  order_->add(head("B", 3, 1));
  order_->add(head("A", 4, -1));
  EXPECT_EQ(visited(), "BBAA");
}

TEST_F(LaneOrderTest, AHeadOfLowPriorityIsPassedByABoundedNumberOnly) {
  order_->add(head("A", 1, -1));
  order_->add(head("B", 3 * kRecordsPerStep));
  EXPECT_EQ(visited(), "AB");
  EXPECT_EQ(lane_level(-1, LogIndex{1}), 1);
  EXPECT_EQ(lane_level(1, LogIndex{1}), -1);
  EXPECT_EQ(lane_level(0, LogIndex{kRecordsPerStep}), 1);
}

// While two tenants wait, neither gets more than two turns more than the other (one may be a turn
// ahead when the other comes), whatever comes and goes around them.
TEST_F(LaneOrderTest, RandomTraffic) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::map<std::string, int> waiting;
  std::map<std::string, int> turns;  // since both wait
  std::vector<LaneHead> heads;
  std::uint64_t accepted = 0;
  for (int step = 0; step < 5'000; ++step) {
    const std::string tenant(1, static_cast<char>('A' + random() % 3));
    if (random() % 2 == 0) {
      heads.push_back(head(tenant, ++accepted));
      order_->add(heads.back());
      if (waiting[tenant]++ == 0) turns.clear();
    } else if (!heads.empty()) {
      const bool leaves = random() % 4 == 0;
      const RequestId id = leaves ? heads[random() % heads.size()].id : *order_->next("small");
      const auto at = std::find_if(heads.begin(), heads.end(),
                                   [&](const LaneHead& one) { return one.id == id; });
      if (leaves) {
        order_->remove(*at);
      } else {
        order_->take(*at);
        ++turns[at->tenant];
      }
      if (--waiting[at->tenant] == 0) turns.clear();
      heads.erase(at);
    }
    for (const auto& [one, count] : waiting) {
      for (const auto& [other, other_count] : waiting) {
        if (count == 0 || other_count == 0) continue;
        ASSERT_LE(turns[one] - turns[other], 2);
      }
    }
  }
}

}  // namespace
}  // namespace waystation::ledger
