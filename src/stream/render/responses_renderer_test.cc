#include "stream/render/responses_renderer.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <random>

#include "message/response_items.h"

namespace waystation::stream {
namespace {

namespace json = boost::json;

const RequestId kId = RequestId::make(1'700'000'000'000, 2, 3);

class Frames final : public FrameSink {
 public:
  void frame(std::string_view name, std::string_view data) override {
    names.emplace_back(name);
    bytes += std::string(name) + "\n" + std::string(data) + "\n";
    documents.push_back(json::parse(json::string_view(data.data(), data.size())));
    EXPECT_EQ(documents.back().at("type").as_string(), name);
    EXPECT_EQ(documents.back().at("sequence_number").to_number<std::uint64_t>(), names.size() - 1);
    EXPECT_EQ(data.find('\n'), std::string_view::npos);
  }
  std::vector<std::string> names;
  std::vector<json::value> documents;
  std::string bytes;
};

v1::Event event(v1::EventKind kind, std::string text = "", std::string finish = "") {
  v1::Event out;
  out.set_kind(kind);
  out.set_text(std::move(text));
  out.set_finish_reason(std::move(finish));
  return out;
}
v1::Event start() {
  return event(v1::EVENT_KIND_START);
}
v1::Event delta(std::string text) {
  return event(v1::EVENT_KIND_DELTA, std::move(text));
}
v1::Event finish(std::string reason = "stop") {
  return event(v1::EVENT_KIND_FINISH, "", reason);
}
v1::Event reasoning(std::string text) {
  v1::Event out = delta("");
  out.set_reasoning(std::move(text));
  return out;
}
v1::Event call(std::uint32_t index, std::string id, std::string name, std::string arguments) {
  v1::Event out = delta("");
  v1::ToolCallDelta& tool = *out.add_tool_calls();
  tool.set_index(index);
  tool.set_id(std::move(id));
  tool.set_name(std::move(name));
  tool.set_arguments(std::move(arguments));
  return out;
}

Ending ended(v1::RequestState state = v1::REQUEST_STATE_COMPLETED, std::string reason = "stop") {
  Ending out;
  out.state = state;
  out.finish_reason = std::move(reason);
  out.usage.set_prompt_tokens(5);
  out.usage.set_cached_prompt_tokens(4);
  out.usage.set_completion_tokens(3);
  out.usage.set_reasoning_tokens(1);
  return out;
}

RenderIdentity identity(std::string echo = "\"background\":false,\"model\":\"m\"") {
  RenderIdentity out;
  out.id = kId;
  out.api = "responses";
  out.model = "m";
  out.echo = std::move(echo);
  return out;
}

Frames rendered(const std::vector<v1::Event>& events, const Ending& ending,
                const RenderIdentity& shown = identity()) {
  Frames out;
  ResponsesRenderer renderer(shown);
  Sequence sequence = 0;
  for (const v1::Event& e : events) renderer.on_event(out, sequence++, e);
  renderer.on_ending(out, ending);
  return out;
}

TEST(ResponsesRendererTest, ATextHasAllItsEventsInOrder) {
  const Frames frames = rendered({start(), delta("a"), delta(""), delta("b"), finish()}, ended());
  EXPECT_EQ(frames.names,
            (std::vector<std::string>{"response.created", "response.in_progress",
                                      "response.output_item.added", "response.content_part.added",
                                      "response.output_text.delta", "response.output_text.delta",
                                      "response.output_text.done", "response.content_part.done",
                                      "response.output_item.done", "response.completed"}));
  const std::string item = message::item_id("msg", kId, "0");
  EXPECT_EQ(frames.documents[2].at("item").at("id").as_string(), item);
  EXPECT_EQ(frames.documents[4].at("item_id").as_string(), item);
  EXPECT_EQ(frames.documents[6].at("text").as_string(), "ab");
  const json::value& response = frames.documents.back().at("response");
  EXPECT_EQ(response.at("id").as_string(), message::response_id(kId));
  EXPECT_EQ(response.at("created_at").as_int64(), 1'700'000'000);
  EXPECT_EQ(response.at("status").as_string(), "completed");
  EXPECT_EQ(response.at("output").at(0).at("content").at(0).at("text").as_string(), "ab");
  EXPECT_EQ(response.at("output").at(0).at("status").as_string(), "completed");
  EXPECT_EQ(
      json::serialize(response.at("usage")),
      R"({"input_tokens":5,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":0},)"
      R"("output_tokens":3,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":8})");
}

