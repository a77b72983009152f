// The whole way from an assignment to outputs, over real sockets, with faults at every byte.
#include "upstream/pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "message/embedding.h"
#include "upstream/test_broker.h"
#include "upstream/test_http_server.h"

namespace waystation::upstream {
namespace {

const std::string kBody = R"({"model":"ours","messages":[{"role":"user","content":"hi"}]})";
const std::string kStreamBody =
    R"({"model":"ours","messages":[{"role":"user","content":"hi"}],"stream":true})";

std::string with_length(const std::string& body, const std::string& type = "application/json",
                        const std::string& status = "200 OK", const std::string& headers = "") {
  return "HTTP/1.1 " + status + "\r\nContent-Type: " + type + "\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

std::string chunk(const std::string& body) {
  char size[32];
  std::snprintf(size, sizeof(size), "%zx\r\n", body.size());
  return size + body + "\r\n";
}

std::string event(const std::string& data) {
  return "data: " + data + "\n\n";
}

std::string content(const std::string& text, const std::string& reason = "null") {
  return event(R"({"id":"x","choices":[{"index":0,"delta":{"content":")" + text +
               R"("},"finish_reason":)" + reason + "}]}");
}

const std::string kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Transfer-Encoding: chunked\r\n\r\n";

// A whole streamed answer: "Hello, 世界!" in four pieces.
std::string whole_stream() {
  return kStreamHead + chunk(content("Hel")) + chunk(content("lo, ") + ": ping\n\n") +
         chunk(content("世界")) + chunk(content("!", "\"stop\"")) +
         chunk(event(R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}})") +
               event("[DONE]")) +
         "0\r\n\r\n";
}
const std::string kWholeText = "Hello, 世界!";

std::string whole_document() {
  return R"({"id":"x","object":"chat.completion","choices":[{"index":0,"message":)"
         R"({"role":"assistant","content":"Hello, 世界!"},"finish_reason":"stop"}],)"
         R"("usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}})";
}

class UpstreamPool : public testing::Test {
 protected:
  UpstreamPool() {
    options_.name = "far";
    options_.key = "secret";
    options_.models = {{"ours", "theirs"}};
    options_.breaker_failures = 1'000'000;
    options_.probe_min_ms = 10;
    options_.probe_max_ms = 40;
  }

  ~UpstreamPool() override {
    if (pool_) pool_->stop();
    EXPECT_TRUE(broker_.broken_rules.empty()) << broker_.broken_rules.front();
  }

  void serve(TestHttpServer::Handler handler) {
    server_ = std::make_unique<TestHttpServer>(std::move(handler));
    options_.url = server_->url();
  }

  void start() {
    auto pool = make_pool({{options_}, "test", 1, "this-one"}, clock_, *meter_);
    ASSERT_TRUE(pool.has_value()) << pool.error().message;
    pool_ = std::move(*pool);
    broker_.use(*pool_);
    pool_->start(broker_);
  }

  void start(TestHttpServer::Handler handler) {
    serve(std::move(handler));
    start();
  }

  Options options_;
  SystemClock clock_;
  std::unique_ptr<Meter> meter_ = make_null_meter();
  std::unique_ptr<TestHttpServer> server_;
  TestBroker broker_;
  std::unique_ptr<Pool> pool_;
};

// What must hold however the connection broke: the whole text, or an error that says so.
void expect_whole_or_error(const Outcome& outcome, const std::string& where) {
  EXPECT_FALSE(outcome.dropped) << where;
  EXPECT_TRUE(kWholeText.starts_with(outcome.text())) << where << ": " << outcome.text();
  if (outcome.failed) {
    EXPECT_EQ(outcome.code(), Code::kUnavailable) << where << ": " << outcome.failure.message();
    EXPECT_TRUE(outcome.failure.message().starts_with("far ")) << outcome.failure.message();
  } else {
    EXPECT_EQ(outcome.text(), kWholeText) << where;
    EXPECT_EQ(outcome.reason(), "stop") << where;
  }
}

