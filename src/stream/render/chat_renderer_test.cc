#include "stream/render/chat_renderer.h"

#include <gtest/gtest.h>

#include "stream/render/testing.h"

namespace waystation::stream {
namespace {

const std::string kHead =
    R"({"id":"chatcmpl-0190f0c2-1111-7222-8333-444444444444","object":"chat.completion.chunk",)"
    R"("created":1700000000,"model":"org/model","service_tier":"default","choices":[)";
const std::string kRest = R"(,"logprobs":null,"finish_reason":null}]})";

std::unique_ptr<Renderer> plain() {
  return make_chat_renderer(test_identity("chat.completions"));
}

// The exact bytes of renderer version 2. A failure here means: stored requests would change.
TEST(ChatRenderer, GoldenPlain) {
  const auto renderer = plain();
  EXPECT_FALSE(renderer->needs_start() || renderer->names_frames());
  EXPECT_EQ(one_frame(*renderer, 0, test_event(v1::EVENT_KIND_START)),
            kHead + R"({"index":0,"delta":{"role":"assistant","content":""})" + kRest);
  EXPECT_EQ(one_frame(*renderer, 1, test_event(v1::EVENT_KIND_DELTA, "你\n\"😀")),
            kHead + R"({"index":0,"delta":{"content":"你\n\"😀"})" + kRest);
  EXPECT_EQ(one_frame(*renderer, 2, test_event(v1::EVENT_KIND_DELTA)),
            kHead + R"({"index":0,"delta":{})" + kRest)
      << "held back";
  EXPECT_EQ(one_frame(*renderer, 3, test_event(v1::EVENT_KIND_FINISH, "", "stop")),
            kHead + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]})");
  EXPECT_EQ(one_frame(*renderer, 3, test_event(v1::EVENT_KIND_FINISH, "end", "length", 2)),
            kHead + R"({"index":2,"delta":{"content":"end"},"logprobs":null,)"
                    R"("finish_reason":"length"}]})");
}

TEST(ChatRenderer, GoldenNumberedWithUsage) {
  auto identity = test_identity("chat.completions");
  identity.include_usage = true;
  identity.numbered = true;
  identity.priority = -1;
  const auto renderer = make_chat_renderer(identity);
  const std::string head = kHead.substr(0, kHead.find("default")) + R"(flex","choices":[)";
  EXPECT_EQ(one_frame(*renderer, 17, test_event(v1::EVENT_KIND_DELTA, "a")),
            head + R"({"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}],)"
                   R"("usage":null,"sequence_number":17})");
  auto usage = test_event(v1::EVENT_KIND_USAGE);
  usage.mutable_usage()->set_prompt_tokens(5);
  usage.mutable_usage()->set_completion_tokens(7);
  usage.mutable_usage()->set_cached_prompt_tokens(2);
  usage.mutable_usage()->set_reasoning_tokens(4);
  EXPECT_EQ(one_frame(*renderer, 18, usage),
            head + R"(],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12,)"
                   R"("prompt_tokens_details":{"cached_tokens":2},)"
                   R"("completion_tokens_details":{"reasoning_tokens":4}},"sequence_number":18})");
}

TEST(ChatRenderer, GoldenThinkingAndTools) {
  const auto renderer = plain();
  auto event = test_event(v1::EVENT_KIND_DELTA);
  event.set_reasoning("hm \"so\"");
  EXPECT_EQ(one_frame(*renderer, 1, event),
            kHead + R"({"index":0,"delta":{"reasoning_content":"hm \"so\""})" + kRest);
  event = test_event(v1::EVENT_KIND_DELTA, "I'll call", "", 1);
  v1::ToolCallDelta& begun = *event.add_tool_calls();
  begun.set_index(1);
  begun.set_id("call_a");
  begun.set_name("f");
  EXPECT_EQ(one_frame(*renderer, 2, event),
            kHead +
                R"({"index":1,"delta":{"content":"I'll call","tool_calls":[{"index":1,)"
                R"("id":"call_a","type":"function","function":{"name":"f","arguments":""}}]})" +
                kRest);
  event = test_event(v1::EVENT_KIND_DELTA);
  for (const char* arguments : {"{\"a\":", "{}"}) {
    v1::ToolCallDelta& more = *event.add_tool_calls();
    more.set_index(static_cast<std::uint32_t>(event.tool_calls_size() - 1));
    more.set_arguments(arguments);
  }
  EXPECT_EQ(one_frame(*renderer, 3, event),
            kHead +
                R"({"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":)"
                R"("{\"a\":"}},{"index":1,"function":{"arguments":"{}"}}]})" +
                kRest);
  EXPECT_EQ(one_frame(*renderer, 4, test_event(v1::EVENT_KIND_FINISH, "", "tool_calls")),
            kHead + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}]})");
}

