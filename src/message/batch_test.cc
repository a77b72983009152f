#include "message/batch.h"

#include <gtest/gtest.h>

namespace waystation::message {
namespace {

TEST(BatchRequest, ReadsAll) {
  const auto batch = parse_batch_request(
      R"({"input_file_id":"file-1","endpoint":"/v1/embeddings","completion_window":"24h",
          "metadata":{"a":"b"},"output_expires_after":{"anchor":"created_at","seconds":7200}})");
  ASSERT_TRUE(batch) << batch.error().message;
  EXPECT_EQ(batch->input_file_id, "file-1");
  EXPECT_EQ(batch->endpoint, "/v1/embeddings");
  EXPECT_EQ(batch->metadata, R"({"a":"b"})");
  EXPECT_EQ(batch->output_expires_after_s, 7200);
}

void expect_refused(const std::string& body, const std::string& param) {
  const auto batch = parse_batch_request(body);
  ASSERT_FALSE(batch) << body;
  EXPECT_EQ(batch.error().code, Code::kInvalidArgument);
  EXPECT_EQ(batch.error().param, param) << batch.error().message;
}

TEST(BatchRequest, RefusesWhatIsWrong) {
  expect_refused("", "");
  expect_refused("[]", "");
  expect_refused(R"({"endpoint":"/x","completion_window":"24h"})", "input_file_id");
  expect_refused(R"({"input_file_id":7,"endpoint":"/x","completion_window":"24h"})",
                 "input_file_id");
  expect_refused(R"({"input_file_id":"f","completion_window":"24h"})", "endpoint");
  expect_refused(R"({"input_file_id":"f","endpoint":"/x"})", "completion_window");
  expect_refused(R"({"input_file_id":"f","endpoint":"/x","completion_window":"1h"})",
                 "completion_window");
  const std::string good = R"({"input_file_id":"f","endpoint":"/x","completion_window":"24h",)";
  expect_refused(good + R"("output_expires_after":{"anchor":"created_at","seconds":1}})",
                 "output_expires_after.seconds");
  expect_refused(good + R"("output_expires_after":{"anchor":"now","seconds":7200}})",
                 "output_expires_after.anchor");
  expect_refused(good + R"("output_expires_after":5})", "output_expires_after");
}

TEST(BatchLine, ReadsALine) {
  const auto line = parse_batch_line(
      R"({"custom_id":"a","method":"POST","url":"/v1/x","body":{"model":"m","n":[1,2.5]}})",
      "/v1/x");
  ASSERT_TRUE(line) << line.error().message;
  EXPECT_EQ(line->custom_id, "a");
  EXPECT_EQ(line->model, "m");
  EXPECT_EQ(line->body, R"({"model":"m","n":[1,2.5E0]})");
}

TEST(BatchLine, SaysWhatIsWrong) {
  const auto code = [](const std::string& line) {
    const auto parsed = parse_batch_line(line, "/v1/x");
    return parsed ? "fine" : parsed.error().code + "/" + parsed.error().param;
  };
  EXPECT_EQ(code(""), "invalid_json_line/");
  EXPECT_EQ(code("{"), "invalid_json_line/");
  EXPECT_EQ(code("[1]"), "invalid_json_line/");
  EXPECT_EQ(code("{}"), "missing_required_parameter/custom_id");
  EXPECT_EQ(code(R"({"custom_id":7})"), "invalid_type/custom_id");
  EXPECT_EQ(code(R"({"custom_id":""})"), "missing_required_parameter/custom_id");
  EXPECT_EQ(code("{\"custom_id\":\"" + std::string(600, 'x') + "\"}"),
            "invalid_custom_id/custom_id");
  EXPECT_EQ(code(R"({"custom_id":"a"})"), "missing_required_parameter/method");
  EXPECT_EQ(code(R"({"custom_id":"a","method":"GET"})"), "invalid_method/method");
  EXPECT_EQ(code(R"({"custom_id":"a","method":"POST"})"), "missing_required_parameter/url");
  EXPECT_EQ(code(R"({"custom_id":"a","method":"POST","url":"/v1/y"})"), "invalid_url/url");
  EXPECT_EQ(code(R"({"custom_id":"a","method":"POST","url":"/v1/x"})"),
            "missing_required_parameter/body");
  EXPECT_EQ(code(R"({"custom_id":"a","method":"POST","url":"/v1/x","body":"s"})"),
            "invalid_type/body");
  EXPECT_EQ(parse_batch_line(R"({"custom_id":"a","method":"POST","url":"/v1/x","body":3})", "/v1/x")
                .error()
                .message,
            "body must be an object, not a number");
}

}  // namespace
}  // namespace waystation::message