TEST_F(UpstreamPool, AnswersAPlainCall) {
  start([](const SeenRequest&, TestPeer& peer) { peer.send(with_length(whole_document())); });
  const Outcome outcome = broker_.run(kBody);
  ASSERT_TRUE(outcome.complete()) << outcome.failure.message();
  EXPECT_EQ(outcome.text(), kWholeText);
  EXPECT_EQ(outcome.reason(), "stop");
  EXPECT_TRUE(outcome.started);
  EXPECT_EQ(outcome.usage.prompt_tokens(), 3u);
  EXPECT_EQ(outcome.usage.completion_tokens(), 4u);
  EXPECT_EQ(outcome.outputs, 1);

  const SeenRequest seen = server_->calls().at(0);
  EXPECT_EQ(seen.path, "/v1/chat/completions");
  EXPECT_EQ(seen.headers.at("authorization"), "Bearer secret");
  EXPECT_TRUE(seen.headers.at("idempotency-key").ends_with("-1"));
  EXPECT_EQ(seen.headers.at("idempotency-key").size(), 38u);
  EXPECT_EQ(seen.headers.at("x-resumable"), "false");
  EXPECT_EQ(seen.headers.at("x-waystation-hops"), "this-one");
  EXPECT_NE(seen.body.find(R"("model":"theirs")"), std::string::npos);
  EXPECT_TRUE(broker_.hello.wait_durable());
  EXPECT_EQ(broker_.hello.models(0).engine(), "upstream");
  EXPECT_EQ(broker_.hello.worker_name(), "far");
}

TEST_F(UpstreamPool, StreamsInPiecesOfAnySize) {
  std::atomic<std::size_t> size = 1;
  start([&](const SeenRequest&, TestPeer& peer) { peer.send_in_pieces(whole_stream(), size); });
  for (size = 1; size < 40; ++size) {
    const Outcome outcome = broker_.run(kStreamBody);
    ASSERT_TRUE(outcome.complete()) << size << ": " << outcome.failure.message();
    EXPECT_EQ(outcome.text(), kWholeText) << size;
    EXPECT_EQ(outcome.usage.completion_tokens(), 4u) << size;
  }
  EXPECT_EQ(server_->calls().at(0).headers.at("accept"), "text/event-stream");
}

TEST_F(UpstreamPool, AStreamCutAtAnyByteIsWholeOrAnError) {
  std::atomic<std::size_t> cut = 0;
  std::atomic<bool> reset = false;
  start([&](const SeenRequest&, TestPeer& peer) {
    peer.send(whole_stream().substr(0, cut));
    reset ? peer.reset() : peer.close();
  });
  std::size_t errors = 0;
  for (const bool hard : {false, true}) {
    reset = hard;
    for (cut = 0; cut < whole_stream().size(); ++cut) {
      const Outcome outcome = broker_.run(kStreamBody);
      expect_whole_or_error(outcome, "cut " + std::to_string(cut) + (hard ? " reset" : ""));
      if (outcome.failed) ++errors;
    }
  }
  EXPECT_GT(errors, whole_stream().size());  // up to the finish reason each of them is one
}

TEST_F(UpstreamPool, ADocumentCutAtAnyByteIsAnError) {
  std::atomic<std::size_t> cut = 0;
  std::string answer;
  start([&](const SeenRequest&, TestPeer& peer) {
    peer.send(answer.substr(0, cut));
    peer.close();
  });
  const std::string chunked =
      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" +
      chunk(whole_document().substr(0, 50)) + chunk(whole_document().substr(50)) + "0\r\n\r\n";
  for (const std::string& whole : {with_length(whole_document()), chunked}) {
    answer = whole;
    for (cut = 0; cut < whole.size(); ++cut) {
      const Outcome outcome = broker_.run(kBody);
      EXPECT_TRUE(outcome.failed) << cut;
      expect_whole_or_error(outcome, "cut " + std::to_string(cut));
    }
    EXPECT_TRUE(broker_.run(kBody).complete());
  }
}

