#include "upstream/body.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>

#include "message/chat.h"
#include "message/completion.h"
#include "message/embedding.h"

namespace waystation::upstream {
namespace {

namespace json = boost::json;

Options options() {
  Options options;
  options.name = "far";
  options.models = {{"ours", "theirs-1"}, {"same", ""}};
  return options;
}

v1::Assign assign(std::string data, std::string_view type = message::kChatRequestType) {
  v1::Assign assign;
  assign.mutable_envelope()->set_type(std::string(type));
  assign.mutable_envelope()->set_model("ours");
  assign.mutable_envelope()->set_data(std::move(data));
  assign.set_choices(1);
  return assign;
}

json::object made(const v1::Assign& assign, const Options& with = options()) {
  auto body = make_body(assign, with);
  EXPECT_TRUE(body.has_value()) << (body ? "" : body.error().message);
  return body ? json::parse(body->text).as_object() : json::object();
}

v1::ChoiceProgress progress(const std::string& text) {
  v1::ChoiceProgress choice;
  choice.set_text(text);
  return choice;
}

TEST(Body, ReplacesTheModelAndKeepsEverythingElse) {
  const std::string data =
      R"( { "messages":[{"role":"user","content":"a } ] \" , b"}] , "model" : "ours","seed": 7,)"
      R"("tools":[{"x":{"y":[1,2,{"z":"\\"}]}}],"stop":null,"temperature":0.5e0} )";
  const auto body = made(assign(data));
  EXPECT_EQ(body.at("model").as_string(), "theirs-1");
  json::object expected = json::parse(data).as_object();
  expected["model"] = "theirs-1";
  EXPECT_EQ(body, expected);
}

TEST(Body, TheModelOfTheAssignmentCountsWhenARequestFallsBack) {
  v1::Assign fallen = assign(R"({"model":"first","messages":[]})");
  fallen.set_model("same");
  EXPECT_EQ(made(fallen).at("model").as_string(), "same");
}

TEST(Body, NoSpellingOfTheModelSlipsThrough) {
  const auto body = make_body(
      assign(R"({"mod\u0065l":"expensive","model":"ours","model":"x","messages":[]})"), options());
  ASSERT_TRUE(body.has_value());
  EXPECT_EQ(body->text, R"({"model":"theirs-1","messages":[]})");
}

TEST(Body, AStreamAsksForItsUsage) {
  const auto data =
      R"({"model":"ours","stream":true,"stream_options":{"include_usage":false},"messages":[]})";
  const auto body = make_body(assign(data), options());
  ASSERT_TRUE(body.has_value());
  EXPECT_TRUE(body->stream);
  const auto object = json::parse(body->text).as_object();
  EXPECT_EQ(object.at("stream_options").at("include_usage"), true);
  EXPECT_EQ(object.at("stream"), true);
  const auto plain = make_body(assign(R"({"stream":false,"messages":[]})"), options());
  EXPECT_FALSE(plain->stream);
  EXPECT_EQ(plain->text.find("stream"), std::string::npos);
  Options always = options();
  always.always_stream = true;
  EXPECT_TRUE(make_body(assign(R"({"messages":[]})"), always)->stream);
}

TEST(Body, DropsWhatTheConfigurationSays) {
  Options dropping = options();
  dropping.drop = {"store", "metadata"};
  const auto body = made(assign(R"({"store":true,"metadata":{"a":"b"},"messages":[]})"), dropping);
  EXPECT_FALSE(body.contains("store"));
  EXPECT_FALSE(body.contains("metadata"));
}

TEST(Body, KindsHaveTheirPaths) {
  EXPECT_EQ(make_body(assign("{}", message::kCompletionRequestType), options())->kind,
            Kind::kCompletion);
  const auto embedding = make_body(
      assign(R"({"input":["a"],"stream":true})", message::kEmbeddingRequestType), options());
  EXPECT_EQ(embedding->kind, Kind::kEmbedding);
  EXPECT_FALSE(embedding->stream);
  EXPECT_EQ(path_of(Kind::kChat), "/chat/completions");
  EXPECT_FALSE(make_body(assign("{}", "waystation.train.request.v1"), options()).has_value());
}