TEST(ResponsesRendererTest, CutOffByTheLimitItIsIncomplete) {
  const Frames frames = rendered({start(), delta("a"), finish("length")},
                                 ended(v1::REQUEST_STATE_COMPLETED, "length"));
  EXPECT_EQ(frames.names.back(), "response.incomplete");
  const json::value& response = frames.documents.back().at("response");
  EXPECT_EQ(response.at("status").as_string(), "incomplete");
  EXPECT_EQ(response.at("incomplete_details").at("reason").as_string(), "max_output_tokens");
  EXPECT_EQ(response.at("output").at(0).at("status").as_string(), "incomplete");
}

TEST(ResponsesRendererTest, ThinkingThenTextThenCallsAreItemsOfTheirOwn) {
  const Frames frames =
      rendered({start(), reasoning("hm"), reasoning("m"), delta("so"),
                call(0, "call_a", "f", "{\"x\""), call(1, "call_b", "g", ""),
                call(0, "", "", ":1}"), call(1, "", "", "{}"), finish("tool_calls")},
               ended(v1::REQUEST_STATE_COMPLETED, "tool_calls"));
  EXPECT_EQ(frames.names, (std::vector<std::string>{"response.created",
                                                    "response.in_progress",
                                                    "response.output_item.added",
                                                    "response.content_part.added",
                                                    "response.reasoning_text.delta",
                                                    "response.reasoning_text.delta",
                                                    "response.reasoning_text.done",
                                                    "response.content_part.done",
                                                    "response.output_item.done",
                                                    "response.output_item.added",
                                                    "response.content_part.added",
                                                    "response.output_text.delta",
                                                    "response.output_text.done",
                                                    "response.content_part.done",
                                                    "response.output_item.done",
                                                    "response.output_item.added",
                                                    "response.function_call_arguments.delta",
                                                    "response.output_item.added",
                                                    "response.function_call_arguments.delta",
                                                    "response.function_call_arguments.delta",
                                                    "response.function_call_arguments.done",
                                                    "response.output_item.done",
                                                    "response.function_call_arguments.done",
                                                    "response.output_item.done",
                                                    "response.completed"}));
  const json::value& output = frames.documents.back().at("response").at("output");
  ASSERT_EQ(output.as_array().size(), 4u);
  EXPECT_EQ(output.at(0).at("type").as_string(), "reasoning");
  EXPECT_EQ(output.at(0).at("content").at(0).at("text").as_string(), "hmm");
  EXPECT_EQ(output.at(1).at("content").at(0).at("text").as_string(), "so");
  EXPECT_EQ(output.at(2).at("call_id").as_string(), "call_a");
  EXPECT_EQ(output.at(2).at("arguments").as_string(), "{\"x\":1}");
  EXPECT_EQ(output.at(3).at("name").as_string(), "g");
  EXPECT_EQ(output.at(3).at("arguments").as_string(), "{}");
}

TEST(ResponsesRendererTest, ABackgroundResponseIsQueuedFirst) {
  Frames frames;
  ResponsesRenderer renderer(identity("\"background\":true,\"model\":\"m\""));
  renderer.begin(frames);
  renderer.on_event(frames, 0, start());
  EXPECT_EQ(frames.names, (std::vector<std::string>{"response.created", "response.queued",
                                                    "response.in_progress"}));
  EXPECT_EQ(frames.documents[0].at("response").at("status").as_string(), "queued");
  EXPECT_EQ(frames.documents[2].at("response").at("status").as_string(), "in_progress");
}