TEST_F(UpstreamPool, AnOldServersAnswerEndsWithItsConnection) {
  start([&](const SeenRequest&, TestPeer& peer) {
    peer.send("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + whole_document());
    peer.close();
  });
  EXPECT_TRUE(broker_.run(kBody).complete());
  EXPECT_TRUE(broker_.run(kBody).complete());
}

TEST_F(UpstreamPool, ConnectionsAreUsedAgain) {
  start([](const SeenRequest&, TestPeer& peer) { peer.send(with_length(whole_document())); });
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(broker_.run(kBody).complete());
  EXPECT_EQ(server_->connections(), 1);
  EXPECT_EQ(server_->calls().back().number_on_connection, 20);
}

TEST_F(UpstreamPool, AStreamsConnectionIsUsedAgain) {
  start([](const SeenRequest&, TestPeer& peer) { peer.send(whole_stream()); });
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(broker_.run(kStreamBody).complete());
  EXPECT_LE(server_->connections(), 2);
}

TEST_F(UpstreamPool, ADeadKeptConnectionIsReplacedOnce) {
  start([](const SeenRequest& request, TestPeer& peer) {
    if (request.number_on_connection > 1) {
      peer.close();  // as a server does whose patience with idle connections ended just now
    } else {
      peer.send(with_length(whole_document()));
    }
  });
  EXPECT_TRUE(broker_.run(kBody).complete());
  EXPECT_TRUE(broker_.run(kBody).complete());
  EXPECT_TRUE(broker_.run(kBody).complete());
  const auto calls = server_->calls();
  ASSERT_GE(calls.size(), 4u);
  EXPECT_EQ(calls[1].body, calls[2].body);
  EXPECT_EQ(calls[1].headers.at("idempotency-key"), calls[2].headers.at("idempotency-key"));
  EXPECT_NE(calls[1].connection, calls[2].connection);
}

TEST_F(UpstreamPool, OnceSomethingCameNothingIsSentTwice) {
  start([](const SeenRequest& request, TestPeer& peer) {
    if (request.number_on_connection == 1) {
      peer.send(with_length(whole_document()));
      return;
    }
    peer.send("H");
    peer.close();
  });
  EXPECT_TRUE(broker_.run(kBody).complete());
  const Outcome outcome = broker_.run(kBody);
  EXPECT_TRUE(outcome.failed);
  EXPECT_EQ(server_->calls().size(), 2u);
}

TEST_F(UpstreamPool, ManyCallsAtOnceComeBackToTheirRequests) {
  start([](const SeenRequest& request, TestPeer& peer) {
    const std::size_t at = request.body.find("\"content\":\"") + 11;
    const std::string word = request.body.substr(at, request.body.find('"', at) - at);
    peer.send(kStreamHead + chunk(content(word)) + chunk(content("", "\"stop\"")) +
              chunk(event("[DONE]")) + "0\r\n\r\n");
  });
  std::vector<v1::Fence> fences;
  for (int i = 0; i < 500; ++i) {
    fences.push_back(broker_.assign(R"({"stream":true,"messages":[{"role":"user","content":"w)" +
                                    std::to_string(i) + "\"}]}"));
  }
  for (int i = 0; i < 500; ++i) {
    const Outcome outcome = broker_.wait(fences[static_cast<std::size_t>(i)]);
    ASSERT_TRUE(outcome.complete());
    EXPECT_EQ(outcome.text(), "w" + std::to_string(i));
  }
  EXPECT_LE(server_->connections(), static_cast<int>(options_.concurrency) + 66);
}

