// JSON answers and tool calls with the real small model, whose template knows nothing of tools.
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "engine/llama/testing_fixture.h"

namespace waystation::engine {
namespace {

using nlohmann::json;

std::string format(const std::string& schema) {
  return R"("response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":)" +
         schema + "}}";
}

const std::string kTools = R"("tools":[{"type":"function","function":{"name":"get_weather",
  "description":"The weather in a city","parameters":{"type":"object","properties":{
  "city":{"type":"string","maxLength":20},"unit":{"enum":["celsius","fahrenheit"]}},"required":["city","unit"]}}},
  {"type":"function","function":{"name":"add","parameters":{"type":"object","properties":{
  "a":{"type":"integer","minimum":0,"maximum":100},"b":{"type":"integer","minimum":0,"maximum":100}},
  "required":["a","b"],"additionalProperties":false}}}])";

class Structured : public LlamaEngine {
 protected:
  // Resumed after each of its tokens (or each `steps`), the rest is what was missing.
  void expect_resumes(const v1::Assign& whole, const Got& got, std::size_t steps = 1) {
    for (std::size_t k = 1; k < got.tokens.size(); k += steps) {
      const v1::ChoiceProgress& before = got.progress_after[k - 1];
      const Got rest = run(resume(whole, got, k));
      ASSERT_EQ(before.text() + rest.text, got.text) << k;
      ASSERT_EQ(rest.finish_reason, got.finish_reason) << k;
      std::vector<v1::ToolCallDelta> calls(before.tool_calls().begin(), before.tool_calls().end());
      for (const v1::ToolCallDelta& piece : rest.calls) {
        if (piece.index() == calls.size()) {
          calls.push_back(piece);
        } else {
          ASSERT_TRUE(piece.id().empty() && piece.name().empty()) << k;
          calls.at(piece.index()).mutable_arguments()->append(piece.arguments());
        }
      }
      ASSERT_EQ(calls.size(), got.calls.size()) << k;
      for (std::size_t i = 0; i < calls.size(); ++i) {
        ASSERT_EQ(calls[i].SerializeAsString(), got.calls[i].SerializeAsString()) << k;
      }
    }
  }
};

TEST_F(Structured, JsonFollowsItsSchema) {
  const Got got =
      run(body("Describe a courier.",
               R"("temperature":0.8,"seed":5,"max_tokens":200,)" +
                   format(R"({"type":"object","properties":{"name":{"type":"string","maxLength":12},
            "age":{"type":"integer","minimum":18,"maximum":65},"horses":{"type":"array","minItems":1,
            "maxItems":2,"items":{"enum":["Bay","Grey"]}},"born":{"type":"string","format":"date"}},
            "required":["name","age","horses","born"],"additionalProperties":false})")));
  ASSERT_EQ(got.finish_reason, "stop") << got.text;
  const json answer = json::parse(got.text, nullptr, false);
  ASSERT_TRUE(answer.is_object()) << got.text;
  EXPECT_EQ(answer.size(), 4u);
  EXPECT_GE(answer["age"].get<int>(), 18);
  EXPECT_LE(answer["age"].get<int>(), 65);
  EXPECT_GE(answer["horses"].size(), 1u);
  EXPECT_LE(answer["horses"].size(), 2u);
  EXPECT_EQ(answer["born"].get<std::string>().size(), 10u);
}

TEST_F(Structured, AnyObjectWithoutASchema) {
  const Got got =
      run(body("Give me a JSON object about a horse, with one short member.",
               R"("temperature":0,"max_tokens":160,"response_format":{"type":"json_object"})"));
  ASSERT_TRUE(got.text.starts_with("{")) << got.text;
  if (got.finish_reason != "length") {
    EXPECT_TRUE(json::parse(got.text, nullptr, false).is_object());
  }
}

TEST_F(Structured, JsonResumesAtEveryToken) {
  const v1::Assign whole = assign(
      "r",
      body("Describe a city.",
           R"("temperature":0,"max_tokens":80,)" +
               format(R"({"type":"object","properties":{"name":{"type":"string","maxLength":16},
                             "size":{"type":"integer","minimum":100}},"required":["name","size"]})")));
  const Got got = run(whole);
  ASSERT_EQ(got.finish_reason, "stop") << got.text;
  expect_resumes(whole, got);
  // And from its text alone.
  v1::Assign text_only = whole;
  text_only.add_resume()->set_text(got.text.substr(0, got.text.size() / 2));
  const Got rest = run(text_only);
  const json answer =
      json::parse(got.text.substr(0, got.text.size() / 2) + rest.text, nullptr, false);
  EXPECT_TRUE(answer.is_object()) << rest.text;
  // What the grammar could never have led to can't be gone on from.
  v1::Assign impossible = whole;
  impossible.add_resume()->set_text("Sure! Here is");
  EXPECT_EQ(run(impossible).failure_code, "upstream_error");
}

