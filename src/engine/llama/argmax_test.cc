#include "engine/llama/argmax.h"

#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace waystation::engine {
namespace {

std::size_t simply(const std::vector<float>& values) {
  return static_cast<std::size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

// Sizes around whole blocks, and few different values, so that there are many equal ones.
TEST(Argmax, IsTheFirstOfTheLargest) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (const std::size_t size : {1, 2, 15, 16, 17, 511, 512, 513, 1023, 1024, 1025, 5000, 49152}) {
    for (const int range : {1, 3, 1000, 1'000'000}) {
      std::uniform_int_distribution<int> pick(-range, range);
      for (int round = 0; round < 20; ++round) {
        std::vector<float> values(size);
        for (float& value : values) value = static_cast<float>(pick(random));
        ASSERT_EQ(argmax(values), simply(values)) << size << " values up to " << range;
      }
    }
  }
}

TEST(Argmax, FindsEveryPosition) {
  std::vector<float> values(1500, -2.5F);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = -1;
    ASSERT_EQ(argmax(values), i);
    values[i] = -2.5F;
  }
}

TEST(Argmax, TakesInfinities) {
  std::vector<float> values(1000, -std::numeric_limits<float>::infinity());
  EXPECT_EQ(argmax(values), 0u);
  values[777] = std::numeric_limits<float>::lowest();
  EXPECT_EQ(argmax(values), 777u);
  values[900] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(argmax(values), 900u);
}

}  // namespace
}  // namespace waystation::engine
