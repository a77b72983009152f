#include "engine/llama/text.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace waystation::engine {
namespace {

const std::string kBroken = "\xEF\xBF\xBD";

std::string decode(const std::vector<std::string>& pieces) {
  Utf8Decoder decoder;
  std::string out;
  for (const std::string& piece : pieces) decoder.push(piece, out);
  decoder.finish(out);
  return out;
}

TEST(Utf8Decoder, WaitsForTheRestOfACharacter) {
  Utf8Decoder decoder;
  std::string out;
  decoder.push("a\xF0\x9F", out);
  EXPECT_EQ(out, "a");
  decoder.push("\x90", out);
  EXPECT_EQ(out, "a");
  decoder.push("\x8E!", out);
  EXPECT_EQ(out, "a🐎!");
}

TEST(Utf8Decoder, ReplacesEachBrokenPieceOnce) {
  EXPECT_EQ(decode({"\x80"}), kBroken);
  EXPECT_EQ(decode({"\xE4\xBD", "x"}), kBroken + "x");
  EXPECT_EQ(decode({"\xC0\xAF"}), kBroken + kBroken);                // overlong
  EXPECT_EQ(decode({"\xED\xA0\x80"}), kBroken + kBroken + kBroken);  // a surrogate
  EXPECT_EQ(decode({"\xF4\x90\x80\x80"}), kBroken + kBroken + kBroken + kBroken);
  EXPECT_EQ(decode({"\xF0\x9F\x90"}), kBroken);  // the end cuts it
  EXPECT_EQ(decode({"\xF0\x9F", "\xF0\x9F\x90\x8E"}), kBroken + "🐎");
}

TEST(Utf8Decoder, TheCutOfPiecesDoesNotMatter) {
  std::mt19937 random(7);
  const std::string alphabet[] = {"a", "é", "中", "🐎", "\x80", "\xE4", "\xF0\x9F", "\xED\xA0"};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 8; ++i) text += alphabet[random() % std::size(alphabet)];
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t take = 1 + random() % 3;
      pieces.push_back(text.substr(at, take));
      at += take;
    }
    ASSERT_EQ(decode(pieces), decode({text})) << "seed 7, round " << round;
  }
}

TEST(TextAssembler, WithoutStopsNothingIsHeldBack) {
  TextAssembler text({});
  EXPECT_EQ(text.push("Hello"), "Hello");
  EXPECT_EQ(text.push(" 中"), " 中");
  EXPECT_EQ(text.finish(), "");
}

TEST(TextAssembler, StopAcrossPieces) {
  TextAssembler text({"\nUser:"});
  EXPECT_EQ(text.push("Yes.\n"), "Yes.");
  EXPECT_EQ(text.push("Us"), "");
  EXPECT_FALSE(text.stopped());
  EXPECT_EQ(text.push("er: and"), "");
  EXPECT_TRUE(text.stopped());
  EXPECT_EQ(text.finish(), "");
}

TEST(TextAssembler, WhatLookedLikeAStopComesLater) {
  TextAssembler text({"<end>", "ab"});
  EXPECT_EQ(text.push("x<en"), "x");
  EXPECT_EQ(text.push("try"), "<entry");
  EXPECT_EQ(text.push("a"), "");
  EXPECT_EQ(text.push("a"), "a");
  EXPECT_EQ(text.finish(), "a");
}

TEST(TextAssembler, TheEarliestStopWins) {
  TextAssembler text({"late", "ear"});
  EXPECT_EQ(text.push("an early late one"), "an ");
  EXPECT_TRUE(text.stopped());
}

TEST(TextAssembler, AStopInsideACharacterOfSeveralTokens) {
  TextAssembler text({"🐎"});
  EXPECT_EQ(text.push("ride \xF0\x9F"), "ride ");
  EXPECT_EQ(text.push("\x90\x8E"), "");
  EXPECT_TRUE(text.stopped());
}

// The same pieces give the same parts: an answer that is replayed goes on where it was.
TEST(TextAssembler, IsAFunctionOfItsPieces) {
  std::mt19937 random(11);
  const std::vector<std::string> stops = {"STOP", "中国"};
  const std::string alphabet[] = {"S",  "ST",       "TO",   "O",        "P ",
                                  "中", "\xE5\x9B", "\xBD", "\xF0\x9F", "x"};
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> pieces;
    std::string raw;
    for (int i = 0; i < 12; ++i)
      raw += pieces.emplace_back(alphabet[random() % std::size(alphabet)]);
    TextAssembler whole(stops);
    std::string seen;
    for (const std::string& piece : pieces) {
      if (!whole.stopped()) seen += whole.push(piece);
    }
    seen += whole.finish();
    std::string decoded = decode({raw});
    std::size_t end = std::string::npos;
    for (const std::string& stop : stops) end = std::min(end, decoded.find(stop));
    ASSERT_EQ(whole.stopped(), end != std::string::npos) << "seed 11, round " << round;
    ASSERT_EQ(seen, decoded.substr(0, end)) << "seed 11, round " << round;
  }
}

}  // namespace
}  // namespace waystation::engine
