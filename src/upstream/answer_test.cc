#include "upstream/answer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
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

// Whether the first finish is on its way already makes no difference.
TEST(Answer, WhatComesForAFinishedChoiceIsLeftOut) {
  for (const bool take_before : {true, false}) {
    Answer answer = chat(2);
    ASSERT_TRUE(answer.on_event(content("b", "\"stop\"", 1)));
    auto out = take_before ? taken(answer) : std::vector<v1::Output>();
    ASSERT_TRUE(answer.on_event(content(" and more", "\"length\"", 1)));
    ASSERT_TRUE(answer.on_event(content("a", "\"stop\"", 0)));
    ASSERT_TRUE(answer.end());
    answer.take(out);
    std::string text;
    int finishes = 0;
    for (const v1::Output& output : out) {
      if (output.choice() != 1) continue;
      text += output.text();
      EXPECT_EQ(finishes, 0);
      finishes += output.finish_reason().empty() ? 0 : 1;
    }
    EXPECT_EQ(text, "b");
    EXPECT_EQ(finishes, 1);
  }
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
        R"({"data":[{"index":0,"embedding":[1e300]}]})",
        R"({"data":[{"index":0,"embedding":"AADAfw=="}]})",  // not a number
        R"({"data":[{"index":-1,"embedding":[1]}]})", R"({"data":null})", R"({"data":{}})",
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
  EXPECT_EQ(status.error().message, "reported an error: overloaded");
}

// ---- Fields that aren't what they should be ---------------------------------------------------

std::string what_is_wrong(const Status& status) {
  if (status) return "nothing";
  EXPECT_EQ(status.error().code, Code::kUnavailable);
  const std::string prefix = "sent an answer that can't be used: ";
  EXPECT_TRUE(status.error().message.starts_with(prefix)) << status.error().message;
  return status.error().message.substr(std::min(prefix.size(), status.error().message.size()));
}

TEST(Answer, AFieldOfAnotherTypeIsAnErrorThatNamesIt) {
  const std::vector<std::pair<std::string, std::string>> streamed = {
      {delta(R"("content":7)"), "choices[0].delta.content is a number, not text"},
      {delta(R"("content":{})"), "choices[0].delta.content is an object, not text"},
      {delta(R"("content":[7])"), "choices[0].delta.content[0] is a number, not an object"},
      {delta(R"("content":[{"type":"text","text":"a"},{"type":"image_url"}])"),
       "choices[0].delta.content[1].type is 'image_url', not 'text'"},
      {delta(R"("content":[{"type":"text","text":7}])"),
       "choices[0].delta.content[0].text is a number, not text"},
      {delta(R"("refusal":[])"), "choices[0].delta.refusal is a list, not text"},
      {delta(R"("reasoning_content":1)"),
       "choices[0].delta.reasoning_content is a number, not text"},
      {delta(R"("reasoning":{})"), "choices[0].delta.reasoning is an object, not text"},
      {delta(R"("tool_calls":"x")"), "choices[0].delta.tool_calls is text, not a list"},
      {delta(R"("tool_calls":[null])"), "choices[0].delta.tool_calls[0] is no object"},
      {delta(R"("tool_calls":[{"function":7}])"),
       "choices[0].delta.tool_calls[0].function is a number, not an object"},
      {delta(R"("tool_calls":[{"function":{"arguments":{}}}])"),
       "choices[0].delta.tool_calls[0].function.arguments is an object, not text"},
      {delta(R"("tool_calls":[{"id":7}])"),
       "choices[0].delta.tool_calls[0].id is a number, not text"},
      {delta(R"("tool_calls":[{"index":-1}])"),
       "choices[0].delta.tool_calls[0].index is -1, but there can be 1024"},
      {R"({"choices":[{"index":0,"delta":"x"}]})", "choices[0].delta is text, not an object"},
      {R"({"choices":[{"index":-1,"delta":{}}]})", "choices[0].index is -1, but there can be 1"},
      {R"({"choices":[{"index":1e300,"delta":{}}]})",
       "choices[0].index is 1E300, but there can be 1"},
      {R"({"choices":[{"index":0.5,"delta":{}}]})", "choices[0].index is 5E-1, but there can be 1"},
      {R"({"choices":[{"index":"0","delta":{}}]})",
       "choices[0].index is \"0\", but there can be 1"},
      {R"({"choices":"x"})", "choices is text, not a list"},
      {R"({"choices":[7]})", "choices[0] is no object"},
      {delta("", "7"), "choices[0].finish_reason is a number, not text"},
      {delta("", "\"abort\""), "choices[0].finish_reason is 'abort': the answer was broken off"},
  };
  for (const auto& [event, wrong] : streamed) {
    Answer answer = chat();
    EXPECT_EQ(what_is_wrong(answer.on_event(event)), wrong) << event;
  }
  const std::vector<std::pair<std::string, std::string>> whole = {
      {R"({"choices":null})", "it has no choices"},
      {R"({"choices":[]})", "it has no choices"},
      {R"({})", "it has no choices"},
      {R"({"choices":{}})", "choices is an object, not a list"},
      {R"({"choices":[{"finish_reason":"stop"}]})", "choices[0].message is missing"},
      {R"({"choices":[{"message":null,"finish_reason":"stop"}]})", "choices[0].message is missing"},
      {R"({"choices":[{"message":{"content":true}}]})",
       "choices[0].message.content is true or false, not text"},
  };
  for (const auto& [document, wrong] : whole) {
    Answer answer = chat();
    EXPECT_EQ(what_is_wrong(answer.on_document(document)), wrong) << document;
  }
  Answer legacy(Kind::kCompletion, 1, "", Echo::kAuto, "0123456789abcdef");
  EXPECT_EQ(what_is_wrong(legacy.on_document(R"({"choices":[{"finish_reason":"stop"}]})")),
            "choices[0].text is missing");
  Answer listed(Kind::kCompletion, 1, "", Echo::kAuto, "0123456789abcdef");
  EXPECT_EQ(what_is_wrong(listed.on_event(R"({"choices":[{"text":["a"]}]})")),
            "choices[0].text is a list, not text");
}

