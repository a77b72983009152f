#include "message/chat.h"

#include <gtest/gtest.h>

namespace waystation::message {
namespace {

constexpr const char* kHello = R"("messages":[{"role":"user","content":"hi"}])";

std::string with(const std::string& fields) {
  return R"({"model":"m",)" + std::string(kHello) + (fields.empty() ? "" : "," + fields) + "}";
}

TEST(ChatRequest, MinimalHasDefaults) {
  const auto request = parse_chat_request(with(""));
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->model, "m");
  ASSERT_EQ(request->messages.size(), 1u);
  EXPECT_EQ(request->messages[0].role, "user");
  EXPECT_EQ(request->messages[0].content, "hi");
  EXPECT_EQ(request->temperature, 1.0);
  EXPECT_EQ(request->top_p, 1.0);
  EXPECT_FALSE(request->seed || request->max_tokens || request->stream || request->include_usage);
}

TEST(ChatRequest, EveryFieldIsRead) {
  const auto request = parse_chat_request(R"({
    "model": "a/b", "temperature": 0, "top_p": 0.5, "seed": 42, "stop": ["x", "终"],
    "max_tokens": 7, "max_completion_tokens": 9, "presence_penalty": -2, "frequency_penalty": 1.5,
    "stream": true, "stream_options": {"include_usage": true}, "n": 1, "unknown": {"a": [1]},
    "messages": [
      {"role": "system", "content": "s", "name": "boss"},
      {"role": "developer", "content": "d"},
      {"role": "user", "content": [{"type": "text", "text": "你"}, {"type": "text", "text": "好😀"}]},
      {"role": "assistant", "content": "a", "tool_calls": []},
      {"role": "tool", "content": "t", "tool_call_id": "c"}]})");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->model, "a/b");
  EXPECT_EQ(request->temperature, 0.0);
  EXPECT_EQ(request->top_p, 0.5);
  EXPECT_EQ(request->seed, 42u);
  EXPECT_EQ(request->stop, (std::vector<std::string>{"x", "终"}));
  EXPECT_EQ(request->max_tokens, 9u);
  EXPECT_EQ(request->presence_penalty, -2.0);
  EXPECT_EQ(request->frequency_penalty, 1.5);
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
  ASSERT_EQ(request->messages.size(), 5u);
  EXPECT_EQ(request->messages[0].name, "boss");
  EXPECT_EQ(request->messages[2].content, "你好😀");
}