TEST_F(UpstreamPool, SilenceBeforeAndInTheMidstOfAnAnswerTimesOut) {
  options_.first_byte_timeout_ms = 60;
  options_.answer_timeout_ms = 60;
  options_.idle_timeout_ms = 60;
  std::atomic<bool> begin = false;
  start([&](const SeenRequest&, TestPeer& peer) {
    if (begin) peer.send(kStreamHead + chunk(content("Hel")));
    peer.wait_gone();
    peer.close();
  });
  Outcome outcome = broker_.run(kBody);
  EXPECT_EQ(outcome.code(), Code::kUnavailable);
  EXPECT_EQ(outcome.failure.message(), "far didn't answer in time");
  begin = true;
  outcome = broker_.run(kStreamBody);
  EXPECT_EQ(outcome.failure.message(), "far stopped in mid-answer");
  EXPECT_EQ(outcome.text(), "Hel");
}

TEST_F(UpstreamPool, AnEndlessStreamOfPingsEnds) {
  options_.total_timeout_ms = 150;
  start([&](const SeenRequest&, TestPeer& peer) {
    peer.send(kStreamHead);
    while (peer.send(chunk(": ping\n\n")))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    peer.close();
  });
  EXPECT_EQ(broker_.run(kStreamBody).code(), Code::kUnavailable);
}

TEST_F(UpstreamPool, NobodyListens) {
  serve([](const SeenRequest&, TestPeer& peer) { peer.send(with_length(whole_document())); });
  start();
  ASSERT_TRUE(broker_.run(kBody).complete());
  server_.reset();
  // It never saw the request, which goes back unharmed: another may take it at once.
  const Outcome outcome = broker_.run(kBody);
  EXPECT_TRUE(outcome.dropped);
  EXPECT_FALSE(outcome.failed);
}

