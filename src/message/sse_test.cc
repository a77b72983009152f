#include "message/sse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace waystation::message {
namespace {

TEST(Sse, Writes) {
  std::string out;
  append_sse_data(out, "[DONE]");
  append_sse_frame(out, 7, "x.y", "{}");
  append_sse_comment(out, "ping");
  EXPECT_EQ(out, "data: [DONE]\n\nid: 7\nevent: x.y\ndata: {}\n\n: ping\n\n");
}

TEST(Sse, ReadsBackWhatWasWrittenInPiecesOfAnySize) {
  std::string stream;
  append_sse_frame(stream, 0, "a", "1");
  append_sse_comment(stream, "ping");
  append_sse_data(stream, "two");
  stream += "data:x\r\ndata: y\r\nretry: 5\r\n\r\n";
  stream += "data: never finished\n";
  for (std::size_t piece = 1; piece <= stream.size(); ++piece) {
    SseParser parser;
    std::vector<SseFrame> frames;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      parser.feed(std::string_view(stream).substr(at, piece), frames);
    }
    ASSERT_EQ(frames.size(), 3u) << piece;
    EXPECT_EQ(frames[0].id, "0");
    EXPECT_EQ(frames[0].event, "a");
    EXPECT_EQ(frames[0].data, "1");
    EXPECT_EQ(frames[1].id, "");
    EXPECT_EQ(frames[1].event, "message");
    EXPECT_EQ(frames[1].data, "two");
    EXPECT_EQ(frames[2].data, "x\ny");
  }
}

std::vector<std::string> lines_of(const std::vector<SseFrame>& frames) {
  std::vector<std::string> lines;
  for (const SseFrame& frame : frames) {
    lines.push_back(frame.id + "|" + frame.event + "|" + frame.data);
  }
  return lines;
}

// Bytes that mean something to the parser, in any order.
std::string random_stream(std::mt19937_64& random) {
  const std::vector<std::string> pieces{
      "data", ":",    " ",     "\n",           "\r",
      "\r\n", "\n\n", "id: 4", "event",        "x",
      "世",   ": hm", "\t",    "data: {}\n\n", "data: [DONE]\r\n\r\n"};
  std::string stream;
  for (std::uint64_t i = random() % 60; i > 0; --i) stream += pieces[random() % pieces.size()];
  return stream;
}

TEST(Sse, HoweverAStreamIsCutItsFramesAreTheSame) {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    std::mt19937_64 random(seed);
    const std::string stream = random_stream(random);
    const std::size_t most = 1 + random() % 40;
    SseParser whole(most);
    std::vector<SseFrame> expected;
    const bool good = whole.feed(stream, expected);
    SseParser parser(most);
    std::vector<SseFrame> frames;
    bool still_good = true;
    for (std::size_t at = 0; at < stream.size();) {
      const std::size_t size = std::min<std::size_t>(random() % 5, stream.size() - at);
      const bool fed = parser.feed(std::string_view(stream).substr(at, size), frames);
      ASSERT_FALSE(fed && !still_good) << "seed " << seed;
      still_good = fed;
      at += size;
    }
    ASSERT_EQ(lines_of(frames), lines_of(expected)) << "seed " << seed;
    ASSERT_EQ(still_good, good) << "seed " << seed;
  }
}

TEST(Sse, ALineOrAFrameThatIsTooLargeEndsTheReading) {
  std::vector<SseFrame> frames;
  SseParser endless(100);
  std::size_t fed = 0;
  while (endless.feed("0123456789", frames) && fed < 10'000) fed += 10;
  EXPECT_EQ(fed, 100u);
  EXPECT_FALSE(endless.feed("\n\ndata: x\n\n", frames));
  EXPECT_TRUE(frames.empty());

  SseParser many_lines(100);
  fed = 0;
  while (many_lines.feed("data: 012345678\n", frames) && fed < 10'000) fed += 10;
  EXPECT_EQ(fed, 100u);

  // Frames, comments and empty lines in any number are fine, as long as each of them is small.
  SseParser parser(100);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(parser.feed(": ping\n\ndata: 0123456789\n\nevent: x\n", frames));
  }
  EXPECT_EQ(frames.size(), 1000u);
}

}  // namespace
}  // namespace waystation::message
