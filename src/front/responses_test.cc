// /v1/responses over real sockets: the fake broker behind the real memory and a real database.
#include <stdlib.h>

#include <filesystem>

#include "front/http_fixture.h"
#include "memory/memory.h"

namespace waystation::front {
namespace {

namespace fs = std::filesystem;

// The value of a string member.
std::string member(const std::string& json, const std::string& name) {
  const std::string before = "\"" + name + "\":\"";
  const std::size_t at = json.find(before);
  if (at == std::string::npos) return "";
  return json.substr(at + before.size(), json.find('"', at + before.size()) - at - before.size());
}

class HttpResponses : public Http {
 protected:
  HttpResponses() {
    char name[] = "/tmp/ws_front_responses.XXXXXX";
    folder_ = ::mkdtemp(name);
    auto schema = store::responses_schema();
    for (auto& step : store::conversations_schema()) schema.push_back(std::move(step));
    for (auto& step : store::bound_keys_schema()) schema.push_back(std::move(step));
    database_ = store::Database::open({.path = folder_ + "/store.db"}, schema).value();
    memory_ = std::make_unique<memory::Memory>(
        memory::Deps{*database_, clock_, [this] { return ++random_; }}, memory::Options{});
    EXPECT_TRUE(memory_->start(api_));
    parts_.memory = memory_.get();
    start();
  }
  ~HttpResponses() override {
    stop();
    database_->stop();
    fs::remove_all(folder_);
  }

  Answer del(const std::string& target) {
    TestClient client(port_);
    client.send("DELETE " + target + " HTTP/1.1\r\nHost: x\r\n\r\n");
    return client.answer();
  }
  // Asks, has it answered with "Hello", and gives the answer.
  Answer ask(const std::string& more = "") {
    TestClient client(port_);
    client.post("/v1/responses", R"({"model":"m","input":"hi")" + more + "}");
    id_ = api_.wait_request(++asked_);
    answer_fully(id_);
    return client.answer();
  }
  std::string path() const { return "/v1/responses/" + message::response_id(id_); }

