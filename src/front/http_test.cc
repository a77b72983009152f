// The front door over real sockets, with a broker that does what the test says.
#include "front/http_fixture.h"

namespace waystation::front {
namespace {

// ---- answers ------------------------------------------------------------------------------------

TEST_F(Http, AnswersAtOnceWhenNotStreaming) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody);
  const RequestId id = api_.wait_request();
  answer_fully(id);
  const Answer answer = client.answer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
  EXPECT_EQ(answer.headers.at("x-request-id"), id.to_string());
  EXPECT_TRUE(contains(answer.body, R"("content":"Hello")")) << answer.body;
  EXPECT_TRUE(contains(answer.body, R"("id":"chatcmpl-)" + id.to_string())) << answer.body;
  EXPECT_TRUE(contains(answer.body, R"("finish_reason":"stop")"));
  EXPECT_TRUE(contains(answer.body, R"("total_tokens":5)"));

  const auto submission = api_.submission(id);
  EXPECT_EQ(submission.envelope.data(), kBody);
  EXPECT_EQ(submission.envelope.tenant(), "default");
  EXPECT_EQ(submission.envelope.model(), "m");
  EXPECT_EQ(submission.envelope.type(), "waystation.chat.request.v1");
  EXPECT_EQ(submission.envelope.api(), "chat.completions");
  EXPECT_EQ(submission.envelope.fingerprint().size(), 32u);
  EXPECT_FALSE(submission.detached);
  EXPECT_FALSE(answer.headers.contains("x-cache")) << "another answer could have come";
}

TEST_F(Http, StreamsEventsAsTheyCome) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kStreamBody);
  const RequestId id = api_.wait_request();
  api_.push(id, {FakeApi::start()});
  const Answer head = client.head();
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(head.headers.at("x-request-id"), id.to_string());
  std::string body;
  std::string chunk;
  ASSERT_TRUE(client.next_chunk(chunk));
  EXPECT_TRUE(contains(chunk, R"("role":"assistant")")) << chunk;
  body += chunk;
  api_.push(id, {FakeApi::delta("Hi")});
  ASSERT_TRUE(client.next_chunk(chunk));
  EXPECT_TRUE(contains(chunk, R"("content":"Hi")")) << chunk;
  body += chunk;
  api_.push(id, {FakeApi::stop()});
  api_.end(id, FakeApi::completed());
  while (client.next_chunk(chunk) && !chunk.empty()) body += chunk;
  EXPECT_TRUE(body.ends_with("data: [DONE]\n\n")) << body;
  EXPECT_FALSE(contains(body, "id: ")) << "no ids on OpenAI's stream";
  EXPECT_FALSE(contains(body, "event:"));
  EXPECT_FALSE(contains(body, "sequence_number")) << "not resumable";
  EXPECT_EQ(frames(body).size(), 4u);
  // The connection serves the next request.
  client.get("/healthz");
  EXPECT_EQ(client.answer().status, 200);
}

TEST_F(Http, ResumableStreamsAreNumberedAndUsageIsLast) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions",
              R"({"model":"m","stream":true,"stream_options":{"include_usage":true},)"
              R"("messages":[{"role":"user","content":"hi"}]})",
              "X-Resumable: true\r\nX-Conversation-Id: c 1\r\nX-Deadline-Ms: 5000\r\n");
  const RequestId id = api_.wait_request();
  const auto submission = api_.submission(id);
  EXPECT_TRUE(submission.detached);
  EXPECT_TRUE(submission.stream_usage);
  EXPECT_EQ(submission.envelope.partitionkey(), "c 1");
  EXPECT_EQ(submission.envelope.expirytime_ms(), submission.envelope.time_ms() + 5000);
  auto usage = FakeApi::event(v1::EVENT_KIND_USAGE);
  usage.mutable_usage()->set_prompt_tokens(4);
  api_.push(id, {FakeApi::start(), FakeApi::stop(), usage});
  api_.end(id, FakeApi::completed());
  const auto got = frames(client.answer().body);
  ASSERT_EQ(got.size(), 4u);
  EXPECT_TRUE(got[0].data.ends_with(R"("usage":null,"sequence_number":0})")) << got[0].data;
  EXPECT_TRUE(contains(got[2].data, R"("choices":[],"usage":{"prompt_tokens":4)")) << got[2].data;
  EXPECT_TRUE(got[2].data.ends_with(R"("sequence_number":2})"));
  EXPECT_EQ(got[3].data, "[DONE]");
}

