#include "message/responses.h"

#include <gtest/gtest.h>

#include "message/chat.h"

namespace waystation::message {
namespace {

const RequestId kId = RequestId::make(1'700'000'000'000, 2, 3);

ResponseRequest parsed(std::string_view body) {
  auto request = parse_response_request(body, kId);
  EXPECT_TRUE(request) << (request ? "" : request.error().message);
  return request.value_or(ResponseRequest());
}

// The chat request that a model hears.
ChatRequest heard(std::string_view body, const std::vector<Item>& earlier = {}) {
  auto chat = response_chat_body(parsed(body), earlier);
  EXPECT_TRUE(chat) << (chat ? "" : chat.error().message);
  auto request = parse_chat_request(chat.value_or(""));
  EXPECT_TRUE(request) << (request ? "" : request.error().message) << "\n" << chat.value_or("");
  return request.value_or(ChatRequest());
}

std::string refused_param(std::string_view body) {
  auto request = parse_response_request(body, kId);
  EXPECT_FALSE(request) << body;
  return request ? "" : request.error().param;
}

TEST(ResponsesTest, ATextIsAMessageOfTheUser) {
  const ResponseRequest request = parsed(R"({"model":"m","input":"hi \"you\""})");
  ASSERT_EQ(request.input.size(), 1u);
  EXPECT_EQ(request.input[0].json, "{\"id\":\"" + item_id("msg", kId, "i0") +
                                       "\",\"type\":\"message\",\"status\":\"completed\",\"role\":"
                                       "\"user\",\"content\":[{\"type\":\"input_text\",\"text\":"
                                       "\"hi \\\"you\\\"\"}]}");
  EXPECT_TRUE(request.store);
  EXPECT_FALSE(request.background);
  EXPECT_TRUE(request.parameters.starts_with("\"background\":false,"));
  const ChatRequest chat = heard(R"({"model":"m","input":"hi"})");
  ASSERT_EQ(chat.messages.size(), 1u);
  EXPECT_EQ(chat.messages[0].role, "user");
  EXPECT_EQ(chat.messages[0].content, "hi");
}

TEST(ResponsesTest, ItemsBecomeMessagesInOrder) {
  const ChatRequest chat = heard(R"({"model":"m","instructions":"be brief","input":[
    {"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},
    {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
    {"type":"message","role":"assistant","content":[{"type":"output_text","text":"let me look"}]},
    {"type":"function_call","call_id":"c1","name":"look","arguments":"{\"x\":1}"},
    {"type":"function_call","call_id":"c2","name":"look","arguments":"{}"},
    {"type":"function_call_output","call_id":"c1","output":"one"},
    {"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"two"}]}]})");
  ASSERT_EQ(chat.messages.size(), 5u);
  EXPECT_EQ(chat.messages[0].role, "system");
  EXPECT_EQ(chat.messages[0].content, "be brief");
  EXPECT_EQ(chat.messages[1].content, "ab");
  EXPECT_EQ(chat.messages[2].content, "let me look");
  ASSERT_EQ(chat.messages[2].tool_calls.size(), 2u);
  EXPECT_EQ(chat.messages[2].tool_calls[0].arguments, "{\"x\":1}");
  EXPECT_EQ(chat.messages[3].tool_call_id, "c1");
  EXPECT_EQ(chat.messages[4].content, "two");
}

TEST(ResponsesTest, EarlierItemsStandBetweenInstructionsAndInput) {
  const auto earlier = parsed(R"({"model":"m","input":"first"})").input;
  const ChatRequest chat = heard(R"({"model":"m","instructions":"i","input":"second"})", earlier);
  ASSERT_EQ(chat.messages.size(), 3u);
  EXPECT_EQ(chat.messages[1].content, "first");
  EXPECT_EQ(chat.messages[2].content, "second");
}

TEST(ResponsesTest, AnAnswerWithoutItsCallIsRefused) {
  constexpr const char* kBody = R"({"model":"m","input":[
    {"type":"function_call_output","call_id":"c9","output":"x"}]})";
  const auto chat = response_chat_body(parsed(kBody), {});
  ASSERT_FALSE(chat);
  EXPECT_EQ(chat.error().param, "input");
  // In a conversation the call may stand before it.
  ResponseRequest turn = parsed(kBody);
  turn.conversation = "conv_1";
  EXPECT_TRUE(response_chat_body(turn, {}));
}

TEST(ResponsesTest, OptionsReachTheModel) {
  const ChatRequest chat = heard(R"({"model":"m","input":"x","temperature":0.5,"top_p":0.25,
    "max_output_tokens":7,"seed":9,"include":["message.output_text.logprobs"],"top_logprobs":3,
    "reasoning":{"effort":"low"},"parallel_tool_calls":false,"service_tier":"flex",
    "tools":[{"type":"function","name":"f","parameters":{"type":"object","properties":{}}},
             {"type":"function","name":"g","parameters":null}],
    "tool_choice":{"type":"function","name":"f"}})");
  EXPECT_EQ(chat.temperature, 0.5);
  EXPECT_EQ(chat.top_p, 0.25);
  EXPECT_EQ(chat.max_tokens, 7u);
  EXPECT_EQ(chat.seed, 9u);
  EXPECT_EQ(chat.logprobs, 3u);
  EXPECT_EQ(chat.reasoning_effort, "low");
  EXPECT_FALSE(chat.parallel_tool_calls);
  EXPECT_EQ(chat.service_tier, "flex");
  ASSERT_EQ(chat.tools.size(), 2u);
  EXPECT_EQ(chat.tools[0].name, "f");
  EXPECT_EQ(chat.tool_choice, ToolChoice::kNamed);
  EXPECT_EQ(chat.tool_name, "f");
}

