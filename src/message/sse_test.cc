#include "message/sse.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace waystation::message
