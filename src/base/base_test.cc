#include <gtest/gtest.h>

#include <thread>

#include "base/ids.h"
#include "base/mailbox.h"
#include "base/result.h"

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

}  // namespace
}  // namespace waystation