TEST_F(UpstreamPool, GarbageIsATypedErrorAndNeverAHang) {
  options_.event_bytes_max = 1 << 20;
  options_.answer_bytes_max = 1 << 20;
  std::mutex mutex;
  std::string answer;   // under the mutex, since the last case's connection may still be busy
  std::string endless;  // sent until the client has enough
  start([&](const SeenRequest&, TestPeer& peer) {
    std::unique_lock lock(mutex);
    const std::string once = answer;
    const std::string again = endless;
    lock.unlock();
    if (peer.send(once)) {
      while (!again.empty() && peer.send(again)) {
      }
    }
    peer.close();
  });
  const auto script = [&](const std::string& once, const std::string& again) {
    std::lock_guard lock(mutex);
    answer = once;
    endless = again;
  };
  const std::string zeros(5000, '\0');
  const std::string line(64 << 10, 'a');
  const std::vector<std::pair<std::string, std::string>> cases{
      {"garbage\r\n\r\n", ""},
      {"HTTP/1.1 200 OK\r\n" + line, line},  // endless header line
      {"HTTP/1.1 200 OK\r\nX: y\r\n", "Z: " + line.substr(0, 1000) + "\r\n"},  // endless header
      {"HTTP/9.9 200 OK\r\n\r\n", ""},
      {"HTTP/1.1 999999 OK\r\n\r\n", ""},
      {zeros, ""},
      {"SSH-2.0-OpenSSH_9.2\r\n", ""},
      {with_length("<html>", "text/html"), ""},
      {with_length("no json", "application/json"), ""},
      {with_length("[]", "application/json"), ""},
      {with_length("{}", "application/json"), ""},
      {with_length("", "application/json"), ""},
      {with_length("x", "application/json", "200 OK", "Content-Encoding: gzip\r\n"), ""},
      {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", ""},
      {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
       "zz\r\n",
       ""},
      {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
       "5;" +
           line,
       line},  // endless chunk extension
      {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{", line},  // endless document
      {kStreamHead + chunk("data: " + line), chunk(line)},                   // endless event
      {kStreamHead + chunk(line), chunk(line)},                              // endless line
      {kStreamHead + chunk(event("no json")), ""},
      {kStreamHead + chunk(event("{\"choices\":[{\"index\":9,\"delta\":{}}]}")), ""},
      {kStreamHead + chunk(event("{\"error\":{\"message\":\"overloaded\"}}")), ""},
      {kStreamHead + chunk(event("[DONE]")) + "0\r\n\r\n", ""},
      {kStreamHead + chunk(content("a") + event("[DONE]")) + "0\r\n\r\n", ""},
      {kStreamHead + "0\r\n\r\n", ""},
      {kStreamHead + chunk("event: x\nid: 7\n\n: c\n\n") + "0\r\n\r\n", ""},
      {"HTTP/1.1 100 Continue\r\n\r\n", ""},
      {"HTTP/1.1 204 No Content\r\n\r\n", ""},
      {"", ""},
  };
  for (const auto& [given, more] : cases) {
    script(given, more);
    for (const std::string& body : {kBody, kStreamBody}) {
      const Outcome outcome = broker_.run(body);
      const std::string what = given.substr(0, 200);
      EXPECT_TRUE(outcome.failed) << what;
      EXPECT_EQ(outcome.code(), Code::kUnavailable) << what << outcome.failure.message();
      EXPECT_LT(outcome.failure.message().size(), 400u) << what;
    }
  }
  // None of this has harmed it.
  script(with_length(whole_document()), "");
  EXPECT_TRUE(broker_.run(kBody).complete());
}

TEST_F(UpstreamPool, AServerWithoutStreamsMayAnswerWhole) {
  start([](const SeenRequest&, TestPeer& peer) { peer.send(with_length(whole_document())); });
  const Outcome outcome = broker_.run(kStreamBody);
  ASSERT_TRUE(outcome.complete());
  EXPECT_EQ(outcome.text(), kWholeText);
}

TEST_F(UpstreamPool, AContinueBeforeTheAnswerIsSkipped) {
  start([](const SeenRequest&, TestPeer& peer) {
    peer.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" +
              with_length(whole_document()));
  });
  EXPECT_TRUE(broker_.run(kBody).complete());
}

TEST_F(UpstreamPool, ARefusalBeforeTheBodyWasReadIsHeard) {
  start([](const SeenRequest&, TestPeer& peer) {
    peer.send(with_length(R"({"error":{"message":"too big"}})", "application/json",
                          "413 Payload Too Large", "Connection: close\r\n"));
    peer.close();
  });
  const Outcome outcome = broker_.run(kBody);
  EXPECT_EQ(outcome.code(), Code::kTooLarge);
  EXPECT_EQ(outcome.failure.message(), "too big");
}

TEST_F(UpstreamPool, TheRequestsOwnFaultIsFinalAndHarmsNothing) {
  options_.breaker_failures = 1;
  start([](const SeenRequest&, TestPeer& peer) {
    peer.send(with_length(
        R"({"error":{"message":"bad seed","type":"invalid_request_error","param":"seed","code":null}})",
        "application/json", "400 Bad Request"));
  });
  for (int i = 0; i < 5; ++i) {
    const Outcome outcome = broker_.run(kBody);
    EXPECT_EQ(outcome.code(), Code::kInvalidArgument);
    EXPECT_EQ(outcome.failure.message(), "bad seed");
    EXPECT_EQ(outcome.failure.param(), "seed");
  }
  EXPECT_EQ(broker_.joined(), 1);
}

TEST_F(UpstreamPool, TooManyRequestsGivesBackAndPauses) {
  std::atomic<int> calls = 0;
  start([&](const SeenRequest&, TestPeer& peer) {
    if (++calls == 1) {
      peer.send(with_length("{}", "application/json", "429 Too Many Requests",
                            "retry-after-ms: 200\r\n"));
    } else {
      peer.send(with_length(whole_document()));
    }
  });
  const auto began = std::chrono::steady_clock::now();
  const Outcome outcome = broker_.run(kBody);
  EXPECT_TRUE(outcome.dropped);
  EXPECT_FALSE(outcome.failed);
  broker_.wait_left(1);
  EXPECT_TRUE(broker_.run(kBody).complete());  // waits for credit, which is back after the pause
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(190));
  EXPECT_EQ(broker_.joined(), 2);
}

TEST_F(UpstreamPool, APauseLetsRunningAnswersEnd) {
  std::promise<void> paused;
  auto may_end = paused.get_future().share();
  start([&](const SeenRequest& request, TestPeer& peer) {
    if (request.body.find("slow") == std::string::npos) {
      peer.send(with_length("{}", "application/json", "429 X", "retry-after: 1\r\n"));
      return;
    }
    peer.send(kStreamHead + chunk(content("Hel")));
    may_end.wait();
    peer.send(chunk(content("lo, 世界!", "\"stop\"")) + chunk(event("[DONE]")) + "0\r\n\r\n");
  });
  const v1::Fence slow = broker_.assign(R"({"stream":true,"messages":["slow"]})");
  broker_.wait_for(slow, [](const Outcome& outcome) { return outcome.text() == "Hel"; });
  EXPECT_TRUE(broker_.run(kBody).dropped);
  broker_.wait_left(1);
  paused.set_value();
  const Outcome outcome = broker_.wait(slow);
  EXPECT_TRUE(outcome.complete());
  EXPECT_EQ(outcome.text(), kWholeText);
  broker_.wait_disconnected(1);
}

TEST_F(UpstreamPool, FailuresInARowOpenTheCircuitAndAProbeClosesIt) {
  options_.breaker_failures = 3;
  std::atomic<bool> broken = true;
  start([&](const SeenRequest&, TestPeer& peer) {
    peer.send(broken ? with_length("{}", "application/json", "500 X")
                     : with_length(whole_document()));
  });
  broker_.wait_joined(1);
  server_->probe_status = 500;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(broker_.run(kBody).code(), Code::kUnavailable);
  broker_.wait_disconnected(1);
  const int probes = server_->probes;
  while (server_->probes < probes + 3) std::this_thread::yield();
  EXPECT_EQ(broker_.joined(), 1);
  server_->probe_status = 404;  // no list of models, but it lives
  broker_.wait_joined(2);
  EXPECT_EQ(broker_.run(kBody).code(), Code::kUnavailable);  // on probation: one is enough
  broker_.wait_joined(3);
  broken = false;
  EXPECT_TRUE(broker_.run(kBody).complete());
  broken = true;
  EXPECT_TRUE(broker_.run(kBody).failed);  // a success has made it good
  broken = false;
  EXPECT_TRUE(broker_.run(kBody).complete());
  EXPECT_EQ(broker_.joined(), 3);
}

TEST_F(UpstreamPool, ARefusedKeyOpensTheCircuitAndGivesBackWhatWaits) {
  start([&](const SeenRequest& request, TestPeer& peer) {
    if (request.body.find("wait") != std::string::npos) {
      peer.wait_gone();
      peer.close();
      return;
    }
    peer.send(with_length("{}", "application/json", "401 Unauthorized"));
  });
  broker_.wait_joined(1);
  server_->probe_status = 401;
  const v1::Fence waits = broker_.assign(R"({"messages":["wait"]})");
  server_->wait_calls(1);
  const Outcome outcome = broker_.run(kBody);
  EXPECT_EQ(outcome.code(), Code::kUpstream);
  EXPECT_NE(outcome.failure.message().find("refused our key"), std::string::npos);
  EXPECT_TRUE(broker_.wait(waits).dropped);
  broker_.wait_disconnected(1);
  server_->probe_status = 200;
  broker_.wait_joined(2);
}

TEST_F(UpstreamPool, AnUpstreamThatIsDownAtTheStartJoinsWhenItIsUp) {
  serve([](const SeenRequest&, TestPeer& peer) { peer.send(with_length(whole_document())); });
  server_->probe_status = 503;
  start();
  while (server_->probes < 3) std::this_thread::yield();
  EXPECT_EQ(broker_.joined(), 0);
  server_->probe_status = 200;
  EXPECT_TRUE(broker_.run(kBody).complete());
}

TEST_F(UpstreamPool, CancelReachesTheUpstream) {
  std::promise<void> gone;
  start([&](const SeenRequest&, TestPeer& peer) {
    peer.send(kStreamHead + chunk(content("Hel")));
    peer.wait_gone();
    gone.set_value();
    peer.close();
  });
  const v1::Fence fence = broker_.assign(kStreamBody);
  broker_.wait_for(fence, [](const Outcome& outcome) { return outcome.text() == "Hel"; });
  broker_.cancel(fence);
  EXPECT_TRUE(broker_.wait(fence).dropped);
  EXPECT_EQ(gone.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
}

TEST_F(UpstreamPool, ContinuesByPrefillAndTakesTheEchoOff) {
  options_.continuation = Continuation::kPrefill;
  std::atomic<bool> echoes = false;
  start([&](const SeenRequest&, TestPeer& peer) {
    peer.send(kStreamHead + chunk(content(echoes ? "Once upon a time there was" : " was")) +
              chunk(content("", "\"stop\"")) + chunk(event("[DONE]")) + "0\r\n\r\n");
  });
  v1::ChoiceProgress begun;
  begun.set_text("Once upon a time there");
  for (const bool echo : {false, true}) {
    echoes = echo;
    const Outcome outcome = broker_.wait(broker_.assign(kStreamBody, 1, {begun}));
    ASSERT_TRUE(outcome.complete());
    EXPECT_EQ(outcome.text(), " was");
  }
  EXPECT_NE(server_->calls().at(0).body.find(
                R"({"role":"assistant","content":"Once upon a time there"}])"),
            std::string::npos);
  EXPECT_TRUE(broker_.hello.models(0).prefills());
}

TEST_F(UpstreamPool, WithoutContinuationABegunAnswerIsRefused) {
  start([](const SeenRequest&, TestPeer& peer) { peer.send(whole_stream()); });
  v1::ChoiceProgress begun;
  begun.set_text("Once");
  const Outcome outcome = broker_.wait(broker_.assign(kStreamBody, 1, {begun}));
  EXPECT_EQ(outcome.code(), Code::kUpstream);
  EXPECT_NE(outcome.failure.message().find("can't be continued by far"), std::string::npos);
  EXPECT_TRUE(server_->calls().empty());
}

TEST_F(UpstreamPool, EmbeddingsGoTheirWay) {
  start([](const SeenRequest&, TestPeer& peer) {
    peer.send(
        with_length(R"({"data":[{"index":0,"embedding":[1,2]}],"usage":{"prompt_tokens":2}})"));
  });
  const Outcome outcome =
      broker_.wait(broker_.assign(R"({"input":"a"})", 1, {}, message::kEmbeddingRequestType));
  ASSERT_TRUE(outcome.complete());
  ASSERT_EQ(outcome.embeddings.size(), 1u);
  EXPECT_EQ(outcome.embeddings[0].size(), 8u);
  EXPECT_EQ(server_->calls().at(0).path, "/v1/embeddings");
}

TEST_F(UpstreamPool, TheServersThatARequestPassedGoWithIt) {
  start([](const SeenRequest&, TestPeer& peer) { peer.send(with_length(whole_document())); });
  broker_.hops = "first";
  EXPECT_TRUE(broker_.run(kBody).complete());
  broker_.hops = "a\r\nX-Evil: 1";
  EXPECT_TRUE(broker_.run(kBody).complete());
  EXPECT_EQ(server_->calls().at(0).headers.at("x-waystation-hops"), "first, this-one");
  EXPECT_FALSE(server_->calls().at(1).headers.contains("x-evil"));
}

TEST_F(UpstreamPool, NothingIsKeptOfADocumentThatIsNoAnswer) {
  start([](const SeenRequest&, TestPeer& peer) {
    peer.send(with_length(
        R"({"choices":[{"index":0,"message":{"content":"half"}},{"index":1,"message":7}]})"));
  });
  const Outcome outcome = broker_.wait(broker_.assign(kBody, 2));
  EXPECT_TRUE(outcome.failed);
  EXPECT_EQ(outcome.text(), "");
  EXPECT_EQ(outcome.reason(), "");
  EXPECT_EQ(outcome.failure.message(),
            "far sent an answer that can't be used: choices[1].message is a number, not an object");
}

TEST_F(UpstreamPool, ALargeAnswerAndALargeRequest) {
  const std::string text(3 << 20, 'x');
  start([&](const SeenRequest&, TestPeer& peer) {
    peer.send(with_length(R"({"choices":[{"message":{"content":")" + text + R"("}}]})"));
  });
  const Outcome outcome = broker_.run(R"({"messages":[{"content":")" + text + R"("}]})");
  ASSERT_TRUE(outcome.complete());
  EXPECT_EQ(outcome.text().size(), text.size());
  EXPECT_GT(server_->calls().at(0).body.size(), text.size());
}

TEST_F(UpstreamPool, StopEndsWhatRuns) {
  start([&](const SeenRequest&, TestPeer& peer) {
    peer.wait_gone();
    peer.close();
  });
  for (int i = 0; i < 10; ++i) broker_.assign(kBody);
  server_->wait_calls(10);
  pool_->stop();
  broker_.wait_disconnected(1);
  pool_->stop();
  pool_->send(link::ConnectionId{std::uint64_t{1} << 32 | 1}, {});
  pool_->close(link::ConnectionId{0});
}

TEST_F(UpstreamPool, TheServersCloseEndsTheSessionAndItComesBack) {
  start([&](const SeenRequest&, TestPeer& peer) {
    peer.wait_gone();
    peer.close();
  });
  broker_.assign(kBody);
  server_->wait_calls(1);
  pool_->close(link::ConnectionId{(std::uint64_t{1} << 32) + 1});
  broker_.wait_disconnected(1);
  broker_.wait_joined(2);
}

TEST(UpstreamOptions, WhatCantWorkIsRefusedBeforeTheStart) {
  SystemClock clock;
  const auto meter = make_null_meter();
  Options good;
  good.name = "a";
  good.url = "http://127.0.0.1:1/v1";
  good.models = {{"m", ""}};
  const auto refused = [&](auto change) {
    Options options = good;
    change(options);
    auto pool = make_pool({{options}, "test", 1}, clock, *meter);
    return !pool && pool.error().code != Code::kInternal;
  };
  EXPECT_TRUE(make_pool({{good}, "test", 1}, clock, *meter).has_value());
  EXPECT_FALSE(make_pool({{good, good}, "test", 1}, clock, *meter).has_value());
  EXPECT_TRUE(refused([](Options& o) { o.name = ""; }));
  EXPECT_TRUE(refused([](Options& o) { o.models.clear(); }));
  EXPECT_TRUE(refused([](Options& o) { o.models.push_back({"m", ""}); }));
  EXPECT_TRUE(refused([](Options& o) { o.models[0].tasks = {"dance"}; }));
  EXPECT_TRUE(refused([](Options& o) { o.key = "a\r\nX: y"; }));
  EXPECT_TRUE(refused([](Options& o) { o.headers = {{"a b", "c"}}; }));
  EXPECT_TRUE(refused([](Options& o) { o.headers = {{"Content-Length", "1"}}; }));
  EXPECT_TRUE(refused([](Options& o) { o.concurrency = 0; }));
  EXPECT_TRUE(refused([](Options& o) { o.idle_timeout_ms = 0; }));
  EXPECT_TRUE(refused([](Options& o) {
    o.url = "https://127.0.0.1/v1";
    o.ca_file = "/nowhere.pem";
  }));
  for (const char* url :
       {"", "api.example.com", "ftp://a", "http://", "http://a:0", "http://a:x", "http://a b",
        "http://u@a", "http://a?b", "http://[::1", "http://a:99999"}) {
    EXPECT_TRUE(refused([&](Options& o) { o.url = url; })) << url;
  }
  const auto url = parse_url("https://[::1]:8443/v1//");
  ASSERT_TRUE(url.has_value());
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, "8443");
  EXPECT_EQ(url->path, "/v1");
  EXPECT_EQ(url->authority, "[::1]:8443");
}

}  // namespace
}  // namespace waystation::upstream
