#include "message/openai.h"

#include <gtest/gtest.h>

namespace waystation::message {
namespace {

TEST(OpenAiError, Bodies) {
  EXPECT_EQ(openai_error_body({Code::kInvalidArgument, "n must be 1", "n"}),
            R"({"error":{"message":"n must be 1","type":"invalid_request_error","param":"n",)"
            R"("code":"invalid_argument"}})");
  EXPECT_EQ(openai_error_body({Code::kUnauthenticated, "no \"key\""}),
            R"({"error":{"message":"no \"key\"","type":"authentication_error","param":null,)"
            R"("code":"invalid_api_key"}})");
  EXPECT_EQ(openai_error_type(Code::kQueueFull), "rate_limit_error");
  EXPECT_EQ(openai_error_type(Code::kUnavailable), "server_error");
  EXPECT_EQ(openai_error_type(Code::kUpstream), "server_error");
  EXPECT_EQ(openai_error_type(Code::kConversationLocked), "invalid_request_error");
  EXPECT_EQ(openai_error_code(Code::kModelNotFound), "model_not_found");
  EXPECT_EQ(openai_error_code(Code::kContextLengthExceeded), "context_length_exceeded");
}

// What a client sent may be named in a message, and may be anything.
TEST(OpenaiTest, AnErrorIsAlwaysText) {
  EXPECT_EQ(openai_error_object({Code::kNotFound, "no '\xff\xc3'", "\xe4"}),
            R"({"message":"no '??'","type":"invalid_request_error","param":"?","code":"not_found"})");
  EXPECT_NE(openai_error_object({Code::kNotFound, "驿站"}).find("驿站"), std::string::npos);
}

}  // namespace
}  // namespace waystation::message