TEST(ResponsesTest, AllowedToolsAreTheOnlyOnesThatTheModelSees) {
  const ChatRequest chat = heard(R"({"model":"m","input":"x",
    "tools":[{"type":"function","name":"f","parameters":{}},{"type":"function","name":"g"}],
    "tool_choice":{"type":"allowed_tools","mode":"required",
                   "tools":[{"type":"function","name":"g"}]}})");
  ASSERT_EQ(chat.tools.size(), 1u);
  EXPECT_EQ(chat.tools[0].name, "g");
  EXPECT_EQ(chat.tool_choice, ToolChoice::kRequired);
}

TEST(ResponsesTest, FormatsReachTheModel) {
  EXPECT_EQ(heard(R"({"model":"m","input":"json","text":{"format":{"type":"json_object"}}})")
                .response_format,
            ResponseFormat::kJsonObject);
  const ChatRequest chat = heard(R"({"model":"m","input":"x","text":{"format":{
    "type":"json_schema","name":"n","strict":true,"schema":{"type":"object","properties":
    {"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}}}})");
  EXPECT_EQ(chat.response_format, ResponseFormat::kJsonSchema);
  EXPECT_NE(chat.json_schema.find("\"integer\""), std::string::npos);
}

TEST(ResponsesTest, RefusalsNameTheParameter) {
  const auto with = [](const std::string& members) {
    return "{\"model\":\"m\",\"input\":\"x\"," + members + "}";
  };
  EXPECT_EQ(refused_param(R"({"input":"x"})"), "model");
  EXPECT_EQ(refused_param(R"({"model":"m"})"), "input");
  EXPECT_EQ(refused_param(R"({"model":"m","input":[]})"), "input");
  EXPECT_EQ(refused_param(R"({"model":"m","input":7})"), "input");
  EXPECT_EQ(refused_param(R"({"model":"m","input":[{"role":"tool","content":"x"}]})"),
            "input[0].role");
  EXPECT_EQ(refused_param(R"({"model":"m","input":[{"role":"user","content":[
      {"type":"input_image","image_url":"data:,"}]}]})"),
            "input[0].content[0].type");
  EXPECT_EQ(refused_param(R"({"model":"m","input":[{"type":"web_search_call","id":"w"}]})"),
            "input[0].type");
  EXPECT_EQ(refused_param(with(R"("tools":[{"type":"web_search"}])")), "tools[0].type");
  EXPECT_EQ(refused_param(with(R"("tool_choice":"required")")), "tool_choice");
  EXPECT_EQ(refused_param(with(R"("tool_choice":{"type":"function","name":"f"})")),
            "tool_choice.name");
  EXPECT_EQ(refused_param(with(R"("background":true,"store":false)")), "background");
  EXPECT_EQ(refused_param(with(R"("conversation":"c","previous_response_id":"resp_1")")),
            "previous_response_id");
  EXPECT_EQ(refused_param(with(R"("truncation":"auto")")), "truncation");
  EXPECT_EQ(refused_param(with(R"("prompt":{"id":"p"})")), "prompt");
  EXPECT_EQ(refused_param(with(R"("max_output_tokens":0)")), "max_output_tokens");
  EXPECT_EQ(refused_param(with(R"("max_tokens":5)")), "max_tokens");
  EXPECT_EQ(refused_param(with(R"("temperature":3)")), "temperature");
  EXPECT_EQ(refused_param(with(R"("include":["nonsense"])")), "include[0]");
  EXPECT_EQ(refused_param(with(R"("top_logprobs":2)")), "top_logprobs");
  EXPECT_EQ(refused_param(with(R"("text":{"format":{"type":"grammar"}})")), "text.format.type");
  EXPECT_EQ(refused_param(with(R"("reasoning":{"summary":"detailed"})")), "reasoning.summary");
  EXPECT_EQ(refused_param(with(R"("metadata":{"a":1})")), "metadata.a");
}

