#include "stream/render/renderer.h"

#include <gtest/gtest.h>

#include <random>

#include "message/sse.h"
#include "stream/render/testing.h"

namespace waystation::stream {
namespace {

TEST(Renderers, AreChosenByApi) {
  for (const char* api : {"chat.completions", "completions", "embeddings"}) {
    EXPECT_NE(make_renderer(test_identity(api)), nullptr) << api;
    EXPECT_NE(make_collector(test_identity(api)), nullptr) << api;
  }
  EXPECT_NE(make_renderer(test_identity("")), nullptr) << "accepted before there was a choice";
  EXPECT_EQ(make_renderer(test_identity("telepathy")), nullptr);
  EXPECT_EQ(make_collector(test_identity("telepathy")), nullptr);
}

TEST(Renderers, StreamsEndWithDoneOrAnError) {
  for (const char* api : {"chat.completions", "completions"}) {
    const auto renderer = make_renderer(test_identity(api));
    KeptFrames frames;
    renderer->on_ending(frames, test_ending());
    Ending ending = test_ending();
    ending.state = v1::REQUEST_STATE_FAILED;
    ending.failure.set_code("context_length_exceeded");
    ending.failure.set_param("messages");
    renderer->on_ending(frames, ending);
    renderer->on_error(frames, {Code::kUnavailable, "stopping"});
    ASSERT_EQ(frames.datas.size(), 3u);
    EXPECT_EQ(frames.datas[0], "[DONE]");
    EXPECT_EQ(frames.datas[1],
              R"({"error":{"message":"the request failed","type":"invalid_request_error",)"
              R"("param":"messages","code":"context_length_exceeded"}})");
    EXPECT_NE(frames.datas[2].find("stopping"), std::string::npos);
    for (const auto& name : frames.names) EXPECT_EQ(name, "") << "no event of the request";
  }
}

TEST(Frames, OfAnApiHaveNoIds) {
  std::string out;
  ApiFrames plain(out, false);
  plain.frame("x", "{}");
  ApiFrames named(out, true);
  named.frame("x", "{}");
  named.frame("", "{}");
  EXPECT_EQ(out, "data: {}\n\nevent: x\ndata: {}\n\ndata: {}\n\n");
}

TEST(Frames, NumberedOnesHaveTheirIdOnTheLastOfTheEvent) {
  std::string out;
  NumberedFrames frames(out);
  frames.frame("a", "1");
  frames.end_event(7);
  frames.frame("b", "2");
  frames.frame("c", "3");
  frames.frame("", "[DONE]");
  frames.end_event(8);
  frames.end_event(9);  // made no frame
  EXPECT_EQ(out,
            "id: 7\nevent: a\ndata: 1\n\n"
            "event: b\ndata: 2\n\n"
            "id: 8\nevent: c\ndata: 3\n\n");
}

TEST(TerminalFrame, Golden) {
  Ending ending;
  ending.state = v1::REQUEST_STATE_COMPLETED;
  ending.sequence = 9;
  std::string out;
  append_terminal_frame(out, ending);
  EXPECT_EQ(out,
            "id: 9\nevent: waystation.request.completed\n"
            "data: {\"state\":\"completed\",\"sequence_number\":9}\n\n");

  ending.state = v1::REQUEST_STATE_DEAD;
  ending.failure.set_code("dead");
  ending.failure.set_message("3 workers died");
  out.clear();
  append_terminal_frame(out, ending);
  EXPECT_EQ(out,
            "id: 9\nevent: waystation.request.dead\n"
            "data: {\"state\":\"dead\",\"sequence_number\":9,\"error\":{\"message\":"
            "\"3 workers died\",\"type\":\"server_error\",\"param\":null,\"code\":\"dead\"}}\n\n");
}

TEST(Endings, ErrorsHaveTheCodeOfTheirState) {
  Ending ending;
  ending.state = v1::REQUEST_STATE_FAILED;
  ending.failure.set_code("context_length_exceeded");
  ending.failure.set_message("too long");
  ending.failure.set_param("messages");
  ending.failure.set_retry_after_ms(7);
  EXPECT_EQ(error_of(ending).code, Code::kContextLengthExceeded);
  EXPECT_EQ(error_of(ending).param, "messages");
  EXPECT_EQ(error_of(ending).retry_after_ms, 7);
  ending.state = v1::REQUEST_STATE_CANCELLED;
  EXPECT_EQ(error_of(ending).code, Code::kCancelled);
  ending.state = v1::REQUEST_STATE_EXPIRED;
  EXPECT_EQ(error_of(ending).code, Code::kExpired);
}

// A reader that comes back anywhere sees the frames that it would have seen had it stayed; and the
// chunks joined are the whole answer.
TEST(Renderers, ReplayFromAnywhereGivesTheSameBytes) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto pick = [&](unsigned n) {
    return std::uniform_int_distribution<unsigned>(0, n - 1)(random);
  };
  for (const char* api : {"chat.completions", "completions", "embeddings"}) {
    auto identity = test_identity(api);
    identity.choices = 3;
    identity.numbered = true;
    std::vector<v1::Event> events;
    std::vector<std::string> texts(3);
    for (std::uint32_t i = 0; i < 3; ++i) {
      events.push_back(test_event(v1::EVENT_KIND_START, "", "", i));
    }
    for (int i = 0; i < 60; ++i) {
      const std::uint32_t choice = pick(3);
      const std::string text = std::vector<std::string>{"", "a", "你", "\"\n"}[pick(4)];
      auto event = test_event(v1::EVENT_KIND_DELTA, text, "", choice);
      texts[choice] += text;
      if (pick(2) == 0) add_logprob(event, text, -1);
      if (pick(4) == 0) event.add_embeddings("\0\0\x80\x3f");
      events.push_back(event);
    }
    const auto whole = make_renderer(identity);
    const auto collector = make_collector(identity);
    std::vector<std::string> frames;
    for (std::size_t i = 0; i < events.size(); ++i) {
      frames.push_back(one_frame(*whole, i, events[i]));
      collector->add(events[i]);
    }
    const std::size_t from = pick(static_cast<unsigned>(events.size()));
    const auto late = make_renderer(identity);
    for (std::size_t i = late->needs_start() ? 0 : from; i < events.size(); ++i) {
      const std::string frame = one_frame(*late, i, events[i]);
      if (i >= from) {
        EXPECT_EQ(frame, frames[i]) << api << " event " << i;
      }
    }
    if (std::string_view(api) == "embeddings") continue;
    const std::string answer = collector->answer(test_ending()).value();
    for (const std::string& text : texts) {
      std::string escaped;
      for (const char c : text) {
        if (c == '"') {
          escaped += "\\\"";
        } else if (c == '\n') {
          escaped += "\\n";
        } else {
          escaped += c;
        }
      }
      EXPECT_NE(answer.find("\"" + escaped + "\""), std::string::npos) << answer;
    }
  }
}

}  // namespace
}  // namespace waystation::stream