  std::string folder_;
  std::atomic<std::uint64_t> random_ = 1;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<memory::Memory> memory_;
  std::size_t asked_ = 0;
  RequestId id_;
};

TEST_F(HttpResponses, IsAnsweredStoredAndReadBack) {
  const Answer made = ask();
  ASSERT_EQ(made.status, 200) << made.body;
  EXPECT_EQ(member(made.body, "object"), "response");
  EXPECT_EQ(member(made.body, "status"), "completed");
  EXPECT_TRUE(contains(made.body, R"("type":"output_text","text":"Hello")")) << made.body;
  EXPECT_EQ(api_.submission(id_).envelope.api(), "responses");
  const std::string target = "/v1/responses/" + member(made.body, "id");
  const Answer read = get(target);
  EXPECT_EQ(read.status, 200);
  EXPECT_EQ(read.body, made.body);
  EXPECT_EQ(read.headers.at("x-request-id"), id_.to_string());
  const Answer items = get(target + "/input_items");
  EXPECT_EQ(items.status, 200);
  EXPECT_TRUE(contains(items.body, R"("type":"input_text","text":"hi")")) << items.body;
  EXPECT_TRUE(contains(items.body, R"("has_more":false)")) << items.body;
  EXPECT_EQ(get(target + "/input_items?limit=0").status, 400);
}

TEST_F(HttpResponses, StreamsAndStreamsAgain) {
  const Answer live = ask(R"(,"stream":true)");
  ASSERT_EQ(live.status, 200);
  const auto events = frames(live.body);
  ASSERT_GE(events.size(), 5u);
  EXPECT_EQ(events.front().event, "response.created");
  EXPECT_EQ(events.back().event, "response.completed");
  const std::string id = member(events.front().data, "id");
  EXPECT_EQ(get("/v1/responses/" + id + "?stream=true").body, live.body);
  const auto rest = frames(get("/v1/responses/" + id + "?stream=true&starting_after=1").body);
  ASSERT_EQ(rest.size(), events.size() - 2);
  EXPECT_EQ(rest.front().data, events[2].data);
  EXPECT_EQ(get("/v1/responses/" + id + "?stream=maybe").status, 400);
  EXPECT_EQ(get("/v1/responses/" + id + "?stream=true&starting_after=x").status, 400);
}

TEST_F(HttpResponses, RunsInTheBackgroundUntilItIsCancelled) {
  const Answer made = post("/v1/responses", R"({"model":"m","input":"hi","background":true})");
  ASSERT_EQ(made.status, 200) << made.body;
  EXPECT_EQ(member(made.body, "status"), "queued");
  const std::string target = "/v1/responses/" + member(made.body, "id");
  id_ = api_.wait_request(++asked_);
  EXPECT_TRUE(api_.submission(id_).detached);
  EXPECT_EQ(member(get(target).body, "status"), "in_progress");
  const Answer cancelled = post(target + "/cancel", "");
  EXPECT_EQ(cancelled.status, 200);
  EXPECT_EQ(member(cancelled.body, "status"), "cancelled");
  EXPECT_EQ(post(target + "/cancel", "").body, cancelled.body);
  ask();
  const Answer refused = post(path() + "/cancel", "");
  EXPECT_EQ(refused.status, 400);
  EXPECT_TRUE(contains(refused.body, "background")) << refused.body;
}

TEST_F(HttpResponses, DeletingTakesTheRequestAlong) {
  const Answer made = ask();
  const std::string request = "/v1/requests/" + id_.to_string();
  EXPECT_EQ(get(request).status, 200);
  const std::string id = member(made.body, "id");
  const Answer deleted = del("/v1/responses/" + id);
  EXPECT_EQ(deleted.status, 200);
  EXPECT_EQ(deleted.body, R"({"id":")" + id + R"(","object":"response","deleted":true})");
  EXPECT_EQ(get("/v1/responses/" + id).status, 404);
  EXPECT_EQ(del("/v1/responses/" + id).status, 404);
  EXPECT_EQ(get(request).status, 404) << "the fake's word for it";
  EXPECT_EQ(get(request + "/events").status, 404);
}

TEST_F(HttpResponses, WhatIsNotStoredCanBeDeletedAsARequest) {
  const Answer made = ask(R"(,"store":false)");
  EXPECT_EQ(made.status, 200);
  EXPECT_EQ(get(path()).status, 404);
  EXPECT_EQ(del(path()).status, 404);
  const std::string request = "/v1/requests/" + id_.to_string();
  EXPECT_TRUE(contains(get(request).body, "Hello"));
  const Answer deleted = del(request);
  EXPECT_EQ(deleted.status, 200);
  EXPECT_EQ(deleted.body,
            R"({"id":")" + id_.to_string() + R"(","object":"request","deleted":true})");
  EXPECT_EQ(get(request).status, 404);
  EXPECT_EQ(del(request).status, 404);
  EXPECT_EQ(del("/v1/requests/nonsense").status, 404);
}

TEST_F(HttpResponses, BuildsOnAnEarlierOne) {
  const std::string first = member(ask().body, "id");
  const Answer second = ask(R"(,"previous_response_id":")" + first + "\"");
  ASSERT_EQ(second.status, 200) << second.body;
  EXPECT_EQ(member(second.body, "previous_response_id"), first);
  const std::string data = api_.submission(id_).envelope.data();
  EXPECT_TRUE(contains(data, "Hello")) << data;
  const Answer lost =
      post("/v1/responses", R"({"model":"m","input":"x","previous_response_id":"resp_nonsense"})");
  EXPECT_EQ(lost.status, 400);
  EXPECT_EQ(member(lost.body, "param"), "previous_response_id");
}

TEST_F(HttpResponses, RefusesWhatItCannotDo) {
  for (const auto& [body, param] : std::vector<std::pair<std::string, std::string>>{
           {R"({"input":"hi"})", "model"},
           {R"({"model":"m","input":7})", "input"},
           {R"({"model":"m","input":"hi","n":2})", "n"},
           {R"({"model":"m","input":"hi","background":true,"store":false})", "background"},
           {R"({"model":"m","input":"hi","truncation":"auto"})", "truncation"}}) {
    const Answer answer = post("/v1/responses", body);
    EXPECT_EQ(answer.status, 400) << body;
    EXPECT_EQ(member(answer.body, "param"), param) << answer.body;
  }
  const Answer header =
      post("/v1/responses", R"({"model":"m","input":"hi"})", "X-Conversation-Memory: true\r\n");
  EXPECT_EQ(member(header.body, "param"), "X-Conversation-Memory");
  EXPECT_EQ(post("/v1/responses", R"({"model":"m","input":"hi","conversation":"conv_x"})").status,
            404);
  EXPECT_EQ(get("/v1/responses/nonsense").status, 404);
}

TEST_F(HttpResponses, AKeyMakesOneConversation) {
  const std::string key = "Idempotency-Key: k\r\n";
  const Answer first = post("/v1/conversations", R"({"metadata":{"a":"b"}})", key);
  ASSERT_EQ(first.status, 200) << first.body;
  EXPECT_EQ(post("/v1/conversations", R"({"metadata": {"a":"b"}})", key).body, first.body);
  EXPECT_EQ(post("/v1/conversations", R"({"metadata":{"a":"c"}})", key).status, 422);
}

}  // namespace
}  // namespace waystation::front