TEST(Answer, WhatIsNullIsNotThere) {
  Answer answer = chat();
  ASSERT_TRUE(answer.on_event(R"({"choices":null,"usage":null,"error":null})"));
  ASSERT_TRUE(answer.on_event(R"({"object":"a ping"})"));
  ASSERT_TRUE(answer.on_event(R"({"choices":[{"index":null,"delta":null}]})"));
  ASSERT_TRUE(answer.on_event(delta(
      R"("content":null,"refusal":null,"reasoning_content":null,"reasoning":null,"tool_calls":null)")));
  EXPECT_FALSE(answer.has_begun());
  ASSERT_TRUE(answer.on_event(content("a", "\"stop\"")));
  ASSERT_TRUE(answer.end());
  EXPECT_EQ(taken(answer).at(0).text(), "a");
}

TEST(Answer, ContentInPartsIsJoined) {
  const std::string parts =
      R"("content":[{"type":"text","text":"a"},{"type":"text","text":null},{"type":"refusal","refusal":"b"}])";
  Answer streamed = chat();
  ASSERT_TRUE(streamed.on_event(delta(parts)));
  ASSERT_TRUE(streamed.on_event(delta(R"("content":[])")));
  EXPECT_EQ(taken(streamed).at(0).text(), "ab");
  Answer whole = chat();
  ASSERT_TRUE(whole.on_document("{\"choices\":[{\"message\":{" + parts + "}}]}"));
  EXPECT_EQ(taken(whole).at(0).text(), "ab");
}

TEST(Answer, NothingIsTakenOfADocumentThatIsNoAnswer) {
  for (const char* document :
       {R"({"choices":[{"index":0,"message":{"content":"a"}},{"index":1,"message":7}]})",
        R"({"choices":[{"index":0,"message":{"content":"a","tool_calls":7}}]})",
        R"({"choices":[{"index":0,"message":{"content":"a"}}]})"}) {
    Answer answer = chat(2);
    EXPECT_FALSE(answer.on_document(document)) << document;
    EXPECT_FALSE(answer.has_begun()) << document;
    for (const v1::Output& output : taken(answer)) {
      EXPECT_EQ(output.text(), "") << document;
      EXPECT_EQ(output.finish_reason(), "") << document;
    }
  }
}

