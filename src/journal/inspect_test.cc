#include "journal/inspect.h"

#include <sstream>

#include "journal/test_support.h"

namespace waystation::journal {
namespace {

std::string quoted(std::string_view record) {
  return '"' + std::string(record) + '"';
}

class InspectTest : public JournalTest {
 protected:
  void SetUp() override {
    segment_bytes_ = 512;
    open();
    for (int i = 1; i <= 30; ++i)
      append_durably({"r" + std::to_string(i) + std::string(40, '.')}, i);
    segments_ = journal_->segments();
    kill();
  }
  Status run_verify() {
    out_.str("");
    return verify(disk_, kDir, out_);
  }
  std::ostringstream out_;
  std::vector<SegmentInfo> segments_;
};

TEST_F(InspectTest, VerifyPrintsALineForEachSegmentAndAVerdict) {
  EXPECT_TRUE(run_verify());
  const std::string text = out_.str();
  EXPECT_EQ(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')),
            segments_.size() + 1);
  EXPECT_NE(text.find("verdict: sound, records up to 30"), std::string::npos) << text;
}

TEST_F(InspectTest, VerifyNamesTheDamage) {
  disk_.flip_bit(segment_path(segments_[2].first.value), 60, 1);
  const auto status = run_verify();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kCorruption);
  EXPECT_NE(
      out_.str().find("DAMAGED at byte 48 (record " + std::to_string(segments_[2].first.value)),
      std::string::npos)
      << out_.str();
  EXPECT_NE(
      out_.str().find("records up to " + std::to_string(segments_[1].last.value) + " are whole"),
      std::string::npos);
}

// A start refuses it, too.
TEST_F(InspectTest, VerifyNamesACheckpointOfAnotherJournal) {
  CheckpointStore other(disk_, kDir);
  other.set_journal_id(77);
  ASSERT_TRUE(other.write({{5}, "state"}));
  ASSERT_FALSE(run_verify());
  EXPECT_NE(out_.str().find("DAMAGED: it belongs to another journal"), std::string::npos)
      << out_.str();
  EXPECT_EQ(open_refused().code, Code::kCorruption);
}

TEST_F(InspectTest, InspectPrintsRecords) {
  ASSERT_TRUE(inspect(disk_, kDir, {.from = {12}, .limit = 2}, quoted, out_));
  EXPECT_EQ(out_.str(), "{\"index\":12,\"time_ms\":12,\"record\":\"r12" + std::string(40, '.') +
                            "\"}\n" + "{\"index\":13,\"time_ms\":13,\"record\":\"r13" +
                            std::string(40, '.') + "\"}\n");
  out_.str("");
  ASSERT_TRUE(inspect(disk_, kDir, {}, quoted, out_));
  const std::string text = out_.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 30);
}

TEST_F(InspectTest, AFolderWithoutAJournalIsSaid) {
  ASSERT_TRUE(disk_.make_dir("/empty"));
  EXPECT_EQ(verify(disk_, "/empty", out_).error().code, Code::kNotFound);
  EXPECT_EQ(verify(disk_, "/nowhere", out_).error().code, Code::kNotFound);
}

}  // namespace
}  // namespace waystation::journal
