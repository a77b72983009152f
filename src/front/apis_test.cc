// OpenAI's APIs, the cache and the memory, as a client of the front door meets them.
#include <atomic>

#include "front/http_fixture.h"

namespace waystation::front {
namespace {

using Apis = Http;

// ---- the other APIs -----------------------------------------------------------------------------

TEST_F(Apis, SeveralChoicesToolCallsAndThinkingReachTheClient) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions",
              R"({"model":"m","n":2,"service_tier":"flex","messages":[{"role":"user",)"
              R"("content":"hi"}],"tools":[{"type":"function","function":{"name":"f"}}]})");
  const RequestId id = api_.wait_request();
  EXPECT_EQ(api_.submission(id).choices, 2u);
  EXPECT_EQ(api_.submission(id).envelope.priority(), -1);
  auto second_start = FakeApi::start();
  second_start.set_choice(1);
  auto thought = FakeApi::delta("");
  thought.set_reasoning("hm");
  auto call = FakeApi::delta("");
  call.set_choice(1);
  v1::ToolCallDelta& delta = *call.add_tool_calls();
  delta.set_id("call_1");
  delta.set_name("f");
  delta.set_arguments("{}");
  auto called = FakeApi::event(v1::EVENT_KIND_FINISH, "", "tool_calls");
  called.set_choice(1);
  api_.push(id, {FakeApi::start(), second_start, thought, call, FakeApi::delta("Yes"), called,
                 FakeApi::stop()});
  api_.end(id, FakeApi::completed());
  const Answer answer = client.answer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(contains(answer.body, R"("service_tier":"flex")")) << answer.body;
  EXPECT_TRUE(contains(answer.body, R"({"index":0,"message":{"role":"assistant","content":"Yes",)"
                                    R"("refusal":null,"reasoning_content":"hm"})"))
      << answer.body;
  EXPECT_TRUE(contains(answer.body, R"({"index":1,"message":{"role":"assistant","content":null,)"
                                    R"("refusal":null,"tool_calls":[{"id":"call_1")"))
      << answer.body;
  const std::string described = get("/v1/requests/" + id.to_string()).body;
  EXPECT_TRUE(contains(described, "\"result\":" + answer.body)) << described;
  EXPECT_TRUE(contains(described, R"("choices":2,"priority":-1)")) << described;
}

TEST_F(Apis, LegacyCompletionsAnswerAndStream) {
  start();
  TestClient client(port_);
  client.post("/v1/completions", R"({"model":"m","prompt":["a","b"]})");
  RequestId id = api_.wait_request();
  EXPECT_EQ(api_.submission(id).envelope.type(), "waystation.completion.request.v1");
  EXPECT_EQ(api_.submission(id).envelope.api(), "completions");
  EXPECT_EQ(api_.submission(id).choices, 2u);
  answer_fully(id);
  Answer answer = client.answer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(contains(answer.body, R"("object":"text_completion")")) << answer.body;
  EXPECT_TRUE(contains(answer.body, R"({"index":0,"text":"Hello","logprobs":null)")) << answer.body;
  EXPECT_TRUE(contains(get("/v1/requests/" + id.to_string()).body, "\"result\":" + answer.body));

  client.post("/v1/completions", R"({"model":"m","prompt":"a","stream":true})",
              "X-Resumable: true\r\n");
  id = api_.wait_request(2);
  auto token = FakeApi::delta("Hi");
  token.add_logprobs()->set_token("Hi");
  auto next_token = FakeApi::delta("!");
  next_token.add_logprobs()->set_token("!");
  api_.push(id, {FakeApi::start(), token, next_token, FakeApi::stop()});
  api_.end(id, FakeApi::completed());
  answer = client.answer();
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n")) << answer.body;
  const auto live = frames(answer.body);
  ASSERT_EQ(live.size(), 5u);
  EXPECT_TRUE(contains(live[2].data, R"("text_offset":[2])")) << live[2].data;
  // A reader that comes back in the middle sees the same offsets.
  const auto rest = frames(get("/v1/requests/" + id.to_string() + "/events?starting_after=1").body);
  ASSERT_EQ(rest.size(), 3u);
  EXPECT_EQ(rest[0].id, "2");
  EXPECT_EQ(rest[0].event, "text_completion");
  EXPECT_EQ(rest[0].data, live[2].data);
}

TEST_F(Apis, EmbeddingsAnswerAsFloatsOrBase64) {
  start();
  auto vectors = FakeApi::delta("");
  const float numbers[] = {0.5f, -2.0f};
  vectors.add_embeddings(std::string(reinterpret_cast<const char*>(numbers), sizeof numbers));
  std::size_t count = 0;
  for (const auto& [format, shown] : std::vector<std::pair<std::string, std::string>>{
           {"float", "[0.5,-2]"}, {"base64", "\"AAAAPwAAAMA=\""}}) {
    TestClient client(port_);
    client.post("/v1/embeddings",
                R"({"model":"m","input":"x","encoding_format":")" + format + "\"}");
    const RequestId id = api_.wait_request(++count);
    EXPECT_EQ(api_.submission(id).envelope.type(), "waystation.embedding.request.v1");
    api_.push(id, {FakeApi::start(), vectors, FakeApi::stop()});
    api_.end(id, FakeApi::completed());
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, R"({"object":"list","data":[{"object":"embedding","index":0,)"
                           R"("embedding":)" +
                               shown +
                               R"(}],"model":"m",)"
                               R"("usage":{"prompt_tokens":3,"total_tokens":3}})");
  }
}

