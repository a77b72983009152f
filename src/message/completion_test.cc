#include "message/completion.h"

#include <gtest/gtest.h>

namespace waystation::message {
namespace {

Result<CompletionRequest> parse(const std::string& fields) {
  return parse_completion_request(R"({"model":"m",)" + fields + "}");
}

using Tokens = std::vector<std::uint32_t>;

TEST(CompletionRequest, PromptInAllItsForms) {
  auto request = parse(R"("prompt":"hi")");
  ASSERT_TRUE(request) << request.error().message;
  ASSERT_EQ(request->prompts.size(), 1u);
  EXPECT_EQ(std::get<std::string>(request->prompts[0]), "hi");
  EXPECT_EQ(request->choices, 1u);
  EXPECT_EQ(request->max_tokens, 16u) << "OpenAI's default";
  EXPECT_FALSE(request->logprobs);

  EXPECT_EQ(std::get<std::string>(parse(R"("prompt":"")")->prompts[0]), "");

  request = parse(R"("prompt":["a","b"],"n":3)");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(std::get<std::string>(request->prompts[1]), "b");
  EXPECT_EQ(request->n, 3u);
  EXPECT_EQ(request->choices, 6u);

  request = parse(R"("prompt":[1,2,3])");
  ASSERT_TRUE(request) << request.error().message;
  ASSERT_EQ(request->prompts.size(), 1u);
  EXPECT_EQ(std::get<Tokens>(request->prompts[0]), (Tokens{1, 2, 3}));

  request = parse(R"("prompt":[[1],[2,3]])");
  ASSERT_TRUE(request) << request.error().message;
  ASSERT_EQ(request->prompts.size(), 2u);
  EXPECT_EQ(std::get<Tokens>(request->prompts[1]), (Tokens{2, 3}));
}

TEST(CompletionRequest, EveryFieldIsRead) {
  const auto request = parse(
      R"("prompt":"x","echo":true,"logprobs":5,"n":2,"best_of":2,"max_tokens":7,"temperature":0,
         "stop":["a"],"seed":3,"logit_bias":{"1":2},"stream":true,"suffix":"",
         "stream_options":{"include_usage":true},"service_tier":"fast")");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_TRUE(request->echo);
  EXPECT_EQ(request->logprobs, 5u);
  EXPECT_EQ(request->max_tokens, 7u);
  EXPECT_EQ(request->temperature, 0);
  EXPECT_EQ(request->stop, std::vector<std::string>{"a"});
  EXPECT_EQ(request->seed, 3u);
  EXPECT_EQ(request->logit_bias.size(), 1u);
  EXPECT_TRUE(request->stream && request->include_usage);
  EXPECT_EQ(request->service_tier, "priority");
  EXPECT_EQ(parse(R"("prompt":"x","logprobs":0)")->logprobs, 0u) << "the taken tokens' alone";
}

TEST(CompletionRequest, BadInputNamesItsField) {
  std::string many = R"("prompt":["x")";
  for (int i = 0; i < 64; ++i) many += R"(,"x")";
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"("n":1)", "prompt"},
      {R"("prompt":5)", "prompt"},
      {R"("prompt":[])", "prompt"},
      {R"("prompt":[[]])", "prompt[0]"},
      {R"("prompt":[true])", "prompt[0]"},
      {R"("prompt":["a",1])", "prompt[1]"},
      {R"("prompt":[1,"a"])", "prompt[1]"},
      {R"("prompt":[1,-1])", "prompt[1]"},
      {R"("prompt":[1,1.5])", "prompt[1]"},
      {R"("prompt":[[1],[18446744073709551615]])", "prompt[1][0]"},
      {many + "]", "prompt"},
      {R"("prompt":["a","b","c","d","e"],"n":16)", "n"},
      {R"("prompt":"x","best_of":2)", "best_of"},
      {R"("prompt":"x","suffix":"y")", "suffix"},
      {R"("prompt":"x","logprobs":6)", "logprobs"},
      {R"("prompt":"x","logprobs":true)", "logprobs"},
      {R"("prompt":"x","echo":1)", "echo"},
      {R"("prompt":"x","max_tokens":0)", "max_tokens"},
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
