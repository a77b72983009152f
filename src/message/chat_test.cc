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
    "stream": true, "stream_options": {"include_usage": true}, "n": 3, "unknown": {"a": [1]},
    "messages": [
      {"role": "system", "content": "s", "name": "boss"},
      {"role": "developer", "content": "d"},
      {"role": "user", "content": [{"type": "text", "text": "你"}, {"type": "text", "text": "好😀"}]},
      {"role": "assistant", "content": "a", "tool_calls": []},
      {"role": "tool", "content": "t", "tool_call_id": "c"}],
    "top_k": 40, "min_p": 0.05, "logprobs": true, "top_logprobs": 3, "reasoning_effort": "low",
    "logit_bias": {"7": -100, "5": 1.5}, "service_tier": "flex"})");
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
  EXPECT_EQ(request->messages[4].tool_call_id, "c");
  EXPECT_EQ(request->choices, 3u);
  EXPECT_EQ(request->top_k, 40u);
  EXPECT_EQ(request->min_p, 0.05);
  EXPECT_EQ(request->logprobs, 3u);
  EXPECT_EQ(request->reasoning_effort, "low");
  EXPECT_EQ(request->service_tier, "flex");
  const std::vector<std::pair<std::uint32_t, double>> bias{{5, 1.5}, {7, -100}};
  EXPECT_EQ(request->logit_bias, bias);
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

TEST(ChatRequest, ToolsAndTheirHistory) {
  const auto request = parse_chat_request(R"({
    "model": "m", "parallel_tool_calls": false,
    "tools": [
      {"type": "function", "function": {"name": "add", "description": "sums", "strict": true,
        "parameters": {"type": "object", "properties": {"b": {}, "a": {}}}}},
      {"type": "function", "function": {"name": "now"}}],
    "messages": [
      {"role": "user", "content": "1+2?"},
      {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\":1}"}}]},
      {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "3"}]},
      {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
      {"role": "assistant", "refusal": "never"}]})");
  ASSERT_TRUE(request) << request.error().message;
  ASSERT_EQ(request->tools.size(), 2u);
  EXPECT_EQ(request->tools[0].name, "add");
  EXPECT_EQ(request->tools[0].description, "sums");
  EXPECT_EQ(request->tools[0].parameters, R"({"type":"object","properties":{"b":{},"a":{}}})");
  EXPECT_EQ(request->tools[1].parameters, "{}");
  EXPECT_EQ(request->tool_choice, ToolChoice::kAuto);
  EXPECT_FALSE(request->parallel_tool_calls);
  const ChatMessage& call = request->messages[1];
  EXPECT_EQ(call.content, "");
  EXPECT_EQ(call.reasoning, "hm");
  ASSERT_EQ(call.tool_calls.size(), 1u);
  EXPECT_EQ(call.tool_calls[0].id, "c1");
  EXPECT_EQ(call.tool_calls[0].name, "add");
  EXPECT_EQ(call.tool_calls[0].arguments, "{\"a\":1}");
  EXPECT_EQ(request->messages[2].tool_call_id, "c1");
  EXPECT_EQ(request->messages[2].content, "3");
  EXPECT_EQ(request->messages[3].content, "no");
  EXPECT_EQ(request->messages[4].content, "never");
}

constexpr const char* kTools = R"("tools":[{"type":"function","function":{"name":"f"}},)"
                               R"({"type":"function","function":{"name":"g"}}])";

