#include "upstream/answer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace waystation::upstream {
namespace {

Answer chat(std::uint32_t choices = 1, std::string resumed = "", Echo echo = Echo::kAuto) {
  return Answer(Kind::kChat, choices, std::move(resumed), echo, "0123456789abcdef0123");
}

std::vector<v1::Output> taken(Answer& answer) {
  std::vector<v1::Output> out;
  answer.take(out);
  return out;
}

std::string delta(const std::string& members, const std::string& reason = "null", int index = 0) {
  return R"({"choices":[{"index":)" + std::to_string(index) + R"(,"delta":{)" + members +
         R"(},"finish_reason":)" + reason + "}]}";
}

std::string content(const std::string& text, const std::string& reason = "null", int index = 0) {
  return delta("\"content\":\"" + text + "\"", reason, index);
}

TEST(Answer, AStreamBecomesOutputs) {
  Answer answer = chat();
  ASSERT_TRUE(answer.on_event(delta(R"("role":"assistant","content":"")")));
  auto out = taken(answer);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_TRUE(out[0].started());
  EXPECT_FALSE(answer.has_begun());

  ASSERT_TRUE(answer.on_event(content("Hel")));
  ASSERT_TRUE(answer.on_event(content("lo")));
  out = taken(answer);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].text(), "Hello");
  EXPECT_FALSE(out[0].started());

  ASSERT_TRUE(answer.on_event(delta("", "\"content_filter\"")));
  EXPECT_TRUE(taken(answer).empty());  // the finish waits for the usage
  ASSERT_TRUE(answer.on_event(
      R"({"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3},"completion_tokens_details":{"reasoning_tokens":1}}})"));
  ASSERT_TRUE(answer.on_event("[DONE]"));
  EXPECT_TRUE(answer.done());
  ASSERT_TRUE(answer.end());
  out = taken(answer);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].finish_reason(), "content_filter");
  EXPECT_FALSE(out[0].more());
  EXPECT_EQ(out[0].usage().prompt_tokens(), 5u);
  EXPECT_EQ(out[0].usage().completion_tokens(), 2u);
  EXPECT_EQ(out[0].usage().cached_prompt_tokens(), 3u);
  EXPECT_EQ(out[0].usage().reasoning_tokens(), 1u);
  EXPECT_TRUE(taken(answer).empty());
}

TEST(Answer, AStreamWithoutItsEndIsAnError) {
  Answer nothing = chat();
  EXPECT_EQ(nothing.end().error().code, Code::kUnavailable);
  Answer half = chat();
  ASSERT_TRUE(half.on_event(content("Hel")));
  EXPECT_FALSE(half.end());
  ASSERT_TRUE(half.on_event("[DONE]"));
  EXPECT_FALSE(half.end());  // [DONE] alone doesn't make it whole
  Answer one_of_two = chat(2);
  ASSERT_TRUE(one_of_two.on_event(content("a", "\"stop\"", 0)));
  EXPECT_FALSE(one_of_two.end());
}

TEST(Answer, SeveralChoicesFinishOneByOne) {
  Answer answer = chat(2);
  ASSERT_TRUE(answer.on_event(content("b", "\"stop\"", 1)));
  ASSERT_TRUE(answer.on_event(content("a", "null", 0)));
  auto out = taken(answer);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].text(), "a");
  EXPECT_TRUE(out[0].started());
  EXPECT_EQ(out[1].finish_reason(), "stop");
  EXPECT_TRUE(out[1].more());
  EXPECT_FALSE(out[1].started());
  ASSERT_TRUE(answer.on_event(content("c", "\"length\"", 0)));
  ASSERT_TRUE(answer.end());
  out = taken(answer);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].choice(), 0u);
  EXPECT_EQ(out[0].finish_reason(), "length");
  EXPECT_FALSE(out[0].more());
}

TEST(Answer, AWholeDocument) {
  Answer answer = chat(2);
  ASSERT_TRUE(answer.on_document(
      R"({"choices":[{"index":0,"message":{"role":"assistant","content":"a","reasoning_content":"hm"},"finish_reason":"stop"},{"index":1,"message":{"content":null,"tool_calls":[{"id":"x","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}})"));
  const auto out = taken(answer);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].text(), "a");
  EXPECT_EQ(out[0].reasoning(), "hm");
  EXPECT_TRUE(out[0].more());
  EXPECT_FALSE(out[0].has_usage());
  EXPECT_EQ(out[1].tool_calls(0).name(), "f");
  EXPECT_EQ(out[1].finish_reason(), "tool_calls");
  EXPECT_FALSE(out[1].more());
  EXPECT_EQ(out[1].usage().completion_tokens(), 2u);
}

TEST(Answer, ToolCallsInPieces) {
  Answer answer = chat();
  ASSERT_TRUE(answer.on_event(delta(
      R"("tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":""}},{"index":1,"function":{"name":"g","arguments":"{"}}])")));
  auto out = taken(answer);
  ASSERT_EQ(out.size(), 1u);
  ASSERT_EQ(out[0].tool_calls_size(), 2);
  EXPECT_EQ(out[0].tool_calls(0).id(), "c1");
  EXPECT_TRUE(out[0].tool_calls(1).id().starts_with("call_0123456789abcdef"));
  // Some repeat the id and the name with each piece.
  ASSERT_TRUE(answer.on_event(
      delta(R"("tool_calls":[{"index":1,"id":"zz","function":{"name":"g","arguments":"}"}}])")));
  ASSERT_TRUE(answer.on_event(delta(R"("tool_calls":[{"index":1,"function":{"arguments":" "}}])")));
  out = taken(answer);
  ASSERT_EQ(out[0].tool_calls_size(), 1);
  EXPECT_EQ(out[0].tool_calls(0).index(), 1u);
  EXPECT_EQ(out[0].tool_calls(0).id(), "");
  EXPECT_EQ(out[0].tool_calls(0).name(), "");
  EXPECT_EQ(out[0].tool_calls(0).arguments(), "} ");
  EXPECT_FALSE(answer.on_event(delta(R"("tool_calls":[{"index":99999999}])")));
}