TEST(ResponsesTest, WhatNobodyKnowsIsIgnored) {
  parsed(R"({"model":"m","input":"x","no_such_parameter":1,"stream_options":null})");
}

TEST(ResponsesTest, ErrorsOfTheChatBodyAreSaidInTheseWords) {
  const Error error =
      as_response_error({Code::kInvalidArgument, "tools[0].function.parameters is bad",
                         "tools[0].function.parameters"});
  EXPECT_EQ(error.param, "tools[0].parameters");
  EXPECT_EQ(error.message, "tools[0].parameters is bad");
  EXPECT_EQ(as_response_error({Code::kInvalidArgument, "m", "messages[1].content"}).param,
            "input[1].content");
  EXPECT_EQ(
      as_response_error({Code::kInvalidArgument, "m", "response_format.json_schema.schema"}).param,
      "text.format.schema");
}

TEST(ResponsesTest, IdsTellWhoseTheyAre) {
  EXPECT_EQ(parse_response_id(response_id(kId)), kId);
  EXPECT_EQ(request_of_item(item_id("msg", kId, "0")), kId);
  EXPECT_EQ(request_of_item(item_id("fc", kId, "i12")), kId);
  EXPECT_FALSE(parse_response_id("resp_x"));
  EXPECT_FALSE(parse_response_id(kId.to_string()));
  EXPECT_FALSE(request_of_item("msg_123"));
  EXPECT_FALSE(request_of_item(""));
}

TEST(ResponsesTest, ReferencesStandForThemselves) {
  const ResponseRequest request = parsed(R"({"model":"m","input":[
    {"type":"item_reference","id":"msg_1"},{"id":"msg_2"}]})");
  ASSERT_EQ(request.input.size(), 2u);
  EXPECT_EQ(request.input[0].type, "item_reference");
  EXPECT_EQ(request.input[1].type, "item_reference");
  EXPECT_EQ(request.input[1].id, "msg_2");
}

TEST(ResponseItemsTest, StoredItemsComeBack) {
  const auto items = parsed(R"({"model":"m","input":[{"role":"user","content":"é\n"},
    {"type":"function_call","id":"fc_own","call_id":"c","name":"f","arguments":"{}"}]})")
                         .input;
  const auto back = parse_stored_items(items_json(items));
  ASSERT_TRUE(back);
  ASSERT_EQ(back->size(), 2u);
  EXPECT_EQ((*back)[0].json, items[0].json);
  EXPECT_EQ((*back)[1].id, "fc_own");
  EXPECT_EQ((*back)[1].type, "function_call");
  EXPECT_TRUE(parse_stored_items("[]")->empty());
}

TEST(ResponseItemsTest, ChatMessagesBecomeItemsAndMessagesAgain) {
  constexpr const char* kChat = R"({"model":"m","messages":[
    {"role":"system","content":"s"},{"role":"user","content":"u"},
    {"role":"assistant","content":null,"tool_calls":[
      {"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},
    {"role":"tool","tool_call_id":"c1","content":"r"}]})";
  const auto items = items_of_chat(kChat, kId);
  ASSERT_TRUE(items) << items.error().message;
  ASSERT_EQ(items->size(), 4u);
  EXPECT_TRUE(is_system((*items)[0]));
  EXPECT_FALSE(is_system((*items)[1]));
  const auto messages = chat_messages(*items, "");
  ASSERT_TRUE(messages);
  EXPECT_EQ(*messages,
            R"([{"role":"system","content":"s"},{"role":"user","content":"u"},)"
            R"({"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",)"
            R"("function":{"name":"f","arguments":"{}"}}]},)"
            R"({"role":"tool","content":"r","tool_call_id":"c1"}])");
}

TEST(ResponseItemsTest, EarlierMessagesGoBeforeAndANewSystemMessageTakesOver) {
  constexpr const char* kEarlier =
      R"([{"role":"system","content":"old"},{"role":"user","content":"1"}])";
  EXPECT_EQ(*with_earlier_messages(R"({"messages":[{"role":"user","content":"2"}]})", kEarlier),
            R"({"messages":[{"role":"system","content":"old"},{"role":"user","content":"1"},)"
            R"({"role":"user","content":"2"}]})");
  EXPECT_EQ(*with_earlier_messages(R"({"messages":[{"role":"system","content":"new"},)"
                                   R"({"role":"user","content":"2"}]})",
                                   kEarlier),
            R"({"messages":[{"role":"system","content":"new"},{"role":"user","content":"1"},)"
            R"({"role":"user","content":"2"}]})");
  EXPECT_EQ(*with_messages(R"({"a":1,"messages":[]})", R"([{"role":"user","content":"x"}])"),
            R"({"a":1,"messages":[{"role":"user","content":"x"}]})");
}

}  // namespace
}  // namespace waystation::message
