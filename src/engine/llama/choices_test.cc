// Several choices, raw prompts, logprobs, biases, answers begun by others: with the real small
// model.
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/llama/testing_fixture.h"

namespace waystation::engine {
namespace {

std::string raw(const std::string& prompt, const std::string& more) {
  return R"({"model":"m","prompt":)" + prompt + "," + more + "}";
}

v1::Assign completion(const std::string& request, const std::string& json) {
  v1::Assign made = assign(request, json);
  made.mutable_envelope()->set_type(std::string(message::kCompletionRequestType));
  return made;
}

using Choices = LlamaEngine;

TEST_F(Choices, EachIsWhatTheOnlyOneWouldBe) {
  const Got alone = run(body(kPrompts[0], kMore));
  // More choices than slots: some wait inside.
  const auto all = run_all({assign("r", body(kPrompts[0], kMore + R"(,"n":11)"))});
  ASSERT_EQ(all.size(), 11u);
  int last = 0;
  for (const auto& [key, got] : all) {
    EXPECT_EQ(got.text, alone.text) << key;
    EXPECT_EQ(got.finish_reason, "length");
    last += got.more ? 0 : 1;
  }
  EXPECT_EQ(last, 1) << "one choice tells that the request is over";
  EXPECT_EQ(all.at("r").prompt_tokens, alone.prompt_tokens);
}

TEST_F(Choices, DifferWithTemperatureAndResumeOneByOne) {
  const v1::Assign whole =
      assign("r", body(kPrompts[0], R"("temperature":1,"seed":3,"max_tokens":16,"n":3)"));
  const auto all = run_all({whole});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_NE(all.at("r").text, all.at("r/1").text);
  EXPECT_NE(all.at("r/1").text, all.at("r/2").text);
  v1::Assign again = whole;
  *again.add_resume() = all.at("r").progress_after[4];
  *again.add_resume() = all.at("r/1").progress();  // it had ended
  again.mutable_resume(1)->set_finish_reason("length");
  again.add_resume();  // it hadn't begun
  const auto rest = run_all({again});
  EXPECT_FALSE(rest.contains("r/1"));
  EXPECT_EQ(all.at("r").progress_after[4].text() + rest.at("r").text, all.at("r").text);
  EXPECT_EQ(rest.at("r/2").text, all.at("r/2").text);
  EXPECT_EQ(int{rest.at("r").more} + int{rest.at("r/2").more}, 1);
}

TEST_F(Choices, AllDoneIsToldOnce) {
  v1::Assign over = assign("r", body(kPrompts[0], R"("temperature":0,"max_tokens":4,"n":2)"));
  const auto all = run_all({over});
  for (const char* key : {"r", "r/1"}) {
    *over.add_resume() = all.at(key).progress();
    over.mutable_resume()->rbegin()->set_finish_reason("length");
  }
  const auto rest = run_all({over});
  EXPECT_EQ(rest.at("r/1").finish_reason, "length");
  EXPECT_EQ(rest.at("r/1").text, "");
}

TEST_F(Choices, CancelDropsThoseThatWaitToo) {
  got_.clear();
  const v1::Assign many = assign("r", body(kPrompts[0], kMore + R"(,"n":12)"));
  engine_->start(many);
  step();
  engine_->cancel(many.fence());
  step();
  EXPECT_TRUE(got_["r"].dropped);
  EXPECT_TRUE(engine_->idle());
}

TEST_F(Choices, RawPromptsAsTextOrTokensWithEcho) {
  const std::string more = R"("temperature":0,"max_tokens":8)";
  const Got text = run(completion("r", raw(R"("Once upon a time")", more)));
  EXPECT_EQ(text.finish_reason, "length");
  EXPECT_LT(text.prompt_tokens, 8u) << "no chat template";
  const Got echo = run(completion("r", raw(R"("Once upon a time")", more + R"(,"echo":true)")));
  EXPECT_EQ(echo.text, "Once upon a time" + text.text);
  const v1::Assign whole = completion("r", raw(R"("Once upon a time")", more + R"(,"echo":true)"));
  const Got rest = run(resume(whole, echo, 3));
  EXPECT_EQ(echo.text.substr(0, echo.text_bytes_after[2]) + rest.text, echo.text);

  const auto two = run_all({completion(
      "r", raw(R"(["Once upon a time","The capital of France is"])", more + R"(,"n":2)"))});
  ASSERT_EQ(two.size(), 4u);
  EXPECT_EQ(two.at("r").text, text.text);
  EXPECT_EQ(two.at("r/1").text, text.text);
  EXPECT_EQ(two.at("r/2").text, two.at("r/3").text);
  EXPECT_NE(two.at("r/2").text, text.text);
  EXPECT_GT(two.at("r").prompt_tokens, text.prompt_tokens);

  EXPECT_EQ(run(completion("r", raw("[1,2,3]", more))).prompt_tokens, 3u);
  const Got any = run(completion("r", raw(R"("")", more)));  // from the beginning of text
  EXPECT_EQ(any.prompt_tokens, 1u);
  EXPECT_NE(any.text, "");
  const Got unknown = run(completion("r", raw("[99999999]", more)));
  EXPECT_EQ(unknown.failure_code, "invalid_argument");
  EXPECT_EQ(unknown.failure_param, "prompt");
}

TEST_F(Choices, LogprobsAreOfTheModelItself) {
  const v1::Assign whole =
      assign("r", body(kPrompts[0], kMore + R"(,"logprobs":true,"top_logprobs":5)"));
  const Got got = run(whole);
  ASSERT_EQ(got.logprobs.size(), got.tokens.size());
  std::string joined;
  for (const v1::TokenLogprob& one : got.logprobs) {
    joined += one.token();
    ASSERT_EQ(one.top_size(), 5);
    double sum = 0;
    float before = 0;
    for (const v1::TokenCandidate& candidate : one.top()) {
      EXPECT_LE(candidate.logprob(), before);
      before = candidate.logprob();
      sum += std::exp(candidate.logprob());
    }
    EXPECT_LE(sum, 1.0001);
    EXPECT_EQ(one.top(0).token(), one.token()) << "greedy takes the likeliest";
    EXPECT_EQ(one.top(0).logprob(), one.logprob());
  }
  EXPECT_EQ(joined, got.text);
  // All of the vocabulary's probabilities together are 1; 20 alternatives show most of it.
  const Got hot = run(body(
      "Say yes.", R"("temperature":2,"seed":1,"max_tokens":4,"logprobs":true,"top_logprobs":20)"));
  double sum = 0;
  for (const auto& candidate : hot.logprobs[0].top()) sum += std::exp(candidate.logprob());
  EXPECT_GT(sum, 0.5);
  // A continuation hands out the rest of them.
  const Got rest = run(resume(whole, got, 10));
  ASSERT_EQ(rest.logprobs.size(), got.logprobs.size() - 10);
  for (std::size_t i = 0; i < rest.logprobs.size(); ++i) {
    EXPECT_EQ(rest.logprobs[i].token(), got.logprobs[i + 10].token());
    EXPECT_FLOAT_EQ(rest.logprobs[i].logprob(), got.logprobs[i + 10].logprob());
  }
}

TEST_F(Choices, BiasesForbidAndForce) {
  const Got free = run(body(kPrompts[0], kMore));
  const std::string first = std::to_string(free.tokens[0]);
  const Got without = run(body(kPrompts[0], kMore + R"(,"logit_bias":{")" + first + R"(":-100})"));
  for (const std::uint32_t token : without.tokens) EXPECT_NE(token, free.tokens[0]);
  const Got only = run(
      body(kPrompts[0], R"("temperature":0,"max_tokens":5,"logit_bias":{")" + first + R"(":100})"));
  for (const std::uint32_t token : only.tokens) EXPECT_EQ(token, free.tokens[0]);
  const Got unknown = run(body(kPrompts[0], kMore + R"(,"logit_bias":{"99999999":1})"));
  EXPECT_EQ(unknown.failure_code, "invalid_argument");
  EXPECT_EQ(unknown.failure_param, "logit_bias");
}

TEST_F(Choices, GoesOnFromTextThatAnotherModelWrote) {
  const v1::Assign whole = assign("r", body(kPrompts[0], kMore));
  const Got got = run(whole);
  v1::Assign text_only = whole;
  text_only.add_resume()->set_text(got.text.substr(0, got.text_bytes_after[9]));
  const Got rest = run(text_only);
  EXPECT_EQ(got.text.substr(0, got.text_bytes_after[9]) + rest.text, got.text);
  EXPECT_EQ(rest.finish_reason, "length");
  // Text that this model wouldn't have chosen counts as well, and is not handed out again.
  v1::Assign foreign = assign("r", body(kPrompts[0], R"("temperature":0,"max_tokens":12)"));
  foreign.add_resume()->set_text("Aye, the lighthouse horse:");
  const Got went_on = run(foreign);
  EXPECT_FALSE(went_on.text.empty());
  EXPECT_FALSE(went_on.text.contains("Aye"));
  EXPECT_LT(went_on.tokens.size(), 12u);
}

TEST_F(Choices, AStopThatBeganInForeignTextIsSeen) {
  const Got got = run(body(kPrompts[0], kMore));
  const std::size_t cut = got.text_bytes_after[12];
  const std::string stop = got.text.substr(cut - 3, 8);
  ASSERT_EQ(stop.find_first_of("\"\\\n"), std::string::npos) << "choose another place: " << stop;
  v1::Assign text_only = assign("r", body(kPrompts[0], kMore + R"(,"stop":[")" + stop + R"("])"));
  text_only.add_resume()->set_text(got.text.substr(0, cut));
  const Got rest = run(text_only);
  EXPECT_EQ(rest.text, "");
  EXPECT_EQ(rest.finish_reason, "stop");
}

}  // namespace
}  // namespace waystation::engine
