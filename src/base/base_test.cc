#include <gtest/gtest.h>

#include <csignal>
#include <thread>

#include "base/crash_point.h"
#include "base/ids.h"
#include "base/mailbox.h"
#include "base/result.h"
#include "base/utf8.h"

namespace waystation {
namespace {

TEST(RequestIdTest, TextRoundTripsAndCarriesItsTime) {
  const RequestId id = RequestId::make(1'732'000'000'123, 0x1234, 0x89abcdef01234567);
  const auto parsed = RequestId::parse(id.to_string());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(*parsed, id);
  EXPECT_EQ(parsed->time_ms(), 1'732'000'000'123);
  EXPECT_EQ(id.to_string()[14], '7');  // version
  EXPECT_EQ(RequestId::from_bytes(id.to_bytes()), id);
}

TEST(RequestIdTest, SortsByTime) {
  EXPECT_LT(RequestId::make(1000, ~0ull, ~0ull), RequestId::make(1001, 0, 0));
}

TEST(RequestIdTest, RefusesOtherText) {
  EXPECT_FALSE(RequestId::parse(""));
  EXPECT_FALSE(RequestId::parse("0190f0c2-0000-7000-8000-00000000000g"));
  EXPECT_FALSE(RequestId::parse("0190f0c2000070008000000000000000----"));
}

TEST(ResultTest, EveryNameMapsBack) {
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) {
    const Code code = static_cast<Code>(i);
    EXPECT_EQ(code_from_name(code_name(code)), code);
    EXPECT_GE(http_status(code), 400);
    EXPECT_NE(exit_code(code), 0);
  }
}

TEST(Utf8Test, APrefixEndsBetweenCharacters) {
  const std::string text = "a\u00e9\u6f22\U0001f600";  // 1, 2, 3 and 4 bytes
  const std::size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};
  for (std::size_t bytes = 0; bytes < std::size(whole); ++bytes) {
    EXPECT_EQ(utf8_prefix(text, bytes), text.substr(0, whole[bytes])) << bytes;
  }
  EXPECT_EQ(utf8_prefix("\x80\x80", 1), "");
}

TEST(MailboxTest, RefusesWhenFullAndDeliversInOrder) {
  Mailbox<int> box(2);
  EXPECT_TRUE(box.try_send(1));
  EXPECT_TRUE(box.try_send(2));
  EXPECT_FALSE(box.try_send(3));
  std::vector<int> out;
  EXPECT_TRUE(box.receive_all(out, std::chrono::milliseconds(0)));
  EXPECT_EQ(out, (std::vector<int>{1, 2}));
}

TEST(MailboxTest, ABlockedSenderGoesOnWhenThereIsRoom) {
  Mailbox<int> box(1);
  ASSERT_TRUE(box.try_send(1));
  std::thread sender([&] { EXPECT_TRUE(box.send(2)); });
  std::vector<int> out;
  while (out.size() < 2) box.receive_all(out, std::chrono::seconds(5));
  sender.join();
  EXPECT_EQ(out, (std::vector<int>{1, 2}));
}

TEST(MailboxTest, CloseLetsTheRestBeReceived) {
  Mailbox<int> box(4);
  ASSERT_TRUE(box.try_send(1));
  box.close();
  EXPECT_FALSE(box.try_send(2));
  std::vector<int> out;
  EXPECT_TRUE(box.receive_all(out, std::chrono::seconds(0)));
  EXPECT_EQ(out.size(), 1u);
  EXPECT_FALSE(box.receive_all(out, std::chrono::seconds(0)));
}

TEST(CrashPointTest, EndsTheProcessTheTimeItWasArmedFor) {
  const auto reach = [](int times) {
    if (!arm_crash_point("journal.after_write:3")) std::exit(1);
    for (int i = 0; i < 10; ++i) crash_point(CrashPoint::kJournalBeforeWrite);
    for (int i = 0; i < times; ++i) crash_point(CrashPoint::kJournalAfterWrite);
    std::exit(0);
  };
  EXPECT_EXIT(reach(2), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(reach(3), ::testing::KilledBySignal(SIGKILL), "");
}

TEST(CrashPointTest, EveryPointIsCalledWhatItIs) {
  const auto reach = [](const char* name, CrashPoint point) {
    if (!arm_crash_point(name)) std::exit(1);
    crash_point(point);
    std::exit(0);
  };
  EXPECT_EXIT(reach("journal.before_write", CrashPoint::kJournalBeforeWrite),
              ::testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT(reach("checkpoint.after_rename:1", CrashPoint::kCheckpointAfterRename),
              ::testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT(reach("blob.after_rename:1", CrashPoint::kBlobAfterRename),
              ::testing::KilledBySignal(SIGKILL), "");
}

TEST(CrashPointTest, RefusesOtherTextAndSaysWhatThereIs) {
  const auto unknown = arm_crash_point("jornal.before_write:1");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("did you mean 'journal.before_write'"), std::string::npos);
  EXPECT_NE(unknown.error().message.find("blob.after_rename"), std::string::npos);
  for (const char* text : {"", ":1", "blob.after_rename:", "blob.after_rename:0",
                           "blob.after_rename:-1", "blob.after_rename:1x"}) {
    EXPECT_FALSE(arm_crash_point(text)) << text;
  }
}

}  // namespace
}  // namespace waystation