TEST_F(Http, EventsThatComeBeforeTheAcceptanceWait) {
  start();
  api_.hold_submit(true);
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody);
  TestClient other(port_);
  other.get("/healthz");
  EXPECT_EQ(other.answer().status, 200);
  api_.hold_submit(false);
  answer_fully(api_.wait_request());
  EXPECT_EQ(client.answer().status, 200);
}

TEST_F(Http, KeepAliveServesManyRequestsAndPipelinedOnes) {
  start();
  TestClient client(port_);
  for (int i = 1; i <= 3; ++i) {
    client.post("/v1/chat/completions", kBody);
    answer_fully(api_.wait_request(static_cast<std::size_t>(i)));
    EXPECT_EQ(client.answer().status, 200);
  }
  // Sent while a chat is being answered: served after it.
  client.post("/v1/chat/completions", kBody);
  const RequestId id = api_.wait_request(4);
  client.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  answer_fully(id);
  EXPECT_TRUE(contains(client.answer().body, "chat.completion"));
  EXPECT_EQ(client.answer().body, R"({"status":"ok"})");
  EXPECT_EQ(client.answer().body, "x 1\n");
}

TEST_F(Http, WhatProxiesMayReadDifferentlyIsRefused) {
  start();
  for (const char* headers :
       {"", "Host: a\r\nHost: b\r\n", "Host: x\r\nTransfer-Encoding: gzip\r\n",
        "Host: x\r\nTransfer-Encoding: gzip, chunked\r\n"}) {
    TestClient client(port_);
    client.send("POST /v1/chat/completions HTTP/1.1\r\n" + std::string(headers) + "\r\n");
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 400) << headers;
    EXPECT_TRUE(contains(answer.body, "invalid_request_error")) << answer.body;
    client.get("/healthz");
    EXPECT_EQ(client.answer().status, 0) << "the connection must be closed: " << headers;
  }
}

TEST_F(Http, OldClientsGetAnUnchunkedStream) {
  start();
  TestClient client(port_);
  client.send("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: " +
              std::to_string(kStreamBody.size()) + "\r\n\r\n" + kStreamBody);
  answer_fully(api_.wait_request());
  const Answer answer = client.answer();
  EXPECT_EQ(answer.headers.count("transfer-encoding"), 0u);
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n"));
}

// ---- errors -------------------------------------------------------------------------------------

TEST_F(Http, BadRequestsNameTheField) {
  start();
  const Answer answer =
      post("/v1/chat/completions", R"({"model":"m","messages":[{"role":"user"}]})");
  EXPECT_EQ(answer.status, 400);
  EXPECT_TRUE(contains(answer.body, R"("param":"messages[0].content")")) << answer.body;
  EXPECT_TRUE(contains(answer.body, R"("type":"invalid_request_error")"));
  EXPECT_EQ(post("/v1/chat/completions", "{").status, 400);
  EXPECT_EQ(post("/v1/chat/completions", "").status, 400);
  EXPECT_EQ(api_.submissions(), 0u);
}

TEST_F(Http, BadHeadersAreRefused) {
  start();
  for (const std::string& header :
       {std::string("Idempotency-Key:"), "Idempotency-Key: " + std::string(256, 'k'),
        std::string("Idempotency-Key: \xc3\xa4"), "X-Conversation-Id: " + std::string(257, 'c'),
        std::string("X-Resumable: maybe"), std::string("X-Deadline-Ms: 0"),
        std::string("X-Deadline-Ms: soon")}) {
    const Answer answer = post("/v1/chat/completions", kBody, header + "\r\n");
    EXPECT_EQ(answer.status, 400) << header;
    EXPECT_TRUE(contains(answer.body, header.substr(0, header.find(':')))) << answer.body;
  }
  EXPECT_EQ(api_.submissions(), 0u);
}

TEST_F(Http, ARequestThatHasPassedThisServerIsRefused) {
  options_.instance = "this-one";
  start();
  for (const char* hops : {"this-one", "that, this-one", "this-one,that", "a , this-one , b"}) {
    const Answer answer =
        post("/v1/chat/completions", kBody, std::string("X-Waystation-Hops: ") + hops + "\r\n");
    EXPECT_EQ(answer.status, 508) << hops;
    EXPECT_TRUE(contains(answer.body, R"("code":"loop_detected")")) << answer.body;
    EXPECT_EQ(answer.headers.at("x-should-retry"), "false");
  }
  EXPECT_EQ(api_.submissions(), 0u);
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody,
              "X-Waystation-Hops: that, this-one-too\r\nIdempotency-Key: k\r\n"
              "X-Resumable: false\r\n");
  const RequestId id = api_.wait_request();
  EXPECT_EQ(api_.submission(id).envelope.hops(), "that, this-one-too");
  EXPECT_FALSE(api_.submission(id).detached);
}

