#include "stream/render/completion_renderer.h"

#include <gtest/gtest.h>

#include "stream/render/testing.h"

namespace waystation::stream {
namespace {

const std::string kHead =
    R"({"id":"cmpl-0190f0c2-1111-7222-8333-444444444444","object":"text_completion",)"
    R"("created":1700000000,"model":"org/model","choices":[)";

v1::Event tokens(std::vector<std::string> texts, std::uint32_t choice = 0) {
  std::string text;
  for (const auto& piece : texts) text += piece;
  auto event = test_event(v1::EVENT_KIND_DELTA, text, "", choice);
  for (auto& piece : texts) add_logprob(event, piece, -1.5f);
  return event;
}

TEST(CompletionRenderer, GoldenPlain) {
  const auto renderer = make_completion_renderer(test_identity("completions"));
  EXPECT_TRUE(renderer->needs_start()) << "offsets count from the beginning";
  EXPECT_EQ(one_frame(*renderer, 0, test_event(v1::EVENT_KIND_START)),
            kHead + R"({"index":0,"text":"","logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(one_frame(*renderer, 1, test_event(v1::EVENT_KIND_DELTA, "a\n")),
            kHead + R"({"index":0,"text":"a\n","logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(one_frame(*renderer, 2, test_event(v1::EVENT_KIND_FINISH, "", "length")),
            kHead + R"({"index":0,"text":"","logprobs":null,"finish_reason":"length"}]})");
}

TEST(CompletionRenderer, OffsetsCountCharactersOfEachChoice) {
  const auto renderer = make_completion_renderer(test_identity("completions"));
  const auto logprobs = [&](Sequence n, const v1::Event& event) {
    const std::string frame = one_frame(*renderer, n, event);
    const std::size_t at = frame.find("\"logprobs\":") + 11;
    return frame.substr(at, frame.find(",\"finish_reason\"") - at);
  };
  EXPECT_EQ(logprobs(0, tokens({"你好", "!"})),
            R"({"tokens":["你好","!"],"token_logprobs":[-1.5,-1.5],)"
            R"("top_logprobs":[{"你好":-1.5},{"!":-1.5}],"text_offset":[0,2]})");
  EXPECT_NE(logprobs(1, tokens({"x"}, 1)).find(R"("text_offset":[0])"), std::string::npos);
  // A character in two tokens begins with the first of them.
  const std::string parts = logprobs(2, tokens({"\xe4\xbd", "\xa0", "y"}));
  EXPECT_NE(parts.find(R"("tokens":["bytes:\\xe4\\xbd","bytes:\\xa0","y"])"), std::string::npos)
      << parts;
  EXPECT_NE(parts.find(R"("text_offset":[3,4,4])"), std::string::npos) << parts;
}

TEST(CompletionRenderer, TheTakenTokenIsAmongTheLikeliest) {
  auto event = test_event(v1::EVENT_KIND_DELTA, "c");
  v1::TokenLogprob& token = add_logprob(event, "c", -3);
  add_candidate(token, "a", -1);
  add_candidate(token, "a", -2);
  EXPECT_NE(one_frame(*make_completion_renderer(test_identity("completions")), 0, event)
                .find(R"("top_logprobs":[{"a":-1,"c":-3}])"),
            std::string::npos);
}

TEST(CompletionCollector, GoldenWithLogprobs) {
  auto identity = test_identity("completions");
  identity.choices = 2;
  const auto collector = make_completion_collector(identity);
  collector->add(test_event(v1::EVENT_KIND_START));
  collector->add(test_event(v1::EVENT_KIND_START, "", "", 1));
  collector->add(tokens({"a"}));
  collector->add(test_event(v1::EVENT_KIND_DELTA, "z", "", 1));
  collector->add(tokens({"b"}));
  collector->add(test_event(v1::EVENT_KIND_FINISH, "", "length", 1));
  EXPECT_EQ(collector->answer(test_ending()).value(),
            kHead + R"({"index":0,"text":"ab","logprobs":{"tokens":["a","b"],)"
                    R"("token_logprobs":[-1.5,-1.5],"top_logprobs":[{"a":-1.5},{"b":-1.5}],)"
                    R"("text_offset":[0,1]},"finish_reason":"stop"},)"
                    R"({"index":1,"text":"z","logprobs":null,"finish_reason":"length"}],)"
                    R"("usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,)"
                    R"("prompt_tokens_details":{"cached_tokens":0},)"
                    R"("completion_tokens_details":{"reasoning_tokens":0}}})");
}

}  // namespace
}  // namespace waystation::stream
