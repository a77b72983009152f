#include "stream/render/chat_renderer.h"

#include <gtest/gtest.h>

namespace waystation::stream {
namespace {

ChatIdentity identity(bool include_usage = false) {
  return {RequestId::parse("0190f0c2-1111-7222-8333-444444444444").value(), "org/model",
          1'700'000'000'999, include_usage};
}

v1::Event event(v1::EventKind kind, std::string text = "", std::string finish = "") {
  v1::Event out;
  out.set_kind(kind);
  out.set_text(std::move(text));
  out.set_finish_reason(std::move(finish));
  return out;
}

std::string chunk(const ChatRenderer& renderer, Sequence n, const v1::Event& e) {
  std::string out;
  renderer.append_chunk(out, n, e);
  return out;
}

const std::string kHead =
    R"({"id":"chatcmpl-0190f0c2-1111-7222-8333-444444444444","object":"chat.completion.chunk",)"
    R"("created":1700000000,"model":"org/model","choices":)";

// The exact bytes of renderer version 1. A failure here means: stored requests would change.
TEST(ChatRenderer, GoldenPlain) {
  const ChatRenderer renderer(identity(), false);
  EXPECT_EQ(chunk(renderer, 0, event(v1::EVENT_KIND_START)),
            kHead + R"([{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)"
                    R"("finish_reason":null}]})");
  EXPECT_EQ(chunk(renderer, 1, event(v1::EVENT_KIND_DELTA, "你\n\"😀")),
            kHead + R"([{"index":0,"delta":{"content":"你\n\"😀"},"logprobs":null,)"
                    R"("finish_reason":null}]})");
  EXPECT_EQ(
      chunk(renderer, 2, event(v1::EVENT_KIND_DELTA)),
      kHead + R"([{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(chunk(renderer, 3, event(v1::EVENT_KIND_FINISH, "", "stop")),
            kHead + R"([{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]})");
  EXPECT_EQ(chunk(renderer, 3, event(v1::EVENT_KIND_FINISH, "end", "length")),
            kHead + R"([{"index":0,"delta":{"content":"end"},"logprobs":null,)"
                    R"("finish_reason":"length"}]})");
}

TEST(ChatRenderer, GoldenNumberedWithUsage) {
  const ChatRenderer renderer(identity(true), true);
  EXPECT_EQ(chunk(renderer, 17, event(v1::EVENT_KIND_DELTA, "a")),
            kHead + R"([{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}],)"
                    R"("usage":null,"sequence_number":17})");
  auto usage = event(v1::EVENT_KIND_USAGE);
  usage.mutable_usage()->set_prompt_tokens(5);
  usage.mutable_usage()->set_completion_tokens(7);
  usage.mutable_usage()->set_cached_prompt_tokens(2);
  EXPECT_EQ(chunk(renderer, 18, usage),
            kHead + R"([],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12,)"
                    R"("prompt_tokens_details":{"cached_tokens":2}},"sequence_number":18})");
}

TEST(ChatCollector, JoinsTheTextOfAllEvents) {
  ChatCollector collector;
  collector.add(event(v1::EVENT_KIND_START));
  collector.add(event(v1::EVENT_KIND_DELTA, "Hel"));
  collector.add(event(v1::EVENT_KIND_DELTA, "lo"));
  collector.add(event(v1::EVENT_KIND_FINISH, "", "stop"));
  Ending ending;
  ending.state = v1::REQUEST_STATE_COMPLETED;
  ending.finish_reason = "stop";
  ending.usage.set_prompt_tokens(3);
  ending.usage.set_completion_tokens(2);
  EXPECT_EQ(collector.completion(identity(), ending),
            R"({"id":"chatcmpl-0190f0c2-1111-7222-8333-444444444444","object":"chat.completion",)"
            R"("created":1700000000,"model":"org/model","choices":[{"index":0,"message":)"
            R"({"role":"assistant","content":"Hello","refusal":null},"logprobs":null,)"
            R"("finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,)"
            R"("total_tokens":5,"prompt_tokens_details":{"cached_tokens":0}}})");
}

TEST(TerminalFrame, Golden) {
  Ending ending;
  ending.state = v1::REQUEST_STATE_COMPLETED;
  ending.sequence = 9;
  std::string out;
  append_terminal_frame(out, ending);
  EXPECT_EQ(out,
            "id: 9\nevent: waystation.request.completed\n"
            "data: {\"state\":\"completed\",\"sequence_number\":9}\n\n");

  ending.state = v1::REQUEST_STATE_DEAD;
  ending.failure.set_code("dead");
  ending.failure.set_message("3 workers died");
  out.clear();
  append_terminal_frame(out, ending);
  EXPECT_EQ(out,
            "id: 9\nevent: waystation.request.dead\n"
            "data: {\"state\":\"dead\",\"sequence_number\":9,\"error\":{\"message\":"
            "\"3 workers died\",\"type\":\"server_error\",\"param\":null,\"code\":\"dead\"}}\n\n");
}

TEST(Ending, ErrorsHaveTheCodeOfTheirState) {
  Ending ending;
  ending.state = v1::REQUEST_STATE_FAILED;
  ending.failure.set_code("context_length_exceeded");
  ending.failure.set_message("too long");
  ending.failure.set_param("messages");
  EXPECT_EQ(error_of(ending).code, Code::kContextLengthExceeded);
  EXPECT_EQ(error_of(ending).param, "messages");
  ending.state = v1::REQUEST_STATE_CANCELLED;
  EXPECT_EQ(error_of(ending).code, Code::kCancelled);
  ending.state = v1::REQUEST_STATE_EXPIRED;
  EXPECT_EQ(error_of(ending).code, Code::kExpired);
}

}  // namespace
}  // namespace waystation::stream