TEST_F(Http, WhatOnlyAWorkerKnowsIsStillAStatus) {
  start();
  for (const std::string& body : {kBody, kStreamBody}) {
    const std::size_t count = api_.submissions() + 1;
    TestClient client(port_);
    client.post("/v1/chat/completions", body);
    const RequestId id = api_.wait_request(count);
    api_.end(id, FakeApi::failed(v1::REQUEST_STATE_FAILED, "context_length_exceeded", "too long"));
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 400);
    EXPECT_TRUE(contains(answer.body, R"("code":"context_length_exceeded")")) << answer.body;
    EXPECT_EQ(answer.headers.at("x-request-id"), id.to_string());
  }
}

TEST_F(Http, EndingsHaveTheirStatus) {
  start();
  struct Case {
    v1::RequestState state;
    std::string code;
    int status;
  };
  for (const Case& c : {Case{v1::REQUEST_STATE_CANCELLED, "cancelled", 409},
                        Case{v1::REQUEST_STATE_EXPIRED, "expired", 504},
                        Case{v1::REQUEST_STATE_DEAD, "dead", 500}}) {
    const std::size_t count = api_.submissions() + 1;
    TestClient client(port_);
    client.post("/v1/chat/completions", kBody);
    const RequestId id = api_.wait_request(count);
    api_.push(id, {FakeApi::start()});
    api_.end(id, FakeApi::failed(c.state, c.code, "why"));
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, c.status);
    EXPECT_TRUE(contains(answer.body, "\"code\":\"" + c.code + "\"")) << answer.body;
    EXPECT_EQ(answer.headers.at("x-should-retry"), "false");
  }
}

TEST_F(Http, ErrorsInMidStreamTravelInTheStream) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kStreamBody);
  const RequestId id = api_.wait_request();
  api_.push(id, {FakeApi::start(), FakeApi::delta("Hi")});
  api_.end(id, FakeApi::failed(v1::REQUEST_STATE_DEAD, "dead", "3 workers died"));
  const Answer answer = client.answer();
  EXPECT_EQ(answer.status, 200);
  const auto got = frames(answer.body);
  ASSERT_EQ(got.size(), 3u);
  EXPECT_TRUE(got[2].data.starts_with(R"({"error":{"message":"3 workers died")")) << got[2].data;
  EXPECT_FALSE(contains(answer.body, "[DONE]"));
  EXPECT_TRUE(client.is_at_end());
}

TEST_F(Http, RefusalsSayWhenToComeBack) {
  start();
  for (const bool by_call : {false, true}) {
    api_.refuse_submit({Code::kQueueFull, "full", "", 1500}, by_call);
    Answer answer = post("/v1/chat/completions", kStreamBody);
    EXPECT_EQ(answer.status, 429);
    EXPECT_EQ(answer.headers.at("retry-after"), "2");
    EXPECT_EQ(answer.headers.at("retry-after-ms"), "1500");
    EXPECT_TRUE(contains(answer.body, R"("type":"rate_limit_error")")) << answer.body;
    api_.refuse_submit({Code::kUnavailable, "journal failed"}, by_call);
    answer = post("/v1/chat/completions", kBody);
    EXPECT_EQ(answer.status, 503);
    EXPECT_EQ(answer.headers.at("retry-after"), "1");
    api_.accept_submit();
  }
  api_.refuse_submit({Code::kModelNotFound, "no model 'm'; there is: x", "model"});
  EXPECT_EQ(post("/v1/chat/completions", kBody).status, 404);
}

TEST_F(Http, UnknownPathsAndWrongMethods) {
  start();
  EXPECT_EQ(get("/nothing").status, 404);
  EXPECT_EQ(get("/v1/chat").status, 404);
  EXPECT_EQ(get("http://x/healthz").status, 200) << "as a proxy writes it";
  EXPECT_EQ(get("http://x").status, 404);
  EXPECT_EQ(get("/").status, 404);
  Answer answer = get("/v1/chat/completions");
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.headers.at("allow"), "POST");
  answer = post("/v1/models", "{}");
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.headers.at("allow"), "GET, HEAD");
  EXPECT_TRUE(contains(answer.body, R"("code":"method_not_allowed")")) << answer.body;
  EXPECT_TRUE(contains(answer.body, R"("param":null)")) << answer.body;
}