TEST(Answer, FinishReasonsOfOtherApisHaveOurNames) {
  const std::vector<std::pair<std::string, std::string>> reasons = {
      {"stop", "stop"},
      {"length", "length"},
      {"tool_calls", "tool_calls"},
      {"content_filter", "content_filter"},
      {"function_call", "function_call"},
      {"eos_token", "stop"},
      {"end_turn", "stop"},
      {"stop_sequence", "stop"},
      {"max_tokens", "length"},
      {"model_length", "length"},
      {"tool_use", "tool_calls"}};
  for (const auto& [theirs, ours] : reasons) {
    Answer answer = chat();
    ASSERT_TRUE(answer.on_event(content("a", '"' + theirs + '"'))) << theirs;
    ASSERT_TRUE(answer.end()) << theirs;
    EXPECT_EQ(taken(answer).at(0).finish_reason(), ours);
  }
  for (const char* broken : {"abort", "error", "insufficient_system_resource", "Stop", "?"}) {
    Answer answer = chat();
    EXPECT_FALSE(answer.on_event(content("a", '"' + std::string(broken) + '"'))) << broken;
    Answer whole = chat();
    EXPECT_FALSE(whole.on_document(R"({"choices":[{"message":{"content":"a"},"finish_reason":")" +
                                   std::string(broken) + "\"}]}"))
        << broken;
    EXPECT_FALSE(whole.has_begun());
  }
}

// ---- Token counts -----------------------------------------------------------------------------

TEST(Answer, CountsThatCannotBeAreNoCounts) {
  for (const char* usage :
       {R"({"prompt_tokens":5,"completion_tokens":1e300})", R"({"prompt_tokens":5})", "[]", "7",
        R"({"prompt_tokens":-5,"completion_tokens":2})",
        R"({"prompt_tokens":5,"completion_tokens":2.5})",
        R"({"prompt_tokens":5,"completion_tokens":"2"})",
        R"({"prompt_tokens":null,"completion_tokens":2})",
        R"({"prompt_tokens":5,"completion_tokens":18446744073709551615})", "{}"}) {
    Answer answer = chat();
    ASSERT_TRUE(answer.on_event(content("a", "\"stop\"")));
    ASSERT_TRUE(answer.on_event(R"({"choices":[],"usage":)" + std::string(usage) + "}")) << usage;
    ASSERT_TRUE(answer.end());
    EXPECT_FALSE(answer.has_usage()) << usage;
    EXPECT_FALSE(taken(answer).at(0).has_usage()) << usage;
  }
  Answer answer = chat();
  ASSERT_TRUE(answer.on_document(
      R"({"choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":5.0,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":-1},"completion_tokens_details":{"reasoning_tokens":1e99}}})"));
  const v1::Usage usage = taken(answer).at(0).usage();
  EXPECT_EQ(usage.prompt_tokens(), 5u);
  EXPECT_EQ(usage.completion_tokens(), 2u);
  EXPECT_EQ(usage.cached_prompt_tokens(), 0u);
  EXPECT_EQ(usage.reasoning_tokens(), 0u);
}

TEST(Answer, EventsThatBroughtSomethingAreCounted) {
  Answer answer = chat();
  ASSERT_TRUE(answer.on_event(delta(R"("role":"assistant","content":"")")));
  ASSERT_TRUE(answer.on_event(delta(R"("reasoning":"hm")")));
  ASSERT_TRUE(answer.on_event(content("a")));
  ASSERT_TRUE(answer.on_event(delta(R"("tool_calls":[{"index":0,"function":{"name":"f"}}])")));
  ASSERT_TRUE(answer.on_event(delta("", "\"stop\"")));
  EXPECT_EQ(taken(answer).at(0).text_tokens(), 3u);
  Answer whole = chat();
  ASSERT_TRUE(whole.on_document(R"({"choices":[{"message":{"content":"twelve bytes"}}]})"));
  EXPECT_EQ(taken(whole).at(0).text_tokens(), 3u);
}

