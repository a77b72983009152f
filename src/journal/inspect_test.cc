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

TEST_F(InspectTest, SalvageKeepsEverythingBeforeTheDamage) {
  disk_.flip_bit(segment_path(segments_[2].first.value),
                 kSegmentHeaderBytes + kBatchHeaderBytes + 44 + 60, 1);
  EXPECT_EQ(open_refused().code, Code::kCorruption);
  const LogIndex kept{segments_[2].first};  // its first batch is whole
  const auto status = salvage(disk_, kDir, "/new", out_);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_NE(out_.str().find("kept " + std::to_string(kept.value) + " records"), std::string::npos)
      << out_.str();
  EXPECT_NE(out_.str().find("lost: everything from record " + std::to_string(kept.value + 1)),
            std::string::npos);
  watcher_ = std::make_unique<Watcher>();
  auto o = options(*watcher_);
  o.dir = "/new";
  auto opened = FileJournal::open(std::move(o));
  ASSERT_TRUE(opened) << opened.error().message;
  journal_ = std::move(*opened);
  EXPECT_EQ(all().size(), kept.value);
  EXPECT_EQ(salvage(disk_, kDir, "/new", out_).error().code, Code::kInvalidArgument);
}

TEST_F(InspectTest, SalvageRefusesAFolderInUse) {
  open();
  EXPECT_EQ(salvage(disk_, kDir, "/new", out_).error().code, Code::kBusy);
}

TEST_F(InspectTest, AFolderWithoutAJournalIsSaid) {
  ASSERT_TRUE(disk_.make_dir("/empty"));
  EXPECT_EQ(verify(disk_, "/empty", out_).error().code, Code::kNotFound);
  EXPECT_EQ(verify(disk_, "/nowhere", out_).error().code, Code::kNotFound);
}

}  // namespace
}  // namespace waystation::journal