TEST_F(Http, MalformedHttpIs400AndCloses) {
  start();
  for (const char* bad : {"GARBAGE\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
                          "POST /v1/models HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                          "GET / HTTP/1.1\r\nBad Header: x\r\n\r\n"}) {
    TestClient client(port_);
    client.send(bad);
    EXPECT_EQ(client.answer().status, 400) << bad;
    EXPECT_TRUE(client.is_at_end()) << bad;
  }
}

// ---- limits -------------------------------------------------------------------------------------

TEST_F(Http, BodiesAndHeadersOverTheirLimitAreRefused) {
  options_.body_bytes_max = 10'000;
  options_.header_bytes_max = 1'000;
  start();
  {
    // The whole body is sent although nobody wants it: the answer must still arrive.
    TestClient client(port_);
    client.post("/v1/chat/completions", std::string(2'000'000, 'x'));
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 413);
    EXPECT_TRUE(contains(answer.body, "10000 bytes")) << answer.body;
  }
  {
    TestClient client(port_);
    client.send(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "4e20\r\n" +
        std::string(20'000, 'x') + "\r\n0\r\n\r\n");
    EXPECT_EQ(client.answer().status, 413) << "chunked bodies too";
  }
  const Answer answer = get("/healthz", "X-Long: " + std::string(2'000, 'x') + "\r\n");
  EXPECT_EQ(answer.status, 431);
  EXPECT_TRUE(contains(answer.body, R"("code":"headers_too_large")"));
}

TEST_F(Http, SlowHeadersAndBodiesTimeOut) {
  options_.header_timeout_ms = 50;
  options_.body_timeout_ms = 50;
  start();
  {
    TestClient client(port_);
    client.send("GET /healthz HTTP/1.1\r\nHost:");
    EXPECT_EQ(client.answer().status, 408);
    EXPECT_TRUE(client.is_at_end());
  }
  {
    TestClient client(port_);
    client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
    EXPECT_EQ(client.answer().status, 408);
  }
  {
    TestClient client(port_);
    EXPECT_TRUE(client.is_at_end()) << "one that says nothing is closed without an answer";
  }
}

TEST_F(Http, IdleConnectionsAreClosed) {
  options_.idle_timeout_ms = 50;
  start();
  TestClient client(port_);
  client.get("/healthz");
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_TRUE(client.is_at_end());
}

TEST_F(Http, ConnectionsOverTheCapAre503) {
  options_.connections_max = 2;
  start();
  TestClient first(port_);
  first.get("/healthz");
  EXPECT_EQ(first.answer().status, 200);
  auto second = std::make_unique<TestClient>(port_);
  second->get("/healthz");
  EXPECT_EQ(second->answer().status, 200);
  {
    TestClient third(port_);
    third.get("/healthz");
    const Answer answer = third.answer();
    EXPECT_EQ(answer.status, 503);
    EXPECT_EQ(answer.headers.at("retry-after"), "1");
    EXPECT_TRUE(third.is_at_end());
  }
  first.get("/healthz");
  EXPECT_EQ(first.answer().status, 200) << "the others don't notice";
  second.reset();
  // As soon as the server has seen the second go, there is room.
  for (int tries = 0; tries < 1000; ++tries) {
    if (get("/healthz").status == 200) return;
  }
  FAIL() << "no room after a connection was closed";
}

TEST_F(Http, ExpectContinueIsAnswered) {
  start();
  TestClient client(port_);
  client.send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: " +
      std::to_string(kBody.size()) + "\r\n\r\n");
  EXPECT_EQ(client.head().status, 100);
  client.send(kBody);
  answer_fully(api_.wait_request());
  EXPECT_EQ(client.answer().status, 200);
}

// ---- clients that leave, clients that are slow --------------------------------------------------

TEST_F(Http, AClientThatLeavesIsReportedAtOnce) {
  start();
  for (const std::string& body : {kBody, kStreamBody}) {
    for (const bool with_reset : {false, true}) {
      const std::size_t count = api_.submissions() + 1;
      TestClient client(port_);
      client.post("/v1/chat/completions", body);
      const RequestId id = api_.wait_request(count);
      if (body == kStreamBody) {
        api_.push(id, {FakeApi::start()});
        EXPECT_EQ(client.head().status, 200);
      }
      with_reset ? client.reset() : client.close();
      FakeApi::Detach detach;
      do {
        detach = api_.wait_detach();
      } while (detach.id != id);
      EXPECT_TRUE(detach.client_gone);
    }
  }
}

TEST_F(Http, AClientThatLeavesBeforeTheAcceptanceIsReportedAfterIt) {
  start();
  api_.hold_submit(true);
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody);
  client.reset();
  // The server has seen it go once a later connection is served on the same thread.
  for (int i = 0; i < 4; ++i) EXPECT_EQ(get("/healthz").status, 200);
  api_.hold_submit(false);
  const auto detach = api_.wait_detach();
  EXPECT_TRUE(detach.client_gone);
  EXPECT_EQ(detach.id, api_.wait_request());
}

TEST_F(Http, AReaderOfTheEventsThatLeavesTakesNoRequestWithIt) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody);
  const RequestId id = api_.wait_request();
  TestClient events(port_);
  events.get("/v1/requests/" + id.to_string() + "/events");
  EXPECT_EQ(events.head().status, 200);
  events.close();
  EXPECT_FALSE(api_.wait_detach().client_gone);
}

