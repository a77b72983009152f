#include "cache/exact_index.h"

#include <gtest/gtest.h>

namespace waystation::cache {
namespace {

RequestId id_of(std::uint64_t n) { return RequestId::make(1, n, n); }

TEST(ExactIndexTest, TheNewestRequestOfAKeyIsFound) {
  ExactIndex index(10);
  EXPECT_FALSE(index.find("a"));
  index.put("a", id_of(1));
  index.put("b", id_of(2));
  index.put("a", id_of(3));
  EXPECT_EQ(index.find("a"), id_of(3));
  EXPECT_EQ(index.find("b"), id_of(2));
  EXPECT_EQ(index.size(), 2u);
}

TEST(ExactIndexTest, TheLeastRecentlyUsedGoesFirst) {
  ExactIndex index(2);
  index.put("a", id_of(1));
  index.put("b", id_of(2));
  ASSERT_TRUE(index.find("a"));
  index.put("c", id_of(3));
  EXPECT_TRUE(index.find("a"));
  EXPECT_FALSE(index.find("b"));
  EXPECT_TRUE(index.find("c"));
}

TEST(ExactIndexTest, WithoutRoomNothingIsKept) {
  ExactIndex index(0);
  index.put("a", id_of(1));
  EXPECT_FALSE(index.find("a"));
}

}  // namespace
}  // namespace waystation::cache
