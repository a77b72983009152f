// Dead letters over HTTP: the header, the list, requeue and discard.
#include <boost/json.hpp>

#include "front/http_fixture.h"

namespace waystation::front {
namespace {

class HttpDeadLetters : public Http {
 protected:
  RequestId ask(const std::string& headers = "") {
    clients_.push_back(std::make_unique<TestClient>(port_));
    clients_.back()->post("/v1/chat/completions", kBody, headers);
    return api_.wait_request(clients_.size());
  }
  RequestId dead(const std::string& headers = "") {
    const RequestId id = ask(headers);
    api_.end(id,
             FakeApi::failed(v1::REQUEST_STATE_DEAD, "dead", "gave up after 3 failed attempts"));
    return id;
  }
  static std::string path(RequestId id, const std::string& rest = "") {
    return "/v1/requests/" + id.to_string() + rest;
  }

  std::vector<std::unique_ptr<TestClient>> clients_;
};

TEST_F(HttpDeadLetters, TheHeaderGoesAlong) {
  start();
  EXPECT_EQ(api_.submission(ask()).block_on_dead, std::nullopt);
  EXPECT_EQ(api_.submission(ask("X-On-Dead: block\r\n")).block_on_dead, true);
  EXPECT_EQ(api_.submission(ask("X-On-Dead: Skip\r\n")).block_on_dead, false);
  const Answer bad = post("/v1/chat/completions", kBody, "X-On-Dead: maybe\r\n");
  EXPECT_EQ(bad.status, 400);
  EXPECT_TRUE(contains(bad.body, R"("param":"X-On-Dead")")) << bad.body;
}

TEST_F(HttpDeadLetters, RequeueingAnswersWithTheSameNewRequestEachTime) {
  start();
  const RequestId id = dead();
  EXPECT_TRUE(contains(get(path(id)).body, R"("requeued_as":null,"discarded":false)"));
  const Answer first = post(path(id, "/requeue"), "");
  EXPECT_EQ(first.status, 200);
  const std::string made = first.headers.at("x-request-id");
  EXPECT_NE(made, id.to_string());
  EXPECT_EQ(first.body, R"({"id":")" + made + R"(","object":"request.requeued","requeue_of":")" +
                            id.to_string() + R"("})");
  EXPECT_EQ(post(path(id, "/requeue"), "").body, first.body);
  EXPECT_TRUE(contains(get(path(id)).body, R"("requeued_as":")" + made + R"(")"));
  EXPECT_TRUE(
      contains(get("/v1/requests/" + made).body, R"("requeue_of":")" + id.to_string() + R"(")"));
}

TEST_F(HttpDeadLetters, DiscardingShowsTheRequest) {
  start();
  const RequestId id = dead("X-Conversation-Id: c\r\nX-On-Dead: block\r\n");
  EXPECT_TRUE(contains(get(path(id)).body, R"("blocks_conversation":true)"));
  for (int i = 0; i < 2; ++i) {
    const Answer answer = post(path(id, "/discard"), "");
    EXPECT_EQ(answer.status, 200);
    EXPECT_TRUE(contains(answer.body, R"("discarded":true,"blocks_conversation":false)"))
        << answer.body;
    EXPECT_TRUE(contains(answer.body, R"("state":"dead")"));
  }
}

TEST_F(HttpDeadLetters, OnlyDeadOnesThatAreThere) {
  start();
  const RequestId id = ask();
  for (const std::string what : {"/requeue", "/discard"}) {
    const Answer alive = post(path(id, what), "");
    EXPECT_EQ(alive.status, 409);
    EXPECT_TRUE(contains(alive.body, R"("code":"conflict")")) << alive.body;
    EXPECT_EQ(alive.headers.at("x-should-retry"), "false");
    EXPECT_EQ(post("/v1/requests/0190f0c2-0000-7000-8000-000000000000" + what, "").status, 404);
    EXPECT_EQ(post("/v1/requests/nothing" + what, "").status, 404);
    EXPECT_EQ(get(path(id, what)).status, 405);
  }
}

TEST_F(HttpDeadLetters, AreListedPageByPage) {
  start();
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(dead().to_string());
  (void)ask();
  const auto page = [&](const std::string& query) {
    const Answer answer = get("/v1/requests?state=dead" + query);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return boost::json::parse(answer.body).as_object();
  };
  const auto first = page("&limit=2");
  const auto& data = first.at("data").as_array();
  ASSERT_EQ(data.size(), 2u);
  EXPECT_EQ(data[0].at("id").as_string(), ids[2]);
  EXPECT_EQ(data[0].at("state").as_string(), "dead");
  EXPECT_EQ(data[0].at("error").at("message").as_string(), "gave up after 3 failed attempts");
  EXPECT_TRUE(first.at("has_more").as_bool());
  EXPECT_EQ(first.at("last_id").as_string(), ids[1]);
  const auto second = page("&limit=2&after=" + ids[1]);
  ASSERT_EQ(second.at("data").as_array().size(), 1u);
  EXPECT_EQ(second.at("first_id").as_string(), ids[0]);
  EXPECT_FALSE(second.at("has_more").as_bool());
  for (const std::string bad : {"?state=failed", "", "?state=dead&limit=101", "?state=dead&limit=x",
                                "?state=dead&after=nothing", "?state=dead&order=asc"}) {
    EXPECT_EQ(get("/v1/requests" + bad).status, 400) << bad;
  }
}

}  // namespace
}  // namespace waystation::front
