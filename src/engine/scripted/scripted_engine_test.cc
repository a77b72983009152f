#include "engine/scripted/scripted_engine.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

namespace waystation::engine {
namespace {

v1::Assign assignment(int request, std::string extra = "", std::string prompt = "hi") {
  v1::Assign assign;
  assign.mutable_fence()->set_epoch(1);
  assign.mutable_fence()->set_request(std::string(16, static_cast<char>(request)));
  assign.mutable_fence()->set_attempt(1);
  assign.mutable_envelope()->set_data(
      R"({"model":"scripted","messages":[{"role":"user","content":")" + prompt + "\"}]" + extra +
      "}");
  return assign;
}

ScriptedOptions options(std::uint32_t tokens, std::uint32_t interval_ms) {
  ScriptedOptions result;
  result.tokens = tokens;
  result.interval_ms = interval_ms;
  return result;
}

struct Answer {
  std::vector<std::uint32_t> ids;
  std::string text;
  std::string finish;
  std::string failure;
  int outputs = 0;
  int starts = 0;
  bool dropped = false;

  void add(const v1::Output& output) {
    ids.insert(ids.end(), output.token_ids().begin(), output.token_ids().end());
    text += output.text();
    finish += output.finish_reason();
    failure += output.failure().code();
    ++outputs;
    starts += output.started() ? 1 : 0;
    dropped = dropped || output.dropped();
  }
};

Answer run_alone(Engine& engine, ManualClock& clock, v1::Assign assign) {
  engine.start(std::move(assign));
  Answer answer;
  while (!engine.idle()) {
    if (engine.wait_us() > 0) clock.advance_ms((engine.wait_us() + 999) / 1000);
    v1::Step step;
    engine.step(step);
    EXPECT_LE(step.outputs_size(), 1);
    for (const v1::Output& output : step.outputs()) answer.add(output);
  }
  return answer;
}

TEST(ScriptedEngineTest, SaysItsTokens) {
  ManualClock clock;
  const auto engine = make_scripted_engine(options(3, 20), clock);
  const Answer answer = run_alone(*engine, clock, assignment(1));
  EXPECT_EQ(answer.ids, (std::vector<std::uint32_t>{0, 1, 2}));
  EXPECT_EQ(answer.text, "tok0 tok1 tok2 ");
  EXPECT_EQ(answer.finish, "stop");
  EXPECT_EQ(answer.outputs, 3);
  EXPECT_EQ(answer.starts, 1);
}

TEST(ScriptedEngineTest, KeepsItsPace) {
  ManualClock clock;
  const auto engine = make_scripted_engine(options(3, 20), clock);
  engine->start(assignment(1));
  v1::Step step;
  engine->step(step);
  EXPECT_EQ(step.outputs_size(), 1);
  EXPECT_EQ(engine->wait_us(), 20'000);
  clock.advance_ms(19);
  step.Clear();
  engine->step(step);
  EXPECT_EQ(step.outputs_size(), 0);
  clock.advance_ms(1);
  engine->step(step);
  EXPECT_EQ(step.outputs_size(), 1);
  clock.advance_ms(1000);  // late: one token a step all the same
  step.Clear();
  engine->step(step);
  EXPECT_EQ(step.outputs_size(), 1);
  EXPECT_TRUE(engine->idle());
}

TEST(ScriptedEngineTest, WithoutAnIntervalAllComesAtOnce) {
  ManualClock clock;
  const auto engine = make_scripted_engine(options(64, 0), clock);
  const Answer answer = run_alone(*engine, clock, assignment(1));
  EXPECT_EQ(answer.outputs, 1);
  EXPECT_EQ(answer.ids.size(), 64u);
}

TEST(ScriptedEngineTest, HonoursMaxTokens) {
  ManualClock clock;
  const auto engine = make_scripted_engine(options(10, 5), clock);
  Answer answer = run_alone(*engine, clock, assignment(1, R"(,"max_tokens":4)"));
  EXPECT_EQ(answer.ids.size(), 4u);
  EXPECT_EQ(answer.finish, "length");
  answer = run_alone(*engine, clock, assignment(1, R"(,"max_tokens":40)"));
  EXPECT_EQ(answer.ids.size(), 10u);
  EXPECT_EQ(answer.finish, "stop");
}

TEST(ScriptedEngineTest, AnotherWorkerGoesOnWithTheSameAnswer) {
  ManualClock clock;
  const auto engine = make_scripted_engine(options(12, 5), clock);
  const Answer whole = run_alone(*engine, clock, assignment(1));
  for (std::uint32_t cut = 0; cut <= 12; ++cut) {
    for (const std::size_t held_back : {0u, 1u, 5u}) {
      std::string before;
      v1::Assign assign = assignment(1);
      v1::ChoiceProgress& progress = *assign.add_resume();
      for (std::uint32_t i = 0; i < cut; ++i) {
        progress.add_token_ids(i);
        before += "tok" + std::to_string(i) + " ";
      }
      before.resize(before.size() - std::min(before.size(), held_back));
      progress.set_text(before);
      const Answer rest = run_alone(*engine, clock, std::move(assign));
      EXPECT_EQ(before + rest.text, whole.text) << "cut " << cut;
      EXPECT_EQ(rest.ids.size(), 12 - cut);
      EXPECT_EQ(rest.finish, "stop");
      EXPECT_EQ(rest.starts, 1);
    }
  }
}

TEST(ScriptedEngineTest, CancelDropsWithTheNextStep) {
  ManualClock clock;
  const auto engine = make_scripted_engine(options(10, 1000), clock);
  engine->start(assignment(1));
  v1::Step step;
  engine->step(step);
  engine->cancel(assignment(2).fence());  // unknown: ignored
  engine->cancel(assignment(1).fence());
  engine->cancel(assignment(1).fence());
  EXPECT_EQ(engine->wait_us(), 0);
  step.Clear();
  engine->step(step);
  ASSERT_EQ(step.outputs_size(), 1);
  EXPECT_TRUE(step.outputs(0).dropped());
  EXPECT_TRUE(engine->idle());
}

TEST(ScriptedEngineTest, ABadBodyIsTheRequestsFault) {
  ManualClock clock;
  const auto engine = make_scripted_engine(options(3, 0), clock);
  v1::Assign assign = assignment(1);
  assign.mutable_envelope()->set_data("{");
  const Answer answer = run_alone(*engine, clock, std::move(assign));
  EXPECT_EQ(answer.failure, "invalid_argument");
  EXPECT_EQ(answer.starts, 0);
}

TEST(ScriptedEngineDeathTest, CrashesOnItsWord) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  ScriptedOptions crashing = options(3, 0);
  crashing.crash_on = "poison";
  ManualClock clock;
  const auto engine = make_scripted_engine(crashing, clock);
  EXPECT_EQ(run_alone(*engine, clock, assignment(1, "", "water")).finish, "stop");
  EXPECT_EXIT(engine->start(assignment(2, "", "a poison pill")),
              testing::ExitedWithCode(kScriptedCrashExit), "");
}

// Many requests started, cancelled and stepped at random: each gets its own whole answer.
TEST(ScriptedEngineTest, RequestsDontDisturbEachOther) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  ManualClock clock;
  const auto engine = make_scripted_engine(options(20, 3), clock);
  std::map<std::string, Answer> answers;
  int started = 0;
  while (started < 100 || !engine->idle()) {
    if (started < 100 && random() % 2 == 0) engine->start(assignment(started++));
    if (random() % 16 == 0 && started > 0) {
      const auto any = static_cast<int>(random() % static_cast<unsigned>(started));
      engine->cancel(assignment(any).fence());
    }
    clock.advance_ms(static_cast<TimeMs>(random() % 4));
    v1::Step step;
    engine->step(step);
    for (const v1::Output& output : step.outputs()) answers[output.fence().request()].add(output);
  }
  ASSERT_EQ(answers.size(), 100u);
  for (const auto& [request, answer] : answers) {
    if (answer.dropped) continue;
    EXPECT_EQ(answer.ids.size(), 20u);
    EXPECT_EQ(answer.finish, "stop");
  }
}