TEST(ResponsesRendererTest, FailedAndCancelledOnesAreSaidToBe) {
  Ending failed = ended(v1::REQUEST_STATE_FAILED, "");
  failed.failure.set_code("context_length_exceeded");
  failed.failure.set_message("too long");
  Frames frames = rendered({}, failed);
  EXPECT_EQ(frames.names, (std::vector<std::string>{"response.created", "response.failed"}));
  EXPECT_EQ(frames.documents[1].at("response").at("error").at("code").as_string(),
            "invalid_prompt");
  frames = rendered({start(), delta("a")}, ended(v1::REQUEST_STATE_CANCELLED, ""));
  EXPECT_EQ(frames.names.back(), "response.failed");
  const json::value& response = frames.documents.back().at("response");
  EXPECT_EQ(response.at("status").as_string(), "cancelled");
  EXPECT_TRUE(response.at("error").is_null());
  EXPECT_EQ(response.at("output").at(0).at("status").as_string(), "incomplete");
}

TEST(ResponsesRendererTest, AnEmptyAnswerIsAnEmptyMessage) {
  const Frames frames = rendered({start(), finish()}, ended());
  const json::value& output = frames.documents.back().at("response").at("output");
  ASSERT_EQ(output.as_array().size(), 1u);
  EXPECT_EQ(output.at(0).at("content").at(0).at("text").as_string(), "");
}

TEST(ResponsesRendererTest, LogprobsGoWithTheirText) {
  v1::Event with = delta("é");
  v1::TokenLogprob& token = *with.add_logprobs();
  token.set_token("é");
  token.set_logprob(-0.5f);
  const Frames frames = rendered({start(), with, finish()}, ended());
  EXPECT_EQ(frames.documents[4].at("logprobs").at(0).at("token").as_string(), "é");
  const json::value& part =
      frames.documents.back().at("response").at("output").at(0).at("content").at(0);
  EXPECT_EQ(part.at("logprobs").as_array().size(), 1u);
}

TEST(ResponsesRendererTest, TheCollectorGivesTheSameObjectAsTheStream) {
  const std::vector<v1::Event> events = {start(), reasoning("r"), delta("a"), finish()};
  const Frames frames = rendered(events, ended());
  ResponsesCollector collector(identity());
  for (const v1::Event& e : events) collector.add(e);
  const auto answer = collector.answer(ended());
  ASSERT_TRUE(answer);
  EXPECT_NE(frames.bytes.find("\"response\":" + *answer + "}\n"), std::string::npos);
  EXPECT_FALSE(collector.answer(ended(v1::REQUEST_STATE_DEAD, "")));
}

// However a stream's text is cut into events, numbers have no gaps (Frames checks that), deltas
// join to the done text, and rendering again gives the same bytes.
TEST(ResponsesRendererTest, RandomStreamsAreWhole) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 100; ++round) {
    std::vector<v1::Event> events = {start()};
    for (int i = 0; i < 20; ++i) {
      const std::string piece(random() % 4, 'a' + static_cast<char>(random() % 26));
      switch (random() % 3) {
        case 0:
          events.push_back(delta(piece));
          break;
        case 1:
          events.push_back(reasoning(piece));
          break;
        default: {
          const std::uint32_t index = random() % 2;
          events.push_back(call(index, "call_" + std::to_string(index), "f", piece));
        }
      }
    }
    events.push_back(finish());
    const Frames frames = rendered(events, ended());
    EXPECT_EQ(rendered(events, ended()).bytes, frames.bytes);
    std::map<std::string, std::string> joined;
    std::map<std::string, std::string> done;
    for (const json::value& document : frames.documents) {
      const std::string type(std::string_view(document.at("type").as_string()));
      if (!document.as_object().contains("item_id")) continue;
      const std::string id(std::string_view(document.at("item_id").as_string()));
      if (type.ends_with(".delta")) {
        joined[id] += std::string_view(document.at("delta").as_string());
      } else if (type.ends_with("text.done") || type.ends_with("arguments.done")) {
        const char* member = type.ends_with("text.done") ? "text" : "arguments";
        EXPECT_FALSE(done.contains(id));
        done[id] = std::string_view(document.at(member).as_string());
      }
    }
    for (const auto& [id, text] : done) EXPECT_EQ(joined[id], text);
    EXPECT_GE(done.size(), joined.size());
  }
}

}  // namespace
}  // namespace waystation::stream
