// What is refused before a handler sees it.
#include "front/http_fixture.h"

namespace waystation::front {
namespace {

TEST_F(Http, NamesOfOthersAreRefusedWhereTheHostIsChecked) {
  options_.check_host = true;
  options_.allowed_hosts = {"box.lan"};
  start();
  const auto status = [&](const std::string& host) {
    TestClient client(port_);
    client.send("GET /v1/models HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
    return client.answer().status;
  };
  for (const char* host : {"localhost", "LocalHost:8080", "localhost.", "a.localhost", "127.0.0.1",
                           "127.1.2.3:80", "[::1]", "[::1]:8080", "box.lan:8080", "BOX.lan"}) {
    EXPECT_EQ(status(host), 200) << host;
  }
  for (const char* host :
       {"evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example",
        "xlocalhost", "0.0.0.0", "10.0.0.1", "[::2]", "[::1", "box.lan.evil.example", "."}) {
    EXPECT_EQ(status(host), 421) << host;
  }
  TestClient old(port_);
  old.send("GET /v1/models HTTP/1.0\r\n\r\n");
  EXPECT_EQ(old.answer().status, 200);
  TestClient client(port_);
  client.send("GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n");
  EXPECT_TRUE(contains(client.answer().body, "--allow-host"));
}

TEST_F(Http, CompressedBodiesAreRefused) {
  start();
  const Answer answer = post("/v1/chat/completions", "\x1f\x8b", "Content-Encoding: gzip\r\n");
  EXPECT_EQ(answer.status, 415);
  EXPECT_TRUE(contains(answer.body, R"("param":"Content-Encoding")")) << answer.body;
  EXPECT_EQ(post("/v1/chat/completions", "{}", "Content-Encoding: Identity\r\n").status, 400);
}

}  // namespace
}  // namespace waystation::front