TEST_F(Apis, BadBodiesOfAllApisNameTheField) {
  start();
  for (const char* path : {"/v1/chat/completions", "/v1/completions", "/v1/embeddings"}) {
    Answer answer = post(path, "");
    EXPECT_EQ(answer.status, 400) << path;
    EXPECT_TRUE(contains(answer.body, R"("type":"invalid_request_error","param":null,)"
                                      R"("code":"invalid_argument")"))
        << answer.body;
    answer = post(path, R"({"model":"m"})");
    EXPECT_EQ(answer.status, 400) << path;
    EXPECT_TRUE(contains(answer.body, "is required")) << answer.body;
  }
}

// ---- cache and memory ---------------------------------------------------------------------------

const std::string kGreedyBody =
    R"({"model":"m","temperature":0,"messages":[{"role":"user","content":"hi"}]})";

TEST_F(Apis, ACachedAnswerIsTheEarlierOne) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kGreedyBody);
  const RequestId id = api_.wait_request();
  EXPECT_EQ(api_.submission(id).envelope.cachekey().size(), 32u);
  EXPECT_EQ(api_.submission(id).cache_ttl_ms, 3'600'000);
  answer_fully(id);
  const Answer first = client.answer();
  EXPECT_EQ(first.headers.at("x-cache"), "miss");

  const Answer again =
      post("/v1/chat/completions", R"({"messages":[{"content":"hi","role":"user"}],"user":"u",)"
                                   R"("temperature":0,"model":"m"})");
  EXPECT_EQ(again.headers.at("x-cache"), "hit");
  EXPECT_EQ(again.headers.at("x-request-id"), id.to_string());
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(api_.submissions(), 1u);

  const Answer streamed = post(
      "/v1/chat/completions", kGreedyBody.substr(0, kGreedyBody.size() - 1) + R"(,"stream":true})");
  EXPECT_EQ(streamed.headers.at("x-cache"), "hit");
  EXPECT_EQ(frames(streamed.body).size(), 5u) << streamed.body;
}

TEST_F(Apis, TheCacheCanBeLeftOut) {
  start();
  const auto submission_of = [&](const std::string& headers) {
    TestClient client(port_);
    const std::size_t count = api_.submissions() + 1;
    client.post("/v1/chat/completions", kGreedyBody, headers);
    return api_.submission(api_.wait_request(count));
  };
  using broker::CacheUse;
  EXPECT_EQ(submission_of("Cache-Control: no-cache\r\n").cache, CacheUse::kRefresh);
  EXPECT_EQ(submission_of("Cache-Control: max-age=0, No-Store\r\n").cache, CacheUse::kNone);
  const auto submission = submission_of("Cache-Control: no-cache\r\nX-Cache-TTL: 60\r\n");
  EXPECT_EQ(submission.cache_ttl_ms, 60'000);
  const auto turn = submission_of("X-Conversation-Id: c\r\n");
  EXPECT_EQ(turn.cache, CacheUse::kNone) << "a conversation's turns are not the same twice";
  EXPECT_TRUE(turn.envelope.cachekey().empty());
  EXPECT_EQ(post("/v1/chat/completions", kGreedyBody, "X-Cache-TTL: soon\r\n").status, 400);
  stop();
  options_.cache = false;
  start();
  EXPECT_EQ(submission_of("").cache, CacheUse::kNone);
}

TEST_F(Apis, TurnsOfARememberedConversationGoThroughTheMemory) {
  start();
  const std::string header = "X-Conversation-Memory: true\r\n";
  Answer answer = post("/v1/chat/completions", kBody, header);
  EXPECT_EQ(answer.status, 400);
  EXPECT_TRUE(contains(answer.body, "needs X-Conversation-Id")) << answer.body;
  answer = post("/v1/chat/completions", kBody, header + "X-Conversation-Id: c\r\n");
  EXPECT_EQ(answer.status, 400);
  EXPECT_TRUE(contains(answer.body, "not enabled")) << answer.body;
  stop();

  std::atomic<int> turns{0};
  parts_.submit_turn = [&](broker::Submission submission,
                           broker::Callback<broker::Submitted> done) {
    ++turns;
    submission.compose = true;
    return api_.submit(std::move(submission), std::move(done));
  };
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody, header + "X-Conversation-Id: c\r\n");
  const RequestId id = api_.wait_request();
  EXPECT_TRUE(api_.submission(id).compose);
  answer_fully(id);
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_EQ(turns, 1);
  answer =
      post("/v1/embeddings", R"({"model":"m","input":"x"})", header + "X-Conversation-Id: c\r\n");
  EXPECT_EQ(answer.status, 400);
}

}  // namespace
}  // namespace waystation::front