TEST_F(Http, ASlowReaderIsLetGoAndJoinsAgain) {
  options_.threads = 1;
  options_.reader_events_max = 16;
  start();
  TestClient client(port_, 4096);
  client.post("/v1/chat/completions", kStreamBody);
  const RequestId id = api_.wait_request();
  api_.push(id, {FakeApi::start()});
  // More than sockets hold, while the client reads nothing: the reader is let go.
  const std::string text(8192, 'x');
  std::size_t pushed = 0;
  while (api_.refused_blocks() == 0 && pushed < 5000) {
    api_.push(id, {FakeApi::delta(text)});
    ++pushed;
  }
  ASSERT_LT(pushed, 5000u) << "the server took everything: nothing bounds what it keeps";
  EXPECT_EQ(api_.readers(id), 0u);
  for (int i = 0; i < 10; ++i, ++pushed) api_.push(id, {FakeApi::delta(text)});
  api_.push(id, {FakeApi::stop()});
  api_.end(id, FakeApi::completed());
  // Now it reads: everything comes, once and in order.
  const Answer answer = client.answer();
  EXPECT_TRUE(answer.is_whole);
  const auto got = frames(answer.body);
  ASSERT_EQ(got.size(), pushed + 3);
  EXPECT_EQ(got.back().data, "[DONE]");
  EXPECT_GT(api_.wait_attach(), 0u) << "it went on from where it stood";
}

TEST_F(Http, AClientThatReadsNothingIsClosed) {
  options_.write_timeout_ms = 50;
  start();
  TestClient client(port_, 4096);
  client.post("/v1/chat/completions", kStreamBody);
  const RequestId id = api_.wait_request();
  api_.push(id, {FakeApi::start()});
  api_.push(id, std::vector<v1::Event>(2000, FakeApi::delta(std::string(8192, 'x'))));
  const auto detach = api_.wait_detach();
  EXPECT_EQ(detach.id, id);
  EXPECT_TRUE(detach.client_gone);
}

TEST_F(Http, QuietStreamsOpenAndAreKeptAlive) {
  options_.hold_back_ms = 20;
  options_.keep_alive_ms = 20;
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kStreamBody);
  const RequestId id = api_.wait_request();
  EXPECT_EQ(client.head().status, 200) << "the status was held back, then let go";
  std::string chunk;
  ASSERT_TRUE(client.next_chunk(chunk));
  EXPECT_EQ(chunk, ": keep-alive\n\n");
  ASSERT_TRUE(client.next_chunk(chunk));
  EXPECT_EQ(chunk, ": keep-alive\n\n");
  api_.end(id, FakeApi::failed(v1::REQUEST_STATE_FAILED, "context_length_exceeded", "too long"));
  std::string rest;
  while (client.next_chunk(chunk) && !chunk.empty()) rest += chunk;
  const auto got = frames(rest);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_TRUE(contains(got[0].data, "context_length_exceeded")) << "too late for a status";
}

// ---- idempotency, replay ------------------------------------------------------------------------