TEST_F(Structured, SchemasThatCannotBeKeptAreRefused) {
  const Got got = run(body(
      "x", format(R"({"type":"object","properties":{"a":{"type":"number","multipleOf":3}}})")));
  EXPECT_EQ(got.failure_code, "invalid_argument");
  EXPECT_EQ(got.failure_param, "response_format.json_schema.schema.properties.a.multipleOf");
  EXPECT_EQ(run(body("x", R"("stop":"a","response_format":{"type":"json_object"})")).failure_param,
            "stop");
}

TEST_F(Structured, ACallIsForced) {
  for (const std::string choice :
       {R"("required")", R"({"type":"function","function":{"name":"add"}})"}) {
    const v1::Assign whole =
        assign("r", body("What is 3 plus 4?",
                         R"("temperature":0,"max_tokens":120,"parallel_tool_calls":false,)" +
                             kTools + R"(,"tool_choice":)" + choice));
    const Got got = run(whole);
    ASSERT_EQ(got.finish_reason, "tool_calls") << got.text;
    EXPECT_EQ(got.text, "");
    ASSERT_EQ(got.calls.size(), 1u);
    EXPECT_TRUE(got.calls[0].id().starts_with("call_"));
    const json arguments = json::parse(got.calls[0].arguments(), nullptr, false);
    ASSERT_TRUE(arguments.is_object()) << got.calls[0].arguments();
    if (choice.front() == '{') {
      EXPECT_EQ(got.calls[0].name(), "add");
      EXPECT_TRUE(arguments["a"].is_number_integer());
      EXPECT_LE(arguments["b"].get<int>(), 100);
    }
    expect_resumes(whole, got);
  }
}

TEST_F(Structured, SeveralCallsResumeAndSayEachOnce) {
  const v1::Assign whole = assign(
      "r",
      body("Add 1 and 2, then add 3 and 4.",
           R"("temperature":0.9,"seed":11,"max_tokens":200,"tool_choice":"required",)" + kTools));
  const Got got = run(whole);
  ASSERT_GE(got.calls.size(), 1u);
  for (std::size_t i = 0; i + (got.finish_reason == "length" ? 1 : 0) < got.calls.size(); ++i) {
    EXPECT_TRUE(json::parse(got.calls[i].arguments(), nullptr, false).is_object());
    EXPECT_FALSE(got.calls[i].name().empty());
  }
  expect_resumes(whole, got, 5);
}

// In auto the model decides; the beginning of a call that another wrote makes it decide.
TEST_F(Structured, InAutoACallFollowsTheGrammarOnceBegun) {
  const v1::Assign whole =
      assign("r", body("What is 3 plus 4?", R"("temperature":0,"max_tokens":80,)" + kTools));
  const Got got = run(whole);
  EXPECT_FALSE(got.finish_reason.empty());
  v1::Assign begun = whole;
  v1::ChoiceProgress& progress = *begun.add_resume();
  progress.set_text("I will add.");
  v1::ToolCallDelta& call = *progress.add_tool_calls();
  call.set_id("call_x");
  call.set_name("add");
  call.set_arguments("{\"a\":3");
  engine_->start(begun);
  got_.clear();
  std::string arguments = call.arguments();
  std::string finish;
  while (!engine_->idle()) {
    v1::Step out;
    engine_->step(out);
    for (const v1::Output& output : out.outputs()) {
      EXPECT_EQ(output.text(), "");
      for (const v1::ToolCallDelta& piece : output.tool_calls()) {
        if (piece.index() == 0) {
          EXPECT_TRUE(piece.name().empty());
          arguments += piece.arguments();
        }
      }
      finish += output.finish_reason();
      EXPECT_EQ(output.failure().message(), "");
    }
  }
  if (finish == "tool_calls") {
    const json parsed = json::parse(arguments, nullptr, false);
    ASSERT_TRUE(parsed.is_object()) << arguments;
    EXPECT_EQ(parsed["a"].get<int>() / 3 > 0, true);
  }
}

TEST_F(Structured, EarlierCallsAndResultsAreInThePrompt) {
  const std::string talk = R"({"model":"m","temperature":0,"max_tokens":24,"messages":[
    {"role":"user","content":"Weather in Oslo?"},
    {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Oslo\"}"}}]},
    {"role":"tool","tool_call_id":"c1","content":"RESULT"}],)" +
                           kTools + "}";
  std::string longer = talk;
  longer.replace(longer.find("RESULT"), 6,
                 "Rain, 4 degrees, wind from the north, storm warning, stay inside");
  const Got some = run(talk);
  const Got more = run(longer);
  EXPECT_EQ(some.failure_message, "");
  EXPECT_GT(more.prompt_tokens, some.prompt_tokens);
  const Got without = run(body("Weather in Oslo?", R"("temperature":0,"max_tokens":2)"));
  EXPECT_GT(some.prompt_tokens, without.prompt_tokens + 60) << "the tools are told";
}

}  // namespace
}  // namespace waystation::engine