TEST(ScriptedEngineTest, ChoicesResumeEachForItself) {
  ManualClock clock;
  const auto engine = make_scripted_engine(options(6, 5), clock);
  v1::Assign assign = assignment(1, R"(,"n":3)");
  v1::ChoiceProgress& half = *assign.add_resume();
  half.add_token_ids(0);
  half.set_text("tok0 ");
  assign.add_resume()->set_finish_reason("stop");
  engine->start(std::move(assign));
  std::map<std::uint32_t, Answer> answers;
  int ends = 0;
  while (!engine->idle()) {
    clock.advance_ms(5);
    v1::Step step;
    engine->step(step);
    for (const v1::Output& output : step.outputs()) {
      answers[output.choice()].add(output);
      ends += !output.finish_reason().empty() && !output.more() ? 1 : 0;
    }
  }
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0].text, "tok1 tok2 tok3 tok4 tok5 ");
  EXPECT_EQ(answers[2].ids.size(), 6u);
  EXPECT_EQ(answers[0].starts + answers[2].starts, 1);
  EXPECT_EQ(ends, 1);
}

TEST(ScriptedEngineTest, GoesOnFromTextAlone) {
  ManualClock clock;
  const auto engine = make_scripted_engine(options(4, 5), clock);
  v1::Assign assign = assignment(1);
  assign.add_resume()->set_text("tok0 tok1 to");
  const Answer rest = run_alone(*engine, clock, std::move(assign));
  EXPECT_EQ(rest.text, "k2 tok3 ");
  EXPECT_EQ(rest.ids, (std::vector<std::uint32_t>{3}));
}