TEST(ChatRequest, NullMeansNotSet) {
  const auto request = parse_chat_request(with(
      R"("temperature":null,"stop":null,"max_tokens":null,"seed":null,"tools":null,"stream":null,
              "stream_options":null,"response_format":null,"logit_bias":{},"logprobs":false)"));
  ASSERT_TRUE(request) << request.error().message;
}

TEST(ChatRequest, StopMayBeOneString) {
  const auto request = parse_chat_request(with(R"("stop":"\n")"));
  ASSERT_TRUE(request);
  EXPECT_EQ(request->stop, std::vector<std::string>{"\n"});
}

struct BadCase {
  std::string body;
  std::string param;
};

TEST(ChatRequest, BadInputNamesItsField) {
  const auto messages = [](const std::string& items) {
    return R"({"model":"m","messages":)" + items + "}";
  };
  const std::vector<BadCase> cases{
      {"", ""},
      {"{", ""},
      {"[]", ""},
      {"\"text\"", ""},
      {"{} x", ""},
      {with("") + "{", ""},
      {"{\"model\":\"\xff\"}", ""},
      {R"({"model":"\ud800"})", ""},
      {std::string(200, '[') + std::string(200, ']'), ""},
      {"{}", "model"},
      {R"({"model":5})", "model"},
      {R"({"model":""})", "model"},
      {R"({"model":"m"})", "messages"},
      {messages("{}"), "messages"},
      {messages("[]"), "messages"},
      {messages("[1]"), "messages[0]"},
      {messages("[{}]"), "messages[0].role"},
      {messages(R"([{"role":1,"content":"x"}])"), "messages[0].role"},
      {messages(R"([{"role":"robot","content":"x"}])"), "messages[0].role"},
      {messages(R"([{"role":"user","content":"x"},{"role":"user"}])"), "messages[1].content"},
      {messages(R"([{"role":"user","content":null}])"), "messages[0].content"},
      {messages(R"([{"role":"user","content":5}])"), "messages[0].content"},
      {messages(R"([{"role":"user","content":[]}])"), "messages[0].content"},
      {messages(R"([{"role":"user","content":["x"]}])"), "messages[0].content[0]"},
      {messages(R"([{"role":"user","content":[{"text":"x"}]}])"), "messages[0].content[0].type"},
      {messages(R"([{"role":"user","content":[{"type":"text"}]}])"), "messages[0].content[0].text"},
      {messages(R"([{"role":"user","content":[{"type":"text","text":"x"},
                   {"type":"image_url","image_url":{"url":"u"}}]}])"),
       "messages[0].content[1].type"},
      {messages(R"([{"role":"user","content":"x","name":3}])"), "messages[0].name"},
      {messages(R"([{"role":"assistant","tool_calls":[{"id":"a"}]}])"), "messages[0].tool_calls"},
      {with(R"("temperature":"hot")"), "temperature"},
      {with(R"("temperature":2.1)"), "temperature"},
      {with(R"("temperature":-0.1)"), "temperature"},
      {with(R"("temperature":1e999)"), "temperature"},
      {with(R"("top_p":1.5)"), "top_p"},
      {with(R"("presence_penalty":-3)"), "presence_penalty"},
      {with(R"("frequency_penalty":2.5)"), "frequency_penalty"},
      {with(R"("seed":1.5)"), "seed"},
      {with(R"("seed":"1")"), "seed"},
      {with(R"("n":2)"), "n"},
      {with(R"("n":"1")"), "n"},
      {with(R"("max_tokens":0)"), "max_tokens"},
      {with(R"("max_tokens":-5)"), "max_tokens"},
      {with(R"("max_tokens":1.5)"), "max_tokens"},
      {with(R"("max_tokens":18446744073709551615)"), "max_tokens"},
      {with(R"("max_completion_tokens":"9")"), "max_completion_tokens"},
      {with(R"("stop":5)"), "stop"},
      {with(R"("stop":"")"), "stop"},
      {with(R"("stop":["a","b","c","d","e"])"), "stop"},
      {with(R"("stop":["a",""])"), "stop[1]"},
      {with(R"("stop":["a",1])"), "stop[1]"},
      {with(R"("stream":"yes")"), "stream"},
      {with(R"("stream_options":{"include_usage":true})"), "stream_options"},
      {with(R"("stream":true,"stream_options":1)"), "stream_options"},
      {with(R"("stream":true,"stream_options":{"include_usage":1})"),
       "stream_options.include_usage"},
      {with(R"("tools":[{"type":"function"}])"), "tools"},
      {with(R"("functions":[{"name":"f"}])"), "functions"},
      {with(R"("logit_bias":{"5":1})"), "logit_bias"},
      {with(R"("logprobs":true)"), "logprobs"},
      {with(R"("logprobs":3)"), "logprobs"},
      {with(R"("top_logprobs":2)"), "top_logprobs"},
      {with(R"("response_format":{"type":"json_object"})"), "response_format.type"},
      {with(R"("response_format":"text")"), "response_format"},
      {with(R"("modalities":["text","audio"])"), "modalities"},
      {with(R"("audio":{"voice":"x"})"), "audio"},
  };
  for (const BadCase& bad : cases) {
    const auto request = parse_chat_request(bad.body);
    ASSERT_FALSE(request) << bad.body;
    EXPECT_EQ(request.error().code, Code::kInvalidArgument) << bad.body;
    EXPECT_EQ(request.error().param, bad.param) << bad.body << "\n" << request.error().message;
    EXPECT_FALSE(request.error().message.empty());
    if (!bad.param.empty()) {
      EXPECT_NE(request.error().message.find(bad.param), std::string::npos)
          << request.error().message;
    }
  }
}

}  // namespace
}  // namespace waystation::message