TEST(ChatRenderer, GoldenLogprobs) {
  auto event = test_event(v1::EVENT_KIND_DELTA, "H");
  v1::TokenLogprob& token = add_logprob(event, "H", -0.5f);
  add_candidate(token, "H", -0.5f);
  add_candidate(token, "\xe4\xbd", -std::numeric_limits<float>::infinity());
  EXPECT_EQ(one_frame(*plain(), 1, event),
            kHead +
                R"({"index":0,"delta":{"content":"H"},"logprobs":{"content":[{"token":"H",)"
                R"("logprob":-0.5,"bytes":[72],"top_logprobs":[{"token":"H","logprob":-0.5,)"
                R"("bytes":[72]},{"token":"\\xe4\\xbd","logprob":-9999.0,"bytes":[228,189]}]}],)"
                R"("refusal":null},"finish_reason":null}]})");
}

TEST(ChatCollector, JoinsTheTextOfAllEvents) {
  const auto collector = make_chat_collector(test_identity("chat.completions"));
  collector->add(test_event(v1::EVENT_KIND_START));
  collector->add(test_event(v1::EVENT_KIND_DELTA, "Hel"));
  collector->add(test_event(v1::EVENT_KIND_DELTA, "lo"));
  collector->add(test_event(v1::EVENT_KIND_FINISH, "", "stop"));
  EXPECT_EQ(collector->answer(test_ending()).value(),
            R"({"id":"chatcmpl-0190f0c2-1111-7222-8333-444444444444","object":"chat.completion",)"
            R"("created":1700000000,"model":"org/model","service_tier":"default","choices":[)"
            R"({"index":0,"message":{"role":"assistant","content":"Hello","refusal":null},)"
            R"("logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,)"
            R"("completion_tokens":2,"total_tokens":5,"prompt_tokens_details":)"
            R"({"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}})");
}

TEST(ChatCollector, ChoicesKeepTheirOwn) {
  auto identity = test_identity("chat.completions");
  identity.choices = 2;
  const auto collector = make_chat_collector(identity);
  auto thought = test_event(v1::EVENT_KIND_DELTA);
  thought.set_reasoning("a");
  auto call = test_event(v1::EVENT_KIND_DELTA, "", "", 1);
  v1::ToolCallDelta& begun = *call.add_tool_calls();
  begun.set_id("call_a");
  begun.set_name("f");
  begun.set_arguments("{\"x\"");
  auto more = test_event(v1::EVENT_KIND_DELTA, "", "", 1);
  more.add_tool_calls()->set_arguments(":1}");
  auto text = test_event(v1::EVENT_KIND_DELTA, "T");
  add_logprob(text, "T", -1);
  add_logprob(text, "U", -2);
  collector->add(thought);
  collector->add(call);
  thought.set_reasoning("b");
  collector->add(thought);
  collector->add(more);
  collector->add(text);
  collector->add(text);
  collector->add(test_event(v1::EVENT_KIND_FINISH, "", "tool_calls", 1));
  collector->add(test_event(v1::EVENT_KIND_FINISH, "", "length"));
  const std::string answer = collector->answer(test_ending()).value();
  const std::string token = R"({"token":"T","logprob":-1,"bytes":[84],"top_logprobs":[]},)"
                            R"({"token":"U","logprob":-2,"bytes":[85],"top_logprobs":[]})";
  EXPECT_NE(answer.find(R"("choices":[{"index":0,"message":{"role":"assistant","content":"TT",)"
                        R"("refusal":null,"reasoning_content":"ab"},"logprobs":{"content":[)" +
                        token + "," + token +
                        R"(],"refusal":null},"finish_reason":"length"},)"
                        R"({"index":1,"message":{"role":"assistant","content":null,)"
                        R"("refusal":null,"tool_calls":[{"id":"call_a","type":"function",)"
                        R"("function":{"name":"f","arguments":"{\"x\":1}"}}]},"logprobs":null,)"
                        R"("finish_reason":"tool_calls"}])"),
            std::string::npos)
      << answer;
}

TEST(ChatCollector, WhatDidNotCompleteIsAnError) {
  const auto collector = make_chat_collector(test_identity("chat.completions"));
  Ending ending = test_ending();
  ending.state = v1::REQUEST_STATE_EXPIRED;
  EXPECT_EQ(collector->answer(ending).error().code, Code::kExpired);
  EXPECT_EQ(status_and_body(collector->answer(ending)).status, 504);
}

}  // namespace
}  // namespace waystation::stream
