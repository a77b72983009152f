#include "message/embedding.h"

#include <gtest/gtest.h>

namespace waystation::message {
namespace {

Result<EmbeddingRequest> parse(const std::string& fields) {
  return parse_embedding_request(R"({"model":"m",)" + fields + "}");
}

TEST(EmbeddingRequest, InputsAndFormats) {
  auto request = parse(R"("input":["a","b"],"dimensions":64,"encoding_format":"base64")");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->model, "m");
  ASSERT_EQ(request->inputs.size(), 2u);
  EXPECT_EQ(std::get<std::string>(request->inputs[1]), "b");
  EXPECT_EQ(request->dimensions, 64u);
  EXPECT_TRUE(request->base64);

  request = parse(R"("input":[5,6],"encoding_format":"float")");
  ASSERT_TRUE(request) << request.error().message;
  ASSERT_EQ(request->inputs.size(), 1u);
  EXPECT_EQ(std::get<std::vector<std::uint32_t>>(request->inputs[0]).size(), 2u);
  EXPECT_FALSE(request->base64 || request->dimensions);
}

TEST(EmbeddingRequest, BadInputNamesItsField) {
  std::string many = R"("input":["x")";
  for (std::size_t i = 0; i < kEmbeddingInputsMax; ++i) many += R"(,"x")";
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"("user":"u")", "input"},
      {R"("input":"")", "input"},
      {R"("input":["a",""])", "input[1]"},
      {R"("input":[])", "input"},
      {R"("input":{})", "input"},
      {many + "]", "input"},
      {R"("input":"x","dimensions":0)", "dimensions"},
      {R"("input":"x","dimensions":"8")", "dimensions"},
      {R"("input":"x","encoding_format":"hex")", "encoding_format"},
      {R"("input":"x","user":1)", "user"},
  };
  for (const auto& [fields, param] : cases) {
    const auto request = parse(fields);
    ASSERT_FALSE(request) << fields;
    EXPECT_EQ(request.error().code, Code::kInvalidArgument);
    EXPECT_EQ(request.error().param, param) << request.error().message;
  }
}

}  // namespace
}  // namespace waystation::message