TEST_F(Http, ADuplicateJoinsTheLiveStreamAndGetsTheSameBytes) {
  start();
  TestClient first(port_);
  first.post("/v1/chat/completions", kStreamBody, "Idempotency-Key: k1\r\n");
  const RequestId id = api_.wait_request();
  EXPECT_TRUE(api_.submission(id).detached);
  EXPECT_EQ(api_.submission(id).envelope.idempotencykey(), "k1");
  api_.push(id, {FakeApi::start(), FakeApi::delta("He")});

  TestClient second(port_);
  // Another spelling of the same body.
  second.post("/v1/chat/completions",
              R"({"messages": [{"content":"hi","role":"user"}], "stream":true, "model":"m"})",
              "Idempotency-Key: k1\r\n");
  EXPECT_EQ(api_.wait_attach(), 0u);
  api_.push(id, {FakeApi::delta("llo"), FakeApi::stop()});
  api_.end(id, FakeApi::completed());
  const Answer one = first.answer();
  const Answer two = second.answer();
  EXPECT_EQ(one.status, 200);
  EXPECT_EQ(one.body, two.body);
  EXPECT_EQ(one.headers.at("x-request-id"), two.headers.at("x-request-id"));
  EXPECT_TRUE(contains(one.body, R"("sequence_number":3)")) << one.body;
  EXPECT_EQ(api_.submissions(), 1u);

  // After the end: the stored answer, again the same.
  EXPECT_EQ(post("/v1/chat/completions", kStreamBody, "Idempotency-Key: k1\r\n").body, one.body);
  // Same key, other body.
  EXPECT_EQ(post("/v1/chat/completions", kBody, "Idempotency-Key: k1\r\n").status, 422);
}

TEST_F(Http, EventsReplayFromAnyNumber) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody);
  const RequestId id = api_.wait_request();
  const std::string path = "/v1/requests/" + id.to_string() + "/events";
  api_.push(id, {FakeApi::start(), FakeApi::delta("a")});
  TestClient live(port_);
  live.get(path);
  EXPECT_EQ(live.head().status, 200);
  std::string chunk;
  ASSERT_TRUE(live.next_chunk(chunk));
  std::string body = chunk;
  api_.push(id, {FakeApi::delta("b"), FakeApi::stop()});
  api_.end(id, FakeApi::completed());
  while (live.next_chunk(chunk) && !chunk.empty()) body += chunk;
  const auto all = frames(body);
  ASSERT_EQ(all.size(), 5u);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(all[i].id, std::to_string(i));
    EXPECT_EQ(all[i].event, "chat.completion.chunk");
    EXPECT_TRUE(all[i].data.ends_with(",\"sequence_number\":" + std::to_string(i) + "}"));
  }
  EXPECT_EQ(all[4].id, "4");
  EXPECT_EQ(all[4].event, "waystation.request.completed");
  EXPECT_EQ(all[4].data, R"({"state":"completed","sequence_number":4})");

  EXPECT_EQ(get(path).body, body) << "replayed is the same as live";
  auto part = frames(get(path + "?starting_after=1").body);
  ASSERT_EQ(part.size(), 3u);
  EXPECT_EQ(part[0].id, "2");
  part = frames(get(path + "?starting_after=0", "Last-Event-ID: 2\r\n").body);
  ASSERT_EQ(part.size(), 2u) << "the header is newer than the query";
  EXPECT_EQ(part[0].id, "3");
  EXPECT_EQ(get(path, "Last-Event-ID: 3\r\n").body.substr(0, 5), "id: 4");
  EXPECT_EQ(get(path, "Last-Event-ID: 4\r\n").status, 204) << "all seen: an EventSource may stop";
  EXPECT_EQ(get(path + "?starting_after=x").status, 400);
  EXPECT_EQ(get(path + "?starting_after=-1").status, 400);
  EXPECT_EQ(get("/v1/requests/0190f0c2-0000-7000-8000-000000000000/events").status, 404);
  EXPECT_EQ(get("/v1/requests/nonsense/events").status, 404);
}

TEST_F(Http, EventsPastTheNewestOfARunningRequestAreRefused) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody);
  const RequestId id = api_.wait_request();
  api_.push(id, {FakeApi::start()});
  const Answer answer = get("/v1/requests/" + id.to_string() + "/events?starting_after=7");
  EXPECT_EQ(answer.status, 400);
  EXPECT_TRUE(contains(answer.body, "starting_after")) << answer.body;
  EXPECT_FALSE(api_.wait_detach().client_gone);
}

TEST_F(Http, AnInterruptedStreamSaysSo) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kStreamBody);
  const RequestId id = api_.wait_request();
  api_.push(id, {FakeApi::start()});
  TestClient events(port_);
  events.get("/v1/requests/" + id.to_string() + "/events");
  (void)events.head();
  api_.interrupt(id, {Code::kUnavailable, "the journal failed"});
  EXPECT_TRUE(contains(client.answer().body, "the journal failed"));
  EXPECT_TRUE(client.is_at_end());
  std::string chunk;
  std::string body;
  while (events.next_chunk(chunk) && !chunk.empty()) body += chunk;
  EXPECT_FALSE(contains(body, "waystation.request.")) << "the request isn't over";
  EXPECT_TRUE(events.is_at_end());
}

