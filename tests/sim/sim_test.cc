// The simulator as a test: recorded seeds, fresh ones, and the exhaustive cut. WAYSTATION_SIM_SEEDS
// says how many fresh ones, WAYSTATION_SEED where they begin.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "base/log.h"
#include "sim/world.h"

namespace waystation::sim {
namespace {

// Silent: what the code under test logs in a run is expected.
struct Quiet : testing::Test {
  static void SetUpTestSuite() { spdlog::set_level(spdlog::level::off); }
};

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::stoull(value);
}

// What to print when a run broke something.
std::string story_of(std::uint64_t seed, const Outcome& outcome, const std::string& options = "") {
  std::ostringstream story;
  story << "seed " << seed << " breaks " << outcome.violation->invariant << ": "
        << outcome.violation->what << "\n";
  for (const std::string& line : outcome.last_lines) story << "  " << line << "\n";
  story << "replay: " << WS_SIMULATE << " --seed " << seed << options << " --trace\n";
  return story.str();
}

class SimTest : public Quiet {};

TEST_F(SimTest, TheSameSeedIsTheSameHistory) {
  const std::uint64_t first = std::random_device{}();
  for (std::uint64_t seed = first; seed < first + 10; ++seed) {
    const Outcome once = World(seed, {}).run();
    const Outcome again = World(seed, {}).run();
    ASSERT_EQ(once.history_hash, again.history_hash) << "seed " << seed;
    ASSERT_EQ(once.steps, again.steps) << "seed " << seed;
  }
}

TEST_F(SimTest, RecordedSeeds) {
  std::ifstream file(WS_SIM_SEEDS);
  ASSERT_TRUE(file) << WS_SIM_SEEDS;
  int count = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const std::uint64_t seed = std::stoull(line);
    const Outcome outcome = World(seed, {}).run();
    EXPECT_FALSE(outcome.violation) << story_of(seed, outcome);
    ++count;
  }
  EXPECT_GT(count, 0);
}

TEST_F(SimTest, FreshSeeds) {
  const std::uint64_t first = from_environment("WAYSTATION_SEED", std::random_device{}());
  const std::uint64_t count = from_environment("WAYSTATION_SIM_SEEDS", 500);
  std::printf("seeds from %llu, so many: %llu\n", static_cast<unsigned long long>(first),
              static_cast<unsigned long long>(count));
  std::uint64_t restarts = 0;
  std::uint64_t requests = 0;
  std::uint64_t requeued = 0;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const Outcome outcome = World(seed, {}).run();
    ASSERT_FALSE(outcome.violation) << story_of(seed, outcome);
    restarts += static_cast<std::uint64_t>(outcome.restarts);
    requests += outcome.requests;
    requeued += outcome.requeued;
  }
  if (count < 100) return;
  EXPECT_GT(restarts, count);  // or nothing much was tested
  EXPECT_GT(requests, 2 * count);
  EXPECT_GT(requeued, count / 20);
}

// Every prefix of the disk's changes in a few busy runs, and of what isn't synced by then some of
// the subsets that may survive.
TEST_F(SimTest, ExhaustiveCut) {
  std::uint64_t changes = 0;
  for (std::uint64_t seed = std::random_device{}(); changes < 1500; ++seed) {
    const Outcome outcome = World(seed, {.power_cuts_a_change = 3}).run();
    ASSERT_FALSE(outcome.violation) << story_of(seed, outcome, " --cuts 3");
    changes += outcome.changes;
  }
}

}  // namespace
}  // namespace waystation::sim