TEST(ChatRequest, ToolChoiceInAllItsForms) {
  const auto choice = [](const std::string& json) {
    return parse_chat_request(with(std::string(kTools) + R"(,"tool_choice":)" + json));
  };
  EXPECT_EQ(parse_chat_request(with(""))->tool_choice, ToolChoice::kNone) << "there are no tools";
  EXPECT_EQ(choice("null")->tool_choice, ToolChoice::kAuto);
  EXPECT_EQ(choice(R"("auto")")->tool_choice, ToolChoice::kAuto);
  EXPECT_EQ(choice(R"("none")")->tool_choice, ToolChoice::kNone);
  EXPECT_EQ(choice(R"("required")")->tool_choice, ToolChoice::kRequired);
  const auto named = choice(R"({"type":"function","function":{"name":"g"}})");
  ASSERT_TRUE(named) << named.error().message;
  EXPECT_EQ(named->tool_choice, ToolChoice::kNamed);
  EXPECT_EQ(named->tool_name, "g");
  EXPECT_EQ(named->tools.size(), 2u);
  const auto allowed = choice(R"({"type":"allowed_tools","allowed_tools":{"mode":"required",)"
                              R"("tools":[{"type":"function","function":{"name":"g"}}]}})");
  ASSERT_TRUE(allowed) << allowed.error().message;
  EXPECT_EQ(allowed->tool_choice, ToolChoice::kRequired);
  ASSERT_EQ(allowed->tools.size(), 1u) << "what isn't allowed can't be called";
  EXPECT_EQ(allowed->tools[0].name, "g");
}

