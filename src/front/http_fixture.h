// The front door over real sockets, with a broker that does what the test says.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "front/fake_api.h"
#include "front/server.h"
#include "front/test_client.h"
#include "message/sse.h"

namespace waystation::front {

inline const std::string kBody = R"({"model":"m","messages":[{"role":"user","content":"hi"}]})";
inline const std::string kStreamBody =
    R"({"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]})";

class Http : public testing::Test {
 protected:
  void TearDown() override { stop(); }

  void start() {
    options_.listen.port = 0;
    options_.tick_ms = 5;
    server_ = std::make_unique<Server>(
        options_, api_, keys_, [] { return std::string("x 1\n"); }, clock_, *meter_, parts_);
    auto port = server_->start();
    ASSERT_TRUE(port) << port.error().message;
    port_ = *port;
  }
  void stop(int grace_ms = 0) {
    if (server_) server_->stop(grace_ms);
    server_.reset();
  }

  // One request on a connection of its own.
  Answer get(const std::string& target, const std::string& headers = "") {
    TestClient client(port_);
    client.get(target, headers);
    return client.answer();
  }
  Answer post(const std::string& target, const std::string& body, const std::string& headers = "") {
    TestClient client(port_);
    client.post(target, body, headers);
    return client.answer();
  }
  // A whole answer of the fake broker.
  void answer_fully(RequestId id) {
    api_.push(id, {FakeApi::start()});
    api_.push(id, {FakeApi::delta("Hel"), FakeApi::delta("lo")});
    api_.push(id, {FakeApi::stop()});
    api_.end(id, FakeApi::completed());
  }

  Options options_;
  const guard::KeyFile* keys_ = nullptr;
  SystemClock clock_;
  std::unique_ptr<Meter> meter_ = make_null_meter();
  Parts parts_;
  FakeApi api_;
  std::unique_ptr<Server> server_;
  std::uint16_t port_ = 0;
};

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline std::vector<message::SseFrame> frames(const std::string& body) {
  message::SseParser parser;
  std::vector<message::SseFrame> out;
  parser.feed(body, out);
  return out;
}

}  // namespace waystation::front