TEST(Answer, Logprobs) {
  Answer answer = chat();
  ASSERT_TRUE(answer.on_event(
      R"({"choices":[{"index":0,"delta":{"content":"é"},"logprobs":{"content":[{"token":"é","bytes":[195,169],"logprob":-0.5,"top_logprobs":[{"token":"e","bytes":null,"logprob":-1}]}]},"finish_reason":null}]})"));
  const auto out = taken(answer);
  ASSERT_EQ(out[0].logprobs_size(), 1);
  EXPECT_EQ(out[0].logprobs(0).token(), "\xc3\xa9");
  EXPECT_FLOAT_EQ(out[0].logprobs(0).logprob(), -0.5f);
  EXPECT_EQ(out[0].logprobs(0).top(0).token(), "e");
  Answer legacy(Kind::kCompletion, 1, "", Echo::kAuto, "0123456789abcdef");
  ASSERT_TRUE(legacy.on_document(
      R"({"choices":[{"index":0,"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[null,-2],"top_logprobs":[null,{"c":-3}]},"finish_reason":"length"}]})"));
  const auto old = taken(legacy);
  EXPECT_EQ(old[0].text(), "ab");
  ASSERT_EQ(old[0].logprobs_size(), 2);
  EXPECT_EQ(old[0].logprobs(1).top(0).token(), "c");
}

TEST(Answer, EmbeddingsAsNumbersOrBase64InAnyOrder) {
  Answer answer(Kind::kEmbedding, 1, "", Echo::kAuto, "0123456789abcdef");
  ASSERT_TRUE(answer.on_document(
      R"({"data":[{"index":1,"embedding":"AACAPwAAAMA="},{"index":0,"embedding":[1,-2.0]}],"usage":{"prompt_tokens":4,"total_tokens":4}})"));
  const auto out = taken(answer);
  ASSERT_EQ(out.size(), 1u);
  ASSERT_EQ(out[0].embeddings_size(), 2);
  EXPECT_EQ(out[0].embeddings(0), out[0].embeddings(1));
  float values[2];
  ASSERT_EQ(out[0].embeddings(0).size(), sizeof(values));
  std::memcpy(values, out[0].embeddings(0).data(), sizeof(values));
  EXPECT_EQ(values[0], 1.0f);
  EXPECT_EQ(values[1], -2.0f);
  EXPECT_EQ(out[0].finish_reason(), "stop");
  EXPECT_EQ(out[0].usage().prompt_tokens(), 4u);
  for (const char* bad :
       {R"({"data":[]})", R"({"data":[{"index":0}]})", R"({"data":[{"index":0,"embedding":"@"}]})",
        R"({"data":[{"index":0,"embedding":[1,null]}]})",
        R"({"data":[{"index":5,"embedding":[1]}]})",
        R"({"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]})"}) {
    Answer wrong(Kind::kEmbedding, 1, "", Echo::kAuto, "0123456789abcdef");
    EXPECT_FALSE(wrong.on_document(bad)) << bad;
  }
}

TEST(Answer, WhatIsNoAnswer) {
  for (const char* data : {"", "hello", "[]", "{\"choices\":[7]}", "{\"a\":1", "{\"a\":\"\xff\"}",
                           "{} {}", R"({"choices":[{"index":3,"delta":{}}]})"}) {
    Answer answer = chat();
    const Status status = answer.on_event(data);
    ASSERT_FALSE(status.has_value()) << data;
    EXPECT_EQ(status.error().code, Code::kUnavailable) << data;
  }
  Answer answer = chat();
  EXPECT_FALSE(answer.on_document(R"({"object":"chat.completion"})"));
  Answer refused = chat();
  const Status status = refused.on_event(R"({"error":{"message":"overloaded","code":503}})");
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().message, "overloaded");
}

std::string continued(const std::string& resumed, const std::vector<std::string>& pieces,
                      Echo echo = Echo::kAuto) {
  Answer answer = chat(1, resumed, echo);
  std::string text;
  const auto collect = [&] {
    for (const auto& output : taken(answer)) text += output.text();
  };
  for (const auto& piece : pieces) {
    EXPECT_TRUE(answer.on_event(content(piece)));
    collect();
  }
  EXPECT_TRUE(answer.on_event(delta("", "\"stop\"")));
  EXPECT_TRUE(answer.end());
  collect();
  return text;
}

TEST(Answer, AnEchoedBeginningIsTakenOff) {
  const std::string begun = "Once upon a time there";
  for (std::size_t cut = 0; cut <= begun.size() + 4; ++cut) {
    const std::string all = begun + " was";
    EXPECT_EQ(continued(begun, {all.substr(0, cut), all.substr(std::min(cut, all.size()))}), " was")
        << cut;
  }
  EXPECT_EQ(continued(begun, {" was"}), " was");
  EXPECT_EQ(continued(begun, {"Once", " more"}), "Once more");  // begins alike, is no echo
  EXPECT_EQ(continued(begun, {"Once"}), "Once");                // ends before it can be told
  EXPECT_EQ(continued("ha ", {"ha ", "ha"}), "ha ha");          // too short to be taken for one
  EXPECT_EQ(continued("ha ", {"ha ", "ha"}, Echo::kStrip), "ha");
  EXPECT_EQ(continued(begun, {begun}, Echo::kKeep), begun);
}

}  // namespace
}  // namespace waystation::upstream
