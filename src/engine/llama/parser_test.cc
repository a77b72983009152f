#include "engine/llama/parser.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace waystation::engine {
namespace {

struct Read {
  std::string text;
  std::string reasoning;
  std::vector<v1::ToolCallDelta> calls;

  void add(const Delta& delta) {
    text += delta.text;
    reasoning += delta.reasoning;
    for (const v1::ToolCallDelta& piece : delta.tool_calls) {
      if (piece.index() == calls.size()) {
        calls.push_back(piece);
      } else {
        ASSERT_LT(piece.index(), calls.size());
        EXPECT_TRUE(piece.name().empty() && piece.id().empty());
        calls[piece.index()].mutable_arguments()->append(piece.arguments());
      }
    }
  }
  std::string shown() const {
    std::string out = "[" + reasoning + "]" + text;
    for (const v1::ToolCallDelta& call : calls) out += "|" + call.name() + call.arguments();
    return out;
  }
};

std::string read(const AnswerFormat& format, const std::vector<std::string>& pieces) {
  const auto parser = make_answer_parser(format, "seed");
  Read all;
  for (const std::string& piece : pieces) {
    Delta delta;
    parser->push(piece, delta);
    all.add(delta);
  }
  Delta delta;
  parser->finish(delta);
  all.add(delta);
  return all.shown();
}

AnswerFormat thinking(bool begins = false) {
  AnswerFormat format;
  format.think_start = "<think>";
  format.think_end = "</think>";
  format.begins_thinking = begins;
  return format;
}

AnswerFormat own_tools() {
  AnswerFormat format;
  format.kind = AnswerFormat::Kind::kOwnTools;
  return format;
}

const std::string kCall =
    R"(<tool_call>{"name": "add", "arguments": {"a": "}\"{", "b": [1, {}]}}</tool_call>)";

TEST(AnswerParser, PlainNeedsNone) {
  EXPECT_EQ(make_answer_parser({}, "seed"), nullptr);
}

TEST(AnswerParser, Thinking) {
  EXPECT_EQ(read(thinking(), {"<think>\nwell </think>\n\nyes"}), "[well]yes");
  EXPECT_EQ(read(thinking(), {"yes <think>"}), "[]yes <think>");
  EXPECT_EQ(read(thinking(), {"\n<thin"}), "[]\n<thin");
  EXPECT_EQ(read(thinking(true), {"well</think>yes"}), "[well]yes");
  EXPECT_EQ(read(thinking(true), {"well </thin"}), "[well </thin]");
  EXPECT_EQ(read(thinking(true), {"\n</think>yes"}), "[]yes");
}

TEST(AnswerParser, OwnTools) {
  EXPECT_EQ(read(own_tools(), {kCall}), R"([]|add{"a": "}\"{", "b": [1, {}]})");
  EXPECT_EQ(read(own_tools(), {"I'll add. \n" + kCall + "\n" + kCall}),
            R"([]I'll add.|add{"a": "}\"{", "b": [1, {}]}|add{"a": "}\"{", "b": [1, {}]})");
  EXPECT_EQ(read(own_tools(), {"no <tool_calls> here "}), "[]no <tool_calls> here ");
  EXPECT_EQ(read(own_tools(), {"a <tool_call> b"}), "[]a <tool_call> b");
  EXPECT_EQ(read(own_tools(), {"a <tool_c"}), "[]a <tool_c");
  EXPECT_EQ(read(own_tools(), {R"(<tool_call>{"name": "ad)"}), "[]");
  EXPECT_EQ(read(own_tools(), {R"(<tool_call>{"name": "add", "arguments": {"a)"}), R"([]|add{"a)");
}

TEST(AnswerParser, CallIdsAreAFunctionOfRequestChoiceAndIndex) {
  EXPECT_EQ(tool_call_id("r/0", 0), tool_call_id("r/0", 0));
  EXPECT_NE(tool_call_id("r/0", 0), tool_call_id("r/0", 1));
  EXPECT_NE(tool_call_id("r/0", 0), tool_call_id("r/1", 0));
  EXPECT_EQ(tool_call_id("r/0", 0).size(), 29u);
}

// However the text is cut, the joined deltas are the same.
TEST(AnswerParser, TheCutDoesNotMatter) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::string words[] = {
      kCall,  "<think>",    "</think>", " ",  "\n",
      "word", "<tool_call", "<",        "{}", R"({"name":"x","arguments":{)"};
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (int i = 0; i < 5; ++i) text += words[random() % std::size(words)];
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t take = 1 + random() % 9;
      pieces.push_back(text.substr(at, take));
      at += take;
    }
    for (const AnswerFormat& format : {thinking(), thinking(true), own_tools()}) {
      ASSERT_EQ(read(format, pieces), read(format, {text})) << text;
    }
  }
}

// What another model said is written so that reading it gives the same again.
TEST(AnswerParser, WritesWhatItReads) {
  v1::ChoiceProgress progress;
  progress.set_text("Let me see.");
  v1::ToolCallDelta& call = *progress.add_tool_calls();
  call.set_name("add");
  call.set_arguments(R"({"a":[1,)");
  const auto written = text_as_written(own_tools(), progress, 0);
  ASSERT_TRUE(written);
  EXPECT_EQ(read(own_tools(), {*written}), R"([]Let me see.|add{"a":[1,)");
  progress.clear_tool_calls();
  progress.set_reasoning("hm");
  EXPECT_EQ(read(thinking(), {*text_as_written(thinking(), progress, 0)}), "[hm]Let me see.");
  EXPECT_EQ(read(thinking(true), {*text_as_written(thinking(true), progress, 0)}),
            "[hm]Let me see.");
  EXPECT_EQ(*text_as_written({}, progress, 4), "me see.");
}

}  // namespace
}  // namespace waystation::engine