// ---- The bytes of a stream --------------------------------------------------------------------

// All that an answer says of a stream that came in these pieces, in one text.
std::string read_stream(const std::vector<std::string_view>& pieces) {
  Answer answer = chat(2, "Once upon a time there", Echo::kAuto);
  std::map<std::uint32_t, v1::Output> all;
  v1::Usage usage;  // comes with the choice that is taken last
  const auto take = [&] {
    for (v1::Output& output : taken(answer)) {
      v1::Output& sum = all[output.choice()];
      sum.set_text(sum.text() + output.text());
      sum.set_reasoning(sum.reasoning() + output.reasoning());
      sum.set_text_tokens(sum.text_tokens() + output.text_tokens());
      for (const v1::ToolCallDelta& call : output.tool_calls()) {
        sum.set_reasoning(sum.reasoning() + call.id() + call.name() + call.arguments());
      }
      sum.set_finish_reason(sum.finish_reason() + output.finish_reason());
      if (output.has_usage()) usage = output.usage();
    }
  };
  Status status;
  for (const std::string_view piece : pieces) {
    status = answer.feed(piece);
    if (!status) break;
    take();
  }
  if (status) status = answer.end();
  take();
  std::string said = status ? "whole" : status.error().message;
  said += " " + usage.ShortDebugString();
  for (auto& [choice, sum] : all) {
    // Which of the finishes waits for the end, and so is missing when that doesn't come, is chance.
    if (!status) sum.clear_finish_reason();
    if (sum.ByteSizeLong() > 0) said += "\n" + std::to_string(choice) + sum.ShortDebugString();
  }
  return said;
}

std::string random_events(std::mt19937_64& random) {
  const std::vector<std::string> events{
      content("Once upon a time"),
      content(" there was"),
      content("世"),
      content("b", "null", 1),
      content("", "\"stop\"", 0),
      content("", "\"length\"", 1),
      "[DONE]",
      "{}",
      "{\"choices\":7}",
      R"({"error":{"message":"no"}})",
      R"({"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}})",
      delta(R"("tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}])")};
  const std::vector<std::string> ends{"\n\n", "\r\n\r\n", "\r\r", "\n\n: ping\n\n"};
  std::string stream;
  for (std::uint64_t i = random() % 12; i > 0; --i) {
    stream += "data: " + events[random() % events.size()] + ends[random() % ends.size()];
  }
  if (random() % 3 == 0 && !stream.empty()) stream[random() % stream.size()] ^= 1 << random() % 8;
  return stream;
}

TEST(Answer, HoweverAStreamIsCutItIsTheSameAnswer) {
  int whole = 0;
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    std::mt19937_64 random(seed);
    const std::string stream = random_events(random);
    const std::string expected = read_stream({stream});
    whole += expected.starts_with("whole") ? 1 : 0;
    std::vector<std::string_view> pieces;
    for (std::size_t at = 0; at < stream.size();) {
      const std::size_t size = std::min<std::size_t>(random() % 30, stream.size() - at);
      pieces.push_back(std::string_view(stream).substr(at, size));
      at += size;
    }
    ASSERT_EQ(read_stream(pieces), expected) << "seed " << seed << "\n" << stream;
  }
  EXPECT_GT(whole, 50);
}

TEST(Answer, AnEventWithoutAnEndIsRefused) {
  for (const char* piece : {"data: 0123456789", "data: 0123456789\n"}) {
    Answer answer(Kind::kChat, 1, "", Echo::kAuto, "0123456789abcdef", 1000);
    std::size_t fed = 0;
    Status status;
    while (status && fed < 100'000) {
      status = answer.feed(piece);
      fed += std::strlen(piece);
    }
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().message, "sent an event of more than 1000 bytes");
    EXPECT_LT(fed, 2100u);
  }
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
