// Clients that end their sending and go on reading.
#include "front/http_fixture.h"

namespace waystation::front {
namespace {

// As `nc -N` does, and some proxies.
TEST_F(Http, AClientThatOnlyEndsItsSendingGetsItsAnswer) {
  start();
  std::size_t count = 0;
  for (const std::string& body : {kBody, kStreamBody}) {
    TestClient client(port_);
    client.post("/v1/chat/completions", body);
    const RequestId id = api_.wait_request(++count);
    client.end_sending();
    EXPECT_EQ(client.head().status, 100) << "how the server sees whether the client is there";
    answer_fully(id);
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_TRUE(answer.is_whole);
    EXPECT_TRUE(contains(answer.body, "Hel")) << answer.body;
    EXPECT_TRUE(client.is_at_end()) << "nothing more can be asked";
  }
  // On a stream that has begun it is a comment.
  TestClient client(port_);
  client.post("/v1/chat/completions", kStreamBody);
  const RequestId id = api_.wait_request(++count);
  api_.push(id, {FakeApi::start()});
  EXPECT_EQ(client.head().status, 200);
  client.end_sending();
  std::string chunk;
  while (client.next_chunk(chunk) && chunk != ": keep-alive\n\n") {
    EXPECT_FALSE(chunk.empty());
  }
  api_.push(id, {FakeApi::delta("Hello"), FakeApi::stop()});
  api_.end(id, FakeApi::completed());
  std::string rest;
  while (client.next_chunk(chunk) && !chunk.empty()) rest += chunk;
  EXPECT_TRUE(contains(rest, "Hello")) << rest;
  EXPECT_TRUE(rest.ends_with("data: [DONE]\n\n")) << rest;
}

TEST_F(Http, PipelinedRequestsAreAnsweredAfterTheSendingHasEnded) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody);
  const RequestId id = api_.wait_request();
  client.get("/healthz");
  client.get("/metrics");
  client.end_sending();
  EXPECT_EQ(client.head().status, 100);
  answer_fully(id);
  EXPECT_TRUE(contains(client.answer().body, "chat.completion"));
  EXPECT_EQ(client.answer().body, R"({"status":"ok"})");
  EXPECT_EQ(client.answer().body, "x 1\n");
  EXPECT_TRUE(client.is_at_end());
}

TEST_F(Http, AClientThatLeavesAfterItsSendingHasEndedIsReported) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kStreamBody);
  const RequestId id = api_.wait_request();
  client.end_sending();
  EXPECT_EQ(client.head().status, 100);
  api_.push(id, {FakeApi::start()});
  EXPECT_EQ(client.head().status, 200);
  client.close();
  api_.push(id, {FakeApi::delta("Hello")});  // nobody takes it
  const auto detach = api_.wait_detach();
  EXPECT_EQ(detach.id, id);
  EXPECT_TRUE(detach.client_gone);
}

}  // namespace
}  // namespace waystation::front