TEST(ChatRequest, ResponseFormats) {
  const auto format = [](const std::string& json) {
    return parse_chat_request(with(R"("response_format":)" + json));
  };
  EXPECT_EQ(format(R"({"type":"text"})")->response_format, ResponseFormat::kText);
  EXPECT_EQ(format(R"({"type":"json_object"})")->response_format, ResponseFormat::kJsonObject);
  const auto schema = format(R"({"type":"json_schema","json_schema":{"name":"x","strict":true,)"
                             R"("schema":{"type":"object","properties":{"z":{},"a":{}}}}})");
  ASSERT_TRUE(schema) << schema.error().message;
  EXPECT_EQ(schema->response_format, ResponseFormat::kJsonSchema);
  EXPECT_EQ(schema->json_schema, R"({"type":"object","properties":{"z":{},"a":{}}})");
  EXPECT_EQ(format(R"({"type":"json_schema","json_schema":{"name":"x"}})")->response_format,
            ResponseFormat::kJsonObject)
      << "any object will do";
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
      {messages(R"([{"role":"assistant"}])"), "messages[0].content"},
      {messages(R"([{"role":"assistant","tool_calls":[]}])"), "messages[0].content"},
      {messages(R"([{"role":"assistant","tool_calls":5}])"), "messages[0].tool_calls"},
      {messages(R"([{"role":"assistant","tool_calls":[{"id":"a"}]}])"),
       "messages[0].tool_calls[0].type"},
      {messages(R"([{"role":"assistant","tool_calls":[{"type":"function",
                   "function":{"name":"f","arguments":"{}"}}]}])"),
       "messages[0].tool_calls[0].id"},
      {messages(R"([{"role":"assistant","tool_calls":[{"id":"a","type":"function",
                   "function":{"name":"f","arguments":{}}}]}])"),
       "messages[0].tool_calls[0].function.arguments"},
      {messages(R"([{"role":"assistant","content":"x","function_call":{"name":"f"}}])"),
       "messages[0].function_call"},
      {messages(R"([{"role":"assistant","audio":{"id":"a"}}])"), "messages[0].audio"},
      {messages(R"([{"role":"assistant","content":"x","reasoning_content":5}])"),
       "messages[0].reasoning_content"},
      {messages(R"([{"role":"function","name":"f","content":"x"}])"), "messages[0].role"},
      {messages(R"([{"role":"tool","content":"x"}])"), "messages[0].tool_call_id"},
      {messages(R"([{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}])"),
       "messages[0].content[0].type"},
      {messages(R"([{"role":"user","content":[{"type":"refusal","refusal":"x"}]}])"),
       "messages[0].content[0].type"},
      {with(R"("temperature":"hot")"), "temperature"},
      {with(R"("temperature":2.1)"), "temperature"},
      {with(R"("temperature":-0.1)"), "temperature"},
      {with(R"("temperature":1e999)"), "temperature"},
      {with(R"("top_p":1.5)"), "top_p"},
      {with(R"("presence_penalty":-3)"), "presence_penalty"},
      {with(R"("frequency_penalty":2.5)"), "frequency_penalty"},
      {with(R"("seed":1.5)"), "seed"},
      {with(R"("seed":"1")"), "seed"},
      {with(R"("n":0)"), "n"},
      {with(R"("n":17)"), "n"},
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
      {with(R"("tools":{})"), "tools"},
      {with(R"("tools":[5])"), "tools[0]"},
      {with(R"("tools":[{"type":"function"}])"), "tools[0].function"},
      {with(R"("tools":[{"type":"custom","custom":{"name":"f"}}])"), "tools[0].type"},
      {with(R"("tools":[{"type":"function","function":{"name":"a b"}}])"),
       "tools[0].function.name"},
      {with(R"("tools":[{"type":"function","function":{"name":"f","parameters":[]}}])"),
       "tools[0].function.parameters"},
      {with(R"("tools":[{"type":"function","function":{"name":"f"}},
                        {"type":"function","function":{"name":"f"}}])"),
       "tools[1].function.name"},
      {with(R"("parallel_tool_calls":1)"), "parallel_tool_calls"},
      {with(R"("tool_choice":"required")"), "tool_choice"},
      {with(R"("tool_choice":"always")"), "tool_choice"},
      {with(R"("tool_choice":{"type":"function","function":{"name":"f"}})"), "tool_choice"},
      {with(std::string(kTools) + R"(,"tool_choice":{"type":"function","function":{"name":"h"}})"),
       "tool_choice.function.name"},
      {with(std::string(kTools) + R"(,"tool_choice":{"type":"allowed_tools"})"),
       "tool_choice.allowed_tools"},
      {with(std::string(kTools) + R"(,"tool_choice":{"type":"allowed_tools","allowed_tools":
            {"mode":"auto","tools":[{"type":"function","function":{"name":"h"}}]}})"),
       "tool_choice.allowed_tools.tools[0].function.name"},
      {with(R"("functions":[{"name":"f"}])"), "functions"},
      {with(R"("function_call":"auto")"), "function_call"},
      {with(R"("logit_bias":{"x":1})"), "logit_bias.x"},
      {with(R"("logit_bias":{"5":101})"), "logit_bias.5"},
      {with(R"("logprobs":3)"), "logprobs"},
      {with(R"("top_logprobs":2)"), "top_logprobs"},
      {with(R"("logprobs":true,"top_logprobs":21)"), "top_logprobs"},
      {with(R"("top_k":-1)"), "top_k"},
      {with(R"("min_p":2)"), "min_p"},
      {with(R"("service_tier":"gold")"), "service_tier"},
      {with(R"("reasoning_effort":"much")"), "reasoning_effort"},
      {with(R"("metadata":{"a":1})"), "metadata.a"},
      {with(R"("metadata":[])"), "metadata"},
      {with(R"("metadata":{"k":")" + std::string(513, 'v') + R"("})"), "metadata.k"},
      {with(R"("user":5)"), "user"},
      {with(R"("store":"yes")"), "store"},
      {with(R"("verbosity":"low")"), "verbosity"},
      {with(R"("response_format":{"type":"xml"})"), "response_format.type"},
      {with(R"("response_format":{"type":"json_object","schema":{}})"), "response_format.schema"},
      {with(R"("response_format":{"type":"json_schema"})"), "response_format.json_schema"},
      {with(R"("response_format":{"type":"json_schema","json_schema":{"name":"x",)"
            R"("schema":{"type":"object","properties":{"a":{"not":{}}}}}})"),
       "response_format.json_schema.schema.properties.a.not"},
      {with(R"("response_format":{"type":"json_schema","json_schema":{"schema":{}}})"),
       "response_format.json_schema.name"},
      {with(R"("response_format":{"type":"json_schema","json_schema":{"name":"x","schema":1}})"),
       "response_format.json_schema.schema"},
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