TEST(ScriptedEngineTest, EmbedsWhenAskedTo) {
  ManualClock clock;
  ScriptedOptions with = options(3, 0);
  with.embed = 8;
  const auto engine = make_scripted_engine(with, clock);
  EXPECT_EQ(engine->models()[0].tasks_size(), 3);
  v1::Assign assign = assignment(1);
  assign.mutable_envelope()->set_type("waystation.embedding.request.v1");
  assign.mutable_envelope()->set_data(R"({"model":"scripted","input":["a","b","a"]})");
  engine->start(std::move(assign));
  v1::Step step;
  engine->step(step);
  ASSERT_EQ(step.outputs_size(), 1);
  const v1::Output& output = step.outputs(0);
  ASSERT_EQ(output.embeddings_size(), 3);
  EXPECT_EQ(output.embeddings(0).size(), 32u);
  EXPECT_EQ(output.embeddings(0), output.embeddings(2));
  EXPECT_NE(output.embeddings(0), output.embeddings(1));
  EXPECT_EQ(output.finish_reason(), "stop");
  EXPECT_TRUE(engine->idle());
}

TEST(ScriptedEngineTest, CallsAToolWhenAskedTo) {
  ManualClock clock;
  ScriptedOptions with = options(5, 5);
  with.tools = 1;
  const auto engine = make_scripted_engine(with, clock);
  const std::string tools = R"(,"tools":[{"type":"function","function":{"name":"f"}}])";
  engine->start(assignment(1, tools));
  std::string arguments;
  std::string finish;
  std::vector<v1::ToolCallDelta> pieces;
  while (!engine->idle()) {
    clock.advance_ms(5);
    v1::Step step;
    engine->step(step);
    for (const v1::Output& output : step.outputs()) {
      EXPECT_EQ(output.text(), "");
      for (const v1::ToolCallDelta& piece : output.tool_calls()) pieces.push_back(piece);
      finish += output.finish_reason();
    }
  }
  ASSERT_EQ(pieces.size(), 5u);
  EXPECT_EQ(pieces[0].name(), "f");
  for (const v1::ToolCallDelta& piece : pieces) arguments += piece.arguments();
  EXPECT_EQ(arguments, R"({"words":["tok1 ","tok2 ","tok3 "]})");
  EXPECT_EQ(finish, "tool_calls");

  v1::Assign again = assignment(1, tools);
  v1::ChoiceProgress& progress = *again.add_resume();
  progress.add_token_ids(0);
  progress.add_token_ids(1);
  v1::ToolCallDelta& call = *progress.add_tool_calls();
  call = pieces[0];
  call.mutable_arguments()->append(pieces[1].arguments());
  std::string rest = call.arguments();
  engine->start(std::move(again));
  while (!engine->idle()) {
    clock.advance_ms(5);
    v1::Step step;
    engine->step(step);
    for (const v1::Output& output : step.outputs()) {
      for (const v1::ToolCallDelta& piece : output.tool_calls()) rest += piece.arguments();
    }
  }
  EXPECT_EQ(rest, arguments);
}

TEST(ScriptedOptionsTest, ParsesAndRefusesWithAHint) {
  EXPECT_EQ(parse_scripted_options("")->tokens, 64u);
  const auto parsed = parse_scripted_options("tokens=5,interval-ms=0,slots=2,name=x,crash-on=boom");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->tokens, 5u);
  EXPECT_EQ(parsed->interval_ms, 0u);
  EXPECT_EQ(parsed->slots, 2u);
  EXPECT_EQ(parsed->name, "x");
  EXPECT_EQ(parsed->crash_on, "boom");
  const auto message = [](std::string_view text) {
    const auto result = parse_scripted_options(text);
    return result ? std::string() : result.error().message;
  };
  EXPECT_NE(message("interval=3").find("did you mean 'interval-ms'"), std::string::npos);
  EXPECT_NE(message("tokns=3").find("did you mean 'tokens'"), std::string::npos);
  EXPECT_NE(message("tokens=0").find("from 1 to"), std::string::npos);
  EXPECT_NE(message("tokens=3x").find("not '3x'"), std::string::npos);
  EXPECT_NE(message("tokens").find("key=value"), std::string::npos);
  EXPECT_NE(message("tokens=3,tokens=4").find("twice"), std::string::npos);
  EXPECT_NE(message("tokens=3,").find("comma"), std::string::npos);
}

}  // namespace
}  // namespace waystation::engine