TEST_F(Http, RequestsAreDescribed) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody, "X-Conversation-Id: c1\r\n");
  const RequestId id = api_.wait_request();
  const std::string path = "/v1/requests/" + id.to_string();
  api_.push(id, {FakeApi::start()});
  Answer answer = get(path);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.at("x-request-id"), id.to_string());
  EXPECT_TRUE(contains(answer.body, R"("state":"running")")) << answer.body;
  EXPECT_TRUE(contains(answer.body, R"("conversation":"c1")"));
  EXPECT_TRUE(contains(answer.body, R"("api":"chat.completions")"));
  EXPECT_TRUE(contains(answer.body, R"("model":"other")"));
  EXPECT_TRUE(contains(answer.body, R"("continuation":"prefill","resumed_tokens":5,)"
                                    R"("prefilled_bytes":17)"))
      << answer.body;
  EXPECT_TRUE(contains(answer.body, R"("result":null)"));
  api_.push(id, {FakeApi::delta("Hello"), FakeApi::stop()});
  api_.end(id, FakeApi::completed());
  const std::string completion = client.answer().body;
  answer = get(path);
  EXPECT_TRUE(contains(answer.body, R"("state":"completed")")) << answer.body;
  EXPECT_TRUE(contains(answer.body, "\"result\":" + completion)) << answer.body;
  EXPECT_EQ(get("/v1/requests/0190f0c2-0000-7000-8000-000000000000").status, 404);
}

TEST_F(Http, CancelIsIdempotentAndEndsTheAnswer) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kBody);
  const RequestId id = api_.wait_request();
  const std::string path = "/v1/requests/" + id.to_string() + "/cancel";
  for (int i = 0; i < 2; ++i) {
    const Answer answer = post(path, "");
    EXPECT_EQ(answer.status, 200);
    EXPECT_TRUE(contains(answer.body, R"("state":"cancelled")")) << answer.body;
  }
  EXPECT_EQ(client.answer().status, 409);
}

// ---- the rest -----------------------------------------------------------------------------------

TEST_F(Http, ModelsAreListed) {
  start();
  Answer answer = get("/v1/models");
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(contains(answer.body, R"({"object":"list","data":[{"id":"m","object":"model")"));
  EXPECT_TRUE(contains(answer.body, R"("tasks":["chat","completion"])")) << answer.body;
  EXPECT_TRUE(contains(get("/v1/models/org/name").body, R"("id":"org/name")"));
  EXPECT_TRUE(contains(get("/v1/models/org/name").body, R"("embedding_length":384)"));
  EXPECT_TRUE(contains(get("/v1/models/org%2Fname").body, R"("id":"org/name")"));
  answer = get("/v1/models/none");
  EXPECT_EQ(answer.status, 404);
  EXPECT_TRUE(contains(answer.body, "there is: m, org/name")) << answer.body;
}

TEST_F(Http, Operations) {
  start();
  EXPECT_EQ(get("/healthz").status, 200);
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_TRUE(get("/metrics").headers.at("content-type").starts_with("text/plain; version=0.0.4"));
  api_.set_health({true, false, "no worker has joined"});
  const Answer answer = get("/readyz");
  EXPECT_EQ(answer.status, 503);
  EXPECT_TRUE(contains(answer.body, "no worker has joined"));
  TestClient client(port_);
  client.send("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  const Answer head = client.answer(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-length"), "15");
  client.get("/healthz");
  EXPECT_EQ(client.answer().status, 200);
}

