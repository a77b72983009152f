#include "upstream/verdict.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace waystation::upstream {
namespace {

constexpr TimeMs kNow = 784'111'777'000;  // Sun, 06 Nov 1994 08:49:37 GMT

Verdict judged(int status, std::string_view body = "", std::string_view retry_after = "",
               std::string_view retry_after_ms = "") {
  return judge("far", {status, retry_after, retry_after_ms, body}, kNow);
}

TEST(Verdict, TheRequestsOwnFaultKeepsMessageAndParam) {
  const auto verdict = judged(
      400,
      R"({"error":{"message":"'top_p' is too big","type":"invalid_request_error","param":"top_p","code":null}})");
  EXPECT_EQ(verdict.error.code, Code::kInvalidArgument);
  EXPECT_EQ(verdict.error.message, "'top_p' is too big");
  EXPECT_EQ(verdict.error.param, "top_p");
  EXPECT_FALSE(verdict.counts);
  EXPECT_FALSE(verdict.opens);
  EXPECT_EQ(verdict.pause_ms, 0);
}

TEST(Verdict, APromptThatIsTooLong) {
  for (const char* body :
       {R"({"error":{"message":"too long","code":"context_length_exceeded"}})",
        R"({"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}})",
        R"({"object":"error","message":"This model's maximum context length is 10","code":400})"}) {
    EXPECT_EQ(judged(400, body).error.code, Code::kContextLengthExceeded) << body;
  }
}

TEST(Verdict, OtherRefusals) {
  EXPECT_EQ(judged(422, R"({"error":"no"})").error.message, "no");
  EXPECT_EQ(judged(413).error.code, Code::kTooLarge);
  EXPECT_EQ(judged(404, R"({"error":{"message":"no such model"}})").error.code,
            Code::kModelNotFound);
  const auto page = judged(404, "<html>");
  EXPECT_EQ(page.error.code, Code::kUpstream);
  EXPECT_NE(page.error.message.find("check its url"), std::string::npos);
  EXPECT_EQ(judged(301).error.code, Code::kUpstream);
  EXPECT_TRUE(judged(301).counts);
}

TEST(Verdict, ARefusedKeyOpensTheCircuitAndShowsNothingOfIt) {
  for (const int status : {401, 403}) {
    const auto verdict =
        judged(status, R"({"error":{"message":"Incorrect API key provided: sk-abc"}})");
    EXPECT_EQ(verdict.error.code, Code::kUpstream);
    EXPECT_TRUE(verdict.opens);
    EXPECT_EQ(verdict.error.message.find("sk-abc"), std::string::npos);
  }
  EXPECT_TRUE(judged(429, R"({"error":{"code":"insufficient_quota","message":"pay"}})").opens);
  EXPECT_TRUE(judged(402).opens);
}

TEST(Verdict, TooManyRequestsIsAPause) {
  EXPECT_EQ(judged(429, "", "7").pause_ms, 7000);
  EXPECT_EQ(judged(429, "", "0.25").pause_ms, 250);
  EXPECT_EQ(judged(429, "", "7", "150").pause_ms, 150);
  EXPECT_EQ(judged(429).pause_ms, kPauseDefaultMs);
  EXPECT_EQ(judged(429, "", "nonsense").pause_ms, kPauseDefaultMs);
  EXPECT_EQ(judged(429, "", "99999999").pause_ms, kPauseMaxMs);
  EXPECT_EQ(judged(503, "", "3").pause_ms, 3000);
  EXPECT_FALSE(judged(429).counts);
}

TEST(Verdict, AServersFaultCounts) {
  for (const int status : {500, 502, 503, 504, 599, 408, 409}) {
    const auto verdict = judged(status, R"({"error":{"message":"broken"}})");
    EXPECT_EQ(verdict.error.code, Code::kUnavailable) << status;
    EXPECT_TRUE(verdict.counts);
    EXPECT_NE(verdict.error.message.find("broken"), std::string::npos);
  }
}

TEST(Verdict, ALoopIsFinalAndSaysItsWay) {
  const auto verdict =
      judged(508, R"({"error":{"message":"far-b: it came back","code":"loop_detected"}})");
  EXPECT_EQ(verdict.error.code, Code::kLoop);
  EXPECT_EQ(verdict.error.message, "far: far-b: it came back");
  EXPECT_FALSE(verdict.counts);
  EXPECT_EQ(judged(508).error.message, "far: far answered with status 508");
}

TEST(Verdict, RetryAfterAsADate) {
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1994 08:49:47 GMT", kNow), 10'000);
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1994 08:49:00 GMT", kNow), 0);
  EXPECT_EQ(parse_retry_after("", kNow), 0);
  EXPECT_EQ(parse_retry_after("-5", kNow), 0);
}

TEST(Verdict, ALongMessageIsCutBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 1500; ++i) text += "你";
  const auto verdict = judged(400, "{\"error\":{\"message\":\"" + text + "\"}}");
  EXPECT_LT(verdict.error.message.size(), 2100u);
  EXPECT_EQ((verdict.error.message.size() - 3) % 3, 0u);  // whole characters, then the dots
}

TEST(Verdict, ErrorsInMidStream) {
  EXPECT_EQ(error_sent(boost::json::parse(R"({"message":"x","code":400})")).code,
            Code::kInvalidArgument);
  EXPECT_EQ(error_sent(boost::json::parse(R"({"message":"x","type":"server_error"})")).code,
            Code::kUnavailable);
  EXPECT_EQ(error_sent(boost::json::parse("7")).code, Code::kUnavailable);
  EXPECT_EQ(error_sent(boost::json::parse("7")).message, "reported an error");
  EXPECT_EQ(error_sent(boost::json::parse(R"({"message":"x"})")).message, "reported an error: x");
  EXPECT_EQ(error_sent(boost::json::parse(R"({"message":"x","code":"loop_detected"})")).code,
            Code::kLoop);
}

}  // namespace
}  // namespace waystation::upstream
