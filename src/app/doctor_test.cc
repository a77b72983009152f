#include "app/doctor.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>

#include "app/doctor_system.h"
#include "journal/posix_file_system.h"

namespace waystation::app {
namespace {

constexpr std::uint64_t kGiB = 1u << 30;
constexpr TimeMs kNowMs = 1'800'000'000'000;

TEST(Doctor, ACpuWithoutWhatTheEngineNeedsIsBad) {
  const Finding bad = judge_cpu({"avx2", "fma"}, {"avx2", "fma", "avx512f"});
  EXPECT_EQ(bad.level, Level::kBad);
  EXPECT_NE(bad.what.find("lacks avx512f"), std::string::npos);
  EXPECT_EQ(judge_cpu({"avx2", "fma", "more"}, {"avx2", "fma"}).level, Level::kGood);
  EXPECT_EQ(judge_cpu({"avx2"}, {}).level, Level::kNote);
}

TEST(Doctor, AmxThatIsOnlyAnnouncedIsBadForWhoUsesIt) {
  EXPECT_EQ(judge_amx(Amx::kIllegal, true).level, Level::kBad);
  EXPECT_EQ(judge_amx(Amx::kIllegal, false).level, Level::kGood);
  EXPECT_EQ(judge_amx(Amx::kWorks, true).level, Level::kGood);
}

TEST(Doctor, MemoryIsComparedWithTheModelsAndTheirContexts) {
  const ModelNeed model{.name = "m", .file_bytes = 4 * kGiB, .cache_bytes = kGiB, .workers = 2};
  EXPECT_EQ(judge_memory({model}, 8 * kGiB).level, Level::kGood);
  const Finding caches = judge_memory({model}, 6 * kGiB);
  EXPECT_EQ(caches.level, Level::kBad);
  EXPECT_NE(caches.mend.find("--slots"), std::string::npos);
  const Finding file = judge_memory({model}, 4 * kGiB);
  EXPECT_EQ(file.level, Level::kBad);
  EXPECT_NE(file.mend.find("smaller model"), std::string::npos);
}

TEST(Doctor, SlowSyncsAreToldAsStepsOfAStream) {
  EXPECT_EQ(judge_sync(0.4).level, Level::kGood);
  EXPECT_EQ(judge_sync(20).level, Level::kNote);
  EXPECT_EQ(judge_sync(80).level, Level::kBad);
  EXPECT_NE(judge_sync(20).what.find("at most 50 steps a second"), std::string::npos);
}

TEST(Doctor, RoomFilesAndClock) {
  EXPECT_EQ(judge_room("/d", 100u << 20, kGiB).level, Level::kBad);
  EXPECT_EQ(judge_room("/d", kGiB, 8 * kGiB).level, Level::kNote);
  EXPECT_EQ(judge_room("/d", 9 * kGiB, 8 * kGiB).level, Level::kGood);
  EXPECT_EQ(judge_open_files(100, 100, 10).level, Level::kBad);
  EXPECT_EQ(judge_open_files(1024, 100'000, 10'000).level, Level::kNote);
  EXPECT_EQ(judge_open_files(65'536, 65'536, 10'000).level, Level::kGood);
  EXPECT_EQ(judge_clock(1000, 0, true).level, Level::kBad);
  EXPECT_EQ(judge_clock(kNowMs, kNowMs + 90'000, true).level, Level::kBad);
  EXPECT_EQ(judge_clock(kNowMs, kNowMs, false).level, Level::kNote);
  EXPECT_EQ(judge_clock(kNowMs, kNowMs, true).level, Level::kGood);
}

TEST(Doctor, TextAndJsonSayTheSame) {
  const std::vector<Finding> findings{{"cpu", Level::kGood, "fast"},
                                      {"disk", Level::kBad, "slow \"one\"", "buy another"}};
  EXPECT_FALSE(all_well(findings));
  EXPECT_EQ(as_text(findings),
            "good  cpu   fast\n"
            "BAD   disk  slow \"one\"\n"
            "            -> buy another\n"
            "verdict: 1 to mend before a server can run well\n");
  const auto json = boost::json::parse(as_json(findings)).as_object();
  EXPECT_FALSE(json.at("well").as_bool());
  EXPECT_EQ(json.at("findings").at(1).at("mend").as_string(), "buy another");
  EXPECT_TRUE(json.at("findings").at(0).at("mend").is_null());
}

// What is looked at is really there.
TEST(DoctorSystem, LooksAtThisMachine) {
  EXPECT_FALSE(cpu_features().empty());
  EXPECT_GT(available_memory_bytes(), 0u);
  std::string folder = std::filesystem::temp_directory_path() / "doctor-test-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  EXPECT_EQ(existing_part_of(folder + "/not/there"), folder);
  const auto sync = measure_sync_ms(folder);
  ASSERT_TRUE(sync) << sync.error().message;
  EXPECT_GT(*sync, 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder));  // nothing is left behind
  EXPECT_GT(free_bytes_of(folder).value_or(0), 0u);
  EXPECT_FALSE(measure_sync_ms(folder + "/nowhere"));

  EXPECT_FALSE(lock_holder(folder + "/LOCK"));
  journal::PosixFileSystem files;
  {
    const auto lock = files.lock(folder + "/LOCK");
    ASSERT_TRUE(lock);
    EXPECT_EQ(lock_holder(folder + "/LOCK"), ::getpid());
  }
  EXPECT_FALSE(lock_holder(folder + "/LOCK"));
  EXPECT_NE(command_of(::getpid()).find("doctor_test"), std::string::npos);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace waystation::app