TEST_F(Http, KeysMakeTenants) {
  std::string folder = testing::TempDir() + "/front-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string a = guard::add_key(folder + "/keys", "a", 0).value();
  const std::string b = guard::add_key(folder + "/keys", "b", 0).value();
  const auto store = guard::KeyFile::open(folder + "/keys");
  ASSERT_TRUE(store);
  keys_ = store->get();
  start();
  Answer answer = post("/v1/chat/completions", kBody);
  EXPECT_EQ(answer.status, 401);
  EXPECT_EQ(answer.headers.at("www-authenticate"), "Bearer");
  EXPECT_TRUE(contains(answer.body, R"("code":"invalid_api_key")")) << answer.body;
  EXPECT_EQ(get("/v1/models", "Authorization: Bearer ws-wrong\r\n").status, 401);
  EXPECT_EQ(get("/healthz").status, 200) << "for operators, without a key";

  TestClient client(port_);
  client.post("/v1/chat/completions", kBody, "Authorization: Bearer " + a + "\r\n");
  const RequestId id = api_.wait_request();
  EXPECT_EQ(api_.submission(id).envelope.tenant(), "a");
  const std::string path = "/v1/requests/" + id.to_string();
  EXPECT_EQ(get(path, "Authorization: Bearer " + a + "\r\n").status, 200);
  EXPECT_EQ(get(path, "Authorization: Bearer " + b + "\r\n").status, 404) << "another tenant's";
  EXPECT_EQ(get(path + "/events", "Authorization: Bearer " + b + "\r\n").status, 404);
  stop();
}

TEST_F(Http, WebPagesOfOtherOriginsAreRefusedUnlessAllowed) {
  start();
  EXPECT_EQ(post("/v1/chat/completions", "{", "Origin: https://evil.example\r\n").status, 403);
  EXPECT_EQ(post("/v1/chat/completions", "{", "Origin: http://x\r\n").status, 400)
      << "its own page";
  EXPECT_EQ(get("/healthz", "Origin: https://evil.example\r\n")
                .headers.count("access-control-allow-origin"),
            0u);
  stop();
  options_.cors_origins = {"https://app.example"};
  start();
  Answer answer = post("/v1/chat/completions", "{", "Origin: https://app.example\r\n");
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.headers.at("access-control-allow-origin"), "https://app.example");
  TestClient client(port_);
  client.send(
      "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\n"
      "Access-Control-Request-Method: POST\r\n\r\n");
  answer = client.answer();
  EXPECT_EQ(answer.status, 204);
  EXPECT_TRUE(contains(answer.headers.at("access-control-allow-headers"), "Idempotency-Key"));
  EXPECT_EQ(post("/v1/chat/completions", "{", "Origin: https://evil.example\r\n").status, 403);
}

TEST_F(Http, AnAddressInUseIsAClearError) {
  start();
  Options options;
  options.listen.port = port_;
  Server second(options, api_, nullptr, nullptr, clock_, *meter_);
  const auto port = second.start();
  ASSERT_FALSE(port);
  EXPECT_EQ(port.error().code, Code::kBusy);
  EXPECT_TRUE(contains(port.error().message, "already in use")) << port.error().message;
}

TEST_F(Http, StopLetsAnswersEndWithinTheGrace) {
  start();
  TestClient idle(port_);
  idle.get("/healthz");
  EXPECT_EQ(idle.answer().status, 200);
  TestClient client(port_);
  client.post("/v1/chat/completions", kStreamBody);
  const RequestId id = api_.wait_request();
  api_.push(id, {FakeApi::start()});
  EXPECT_EQ(client.head().status, 200);
  std::thread stopper([this] { server_->stop(20'000); });
  EXPECT_TRUE(idle.is_at_end()) << "nothing to wait for";
  answer_fully(id);
  std::string chunk;
  std::string body;
  while (client.next_chunk(chunk) && !chunk.empty()) body += chunk;
  EXPECT_TRUE(body.ends_with("data: [DONE]\n\n")) << body;
  EXPECT_TRUE(client.is_at_end());
  client.close();
  stopper.join();
  EXPECT_FALSE(TestClient(port_).is_connected());
}

TEST_F(Http, StopEndsWhatIsLeftAfterTheGrace) {
  start();
  TestClient client(port_);
  client.post("/v1/chat/completions", kStreamBody);
  const RequestId id = api_.wait_request();
  api_.push(id, {FakeApi::start()});
  EXPECT_EQ(client.head().status, 200);
  TestClient waiting(port_);
  waiting.post("/v1/chat/completions", kBody);
  (void)api_.wait_request(2);
  server_->stop(1);
  EXPECT_FALSE(api_.wait_detach().client_gone) << "the requests go on";
  std::string chunk;
  std::string body;
  while (client.next_chunk(chunk) && !chunk.empty()) body += chunk;
  EXPECT_TRUE(contains(body, "shutting down")) << body;
  EXPECT_FALSE(contains(body, "[DONE]"));
  EXPECT_EQ(waiting.answer().status, 503);
  // The broker doesn't know yet, and calls into what is gone.
  api_.push(id, {FakeApi::delta("late")});
}

}  // namespace
}  // namespace waystation::front