TEST(Body, AnAnswerThatHasBegunIsRefusedWithoutContinuation) {
  v1::Assign begun = assign(R"({"messages":[]})");
  *begun.add_resume() = progress("Once ");
  const auto body = make_body(begun, options());
  ASSERT_FALSE(body.has_value());
  EXPECT_EQ(body.error().code, Code::kUpstream);
  EXPECT_NE(body.error().message.find("can't be continued by far"), std::string::npos);
}

TEST(Body, AnEmptyResumeIsAStart) {
  v1::Assign fresh = assign(R"({"messages":[]})");
  fresh.add_resume();
  EXPECT_TRUE(make_body(fresh, options()).has_value());
}

TEST(Body, ContinuesByAnAssistantsMessage) {
  Options prefill = options();
  prefill.continuation = Continuation::kPrefill;
  prefill.continue_flags = {{"add_generation_prompt", "false"}, {"continue_final_message", "true"}};
  v1::Assign begun = assign(
      R"({"messages":[{"role":"user","content":"go"} ],"max_tokens":100,"continue_final_message":false})");
  *begun.add_resume() = progress("She said \"no\"\n and 你");
  const auto body = make_body(begun, prefill);
  ASSERT_TRUE(body.has_value()) << body.error().message;
  EXPECT_EQ(body->resumed, "She said \"no\"\n and 你");
  const auto object = json::parse(body->text).as_object();
  const auto& messages = object.at("messages").as_array();
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[1].at("role").as_string(), "assistant");
  EXPECT_EQ(messages[1].at("content").as_string(), body->resumed);
  EXPECT_EQ(object.at("add_generation_prompt"), false);
  EXPECT_EQ(object.at("continue_final_message"), true);
  EXPECT_LT(object.at("max_tokens").as_int64(), 100);
}

TEST(Body, TheBudgetLeftIsExactWhereTheTokensAreKnown) {
  Options prefill = options();
  prefill.continuation = Continuation::kPrefill;
  v1::Assign begun = assign(R"({"messages":[],"max_completion_tokens":10})");
  v1::ChoiceProgress choice = progress("abc");
  for (std::uint32_t i = 0; i < 4; ++i) choice.add_token_ids(i);
  *begun.add_resume() = choice;
  EXPECT_EQ(made(begun, prefill).at("max_completion_tokens"), 6);
}

TEST(Body, CompletionsContinueByTheirPrompt) {
  Options prefill = options();
  prefill.continuation = Continuation::kPrefill;
  for (const char* prompt : {R"({"prompt":"It \"was\""})", R"({"prompt":[ "It \"was\"" ]})"}) {
    v1::Assign begun = assign(prompt, message::kCompletionRequestType);
    *begun.add_resume() = progress(" a \"day\"");
    EXPECT_EQ(made(begun, prefill).at("prompt").as_string(), "It \"was\" a \"day\"");
  }
  v1::Assign tokens = assign(R"({"prompt":[1,2]})", message::kCompletionRequestType);
  *tokens.add_resume() = progress("x");
  EXPECT_EQ(make_body(tokens, prefill).error().code, Code::kUpstream);
}

TEST(Body, WhatPrefillCantContinueIsSaid) {
  Options prefill = options();
  prefill.continuation = Continuation::kPrefill;
  v1::Assign calls = assign(R"({"messages":[]})");
  calls.add_resume()->add_tool_calls()->set_name("f");
  EXPECT_NE(make_body(calls, prefill).error().message.find("tool call"), std::string::npos);
  v1::Assign thinking = assign(R"({"messages":[]})");
  thinking.add_resume()->set_reasoning("hm");
  EXPECT_FALSE(make_body(thinking, prefill).has_value());
  v1::Assign several = assign(R"({"messages":[]})");
  several.set_choices(2);
  *several.add_resume() = progress("a");
  several.add_resume();
  EXPECT_FALSE(make_body(several, prefill).has_value());
}

TEST(Body, WhatIsNoObjectIsRefusedAtEveryCut) {
  const std::string good =
      R"({"model":"ours","messages":[{"role":"user","content":"a\\\"b"}],"n":1,"o":{"p":[]}})";
  ASSERT_TRUE(split_object(good).has_value());
  EXPECT_EQ(split_object(good)->size(), 4u);
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    EXPECT_FALSE(split_object(good.substr(0, cut)).has_value()) << cut;
  }
  for (const char* text :
       {"[]", "7", "\"a\"", "{\"a\"}", "{\"a\":}", "{,}", "{\"a\":1}x", "{\"a\\"}) {
    EXPECT_FALSE(split_object(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace waystation::upstream
