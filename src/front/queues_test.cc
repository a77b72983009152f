// People's queues over HTTP: each call, what is refused and how, and whose queues they are. What
// the queues themselves do is tested in src/queue.
#include <stdlib.h>

#include <boost/json.hpp>
#include <filesystem>
#include <optional>
#include <thread>

#include "front/http_fixture.h"
#include "guard/keys.h"
#include "queue/testing_station.h"

namespace waystation::front {
namespace {

constexpr std::int64_t kLeaseMs = 60'000;
const std::string kNdjson = "Content-Type: application/x-ndjson\r\n";

struct Call {
  std::string method, path, body;
};

// All calls about one queue, each with a body that is right.
std::vector<Call> calls_of(const std::string& queue) {
  const std::string path = "/v1/queues/" + queue;
  return {
      {"GET", path, ""},
      {"PUT", path, "{}"},
      {"DELETE", path, ""},
      {"POST", path + "/messages", R"({"payload":"a"})"},
      {"POST", path + "/leases", "{}"},
      {"POST", path + "/ack", R"({"lease":"1"})"},
      {"POST", path + "/nack", R"({"lease":"1"})"},
      {"POST", path + "/extend", R"({"lease":"1"})"},
      {"POST", path + "/terminate", R"({"lease":"1"})"},
      {"GET", path + "/dead_letters", ""},
      {"POST", path + "/dead_letters/requeue", R"({"all":true})"},
      {"POST", path + "/dead_letters/discard", R"({"all":true})"},
  };
}

void expect_error(const Answer& answer, int status, const std::string& code,
                  const std::string& param) {
  EXPECT_EQ(answer.status, status) << answer.body;
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
  const auto body = boost::json::parse(answer.body).as_object();
  ASSERT_EQ(body.size(), 1u) << answer.body;
  const auto& error = body.at("error").as_object();
  EXPECT_EQ(error.size(), 4u) << answer.body;
  EXPECT_FALSE(error.at("message").as_string().empty());
  std::string type = "invalid_request_error";
  if (status == 401) type = "authentication_error";
  if (status == 429) type = "rate_limit_error";
  if (status == 503) type = "server_error";
  EXPECT_EQ(error.at("type").as_string(), type);
  EXPECT_EQ(error.at("code").as_string(), code) << answer.body;
  if (param.empty()) {
    EXPECT_TRUE(error.at("param").is_null()) << answer.body;
  } else {
    EXPECT_EQ(error.at("param"), boost::json::value(param)) << answer.body;
  }
}

class HttpQueues : public Http {
 protected:
  HttpQueues() {
    char name[] = "/tmp/ws_front_test.XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~HttpQueues() override {
    stop();
    std::filesystem::remove_all(folder_);
  }
  void start() {
    station_.emplace(clock_, *meter_, limits_);
    parts_.queues = &**station_;
    Http::start();
  }

  Answer call(const Call& what, const std::string& headers = "") {
    TestClient client(port_);
    send(client, what, headers);
    return client.answer();
  }
  static void send(TestClient& client, const Call& what, const std::string& headers = "") {
    const bool has_type = contains(headers, "Content-Type");
    client.send(what.method + " " + what.path + " HTTP/1.1\r\nHost: x\r\n" + headers +
                (has_type ? "" : "Content-Type: application/json\r\n") +
                "Content-Length: " + std::to_string(what.body.size()) + "\r\n\r\n" + what.body);
  }
  // A call to the queue "q" that is to succeed.
  std::string good(const std::string& method, const std::string& rest, const std::string& body = "",
                   const std::string& headers = "") {
    const Answer answer = call({method, "/v1/queues/q" + rest, body}, headers);
    EXPECT_EQ(answer.status, 200) << method << " " << rest << ": " << answer.body;
    EXPECT_EQ(answer.headers.at("content-type"), "application/json");
    return answer.body;
  }
  void publish(int count) {
    for (int i = 0; i < count; ++i) good("POST", "/messages", R"({"payload":"a"})");
  }
  // The lease's number, of `count` messages.
  std::string lease(std::size_t count, const std::string& headers = "") {
    const std::string body = good(
        "POST", "/leases",
        "{\"max\":" + std::to_string(count) + ",\"lease_ms\":" + std::to_string(kLeaseMs) + "}",
        headers);
    const auto taken = boost::json::parse(body).as_object();
    EXPECT_EQ(taken.at("messages").as_array().size(), count) << body;
    return boost::json::value_to<std::string>(taken.at("lease"));
  }
  // "waiting leased dead" of the queue "q".
  std::string counts(const std::string& headers = "") {
    const auto info = boost::json::parse(good("GET", "", "", headers)).as_object();
    return boost::json::serialize(info.at("waiting")) + " " +
           boost::json::serialize(info.at("leased")) + " " +
           boost::json::serialize(info.at("dead"));
  }

  std::string folder_;
  queue::Limits limits_;
  std::optional<queue::MemoryStation> station_;
};

std::string settled(const std::string& lease) {
  return R"({"object":"queue.settled","lease":")" + lease + R"(","until_ms":null})";
}

// ---- What each call does ------------------------------------------------------------------------

TEST_F(HttpQueues, MessagesGoThroughAQueue) {
  start();
  EXPECT_EQ(good("POST", "/messages", R"({"payload":"hello","priority":"high"})"),
            R"({"object":"queue.receipt","id":1,"count":1,"duplicate":false})");
  for (const char* type : {"application/x-ndjson", "application/jsonl; charset=utf-8"}) {
    const std::string receipt = good(
        "POST", "/messages", "{\"payload\":{\"to\": \"ann\"}}\r\n\n{\"payload_base64\":\"AP8=\"}\n",
        "Content-Type: " + std::string(type) + "\r\n");
    EXPECT_TRUE(contains(receipt, R"("count":2,"duplicate":false})")) << receipt;
  }
  EXPECT_EQ(counts(), "5 0 0");
  const TimeMs before = clock_.wall_ms();
  const auto taken =
      boost::json::parse(good("POST", "/leases", R"({"max":3,"lease_ms":60000})")).as_object();
  EXPECT_EQ(taken.at("object").as_string(), "queue.lease");
  EXPECT_GE(taken.at("until_ms").as_int64(), before + kLeaseMs);
  EXPECT_LE(taken.at("until_ms").as_int64(), clock_.wall_ms() + kLeaseMs);
  const auto& messages = taken.at("messages").as_array();
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0].at("payload").as_string(), "hello");
  EXPECT_EQ(messages[1].at("payload").as_string(), R"({"to": "ann"})");
  EXPECT_EQ(messages[2].at("payload_base64").as_string(), "AP8=");
  EXPECT_FALSE(messages[2].as_object().contains("payload"));
  for (std::size_t i = 0; i < messages.size(); ++i) {
    EXPECT_EQ(messages[i].at("id").as_int64(), static_cast<std::int64_t>(i) + 1);
    EXPECT_EQ(messages[i].at("attempt").as_int64(), 1);
    EXPECT_GE(messages[i].at("published_ms").as_int64(), before - kLeaseMs);
  }
  EXPECT_EQ(counts(), "2 3 0");
}

TEST_F(HttpQueues, LeasesAreSettled) {
  start();
  publish(4);
  const std::string held = lease(4);
  const TimeMs before = clock_.wall_ms();
  const auto extended =
      boost::json::parse(good("POST", "/extend", "{\"lease\":" + held + ",\"lease_ms\":3600000}"))
          .as_object();
  EXPECT_EQ(extended.at("lease").as_string(), held);
  EXPECT_GE(extended.at("until_ms").as_int64(), before + 3'600'000);
  EXPECT_EQ(good("POST", "/ack", R"({"ids":[1],"lease":")" + held + "\"}"), settled(held));
  EXPECT_EQ(counts(), "0 3 0");
  EXPECT_EQ(good("POST", "/terminate", R"({"ids":["2"],"reason":"bad","lease":)" + held + "}"),
            settled(held));
  EXPECT_EQ(counts(), "0 2 1");
  EXPECT_EQ(good("POST", "/nack", R"({"ids":[3],"lease":)" + held + "}"), settled(held));
  EXPECT_EQ(counts(), "1 1 1");
  EXPECT_EQ(good("POST", "/nack", R"({"delay_ms":3600000,"lease":)" + held + "}"), settled(held));
  const auto again = boost::json::parse(good("POST", "/leases", R"({"max":9})")).as_object();
  ASSERT_EQ(again.at("messages").as_array().size(), 1u) << "the other one's delay isn't over";
  EXPECT_EQ(again.at("messages").at(0).at("id").as_int64(), 3);
  EXPECT_EQ(again.at("messages").at(0).at("attempt").as_int64(), 2);
}

TEST_F(HttpQueues, ALeaseMayWaitForWhatComes) {
  start();
  good("PUT", "", "{}");
  EXPECT_EQ(good("POST", "/leases", "{}"),
            R"({"object":"queue.lease","lease":null,"until_ms":null,"messages":[]})");
  TestClient waiting(port_);
  send(waiting, {"POST", "/v1/queues/q/leases", R"({"wait_ms":60000})"});
  publish(1);
  const Answer answer = waiting.answer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(contains(answer.body, R"("messages":[{"id":1,"attempt":1,)")) << answer.body;
}

TEST_F(HttpQueues, SettingsAreChangedAndShown) {
  start();
  const auto shown = [](const std::string& body) {
    const auto info = boost::json::parse(body).as_object();
    EXPECT_EQ(info.at("object").as_string(), "queue");
    EXPECT_EQ(info.at("name").as_string(), "q");
    return boost::json::serialize(info.at("max_attempts")) + " " +
           boost::json::serialize(info.at("lease_ms")) + " " +
           boost::json::serialize(info.at("on_dead"));
  };
  EXPECT_EQ(shown(good("PUT", "", "{}")), R"(5 30000 "skip")");
  EXPECT_EQ(shown(good("PUT", "", R"({"max_attempts":1,"on_dead":"block"})")),
            R"(1 30000 "block")");
  EXPECT_EQ(shown(good("PUT", "", R"({"lease_ms":7,"on_dead":null})")), R"(1 7 "block")");
  EXPECT_EQ(shown(good("GET", "")), R"(1 7 "block")");
}

TEST_F(HttpQueues, QueuesAreListedAndDeleted) {
  start();
  EXPECT_EQ(get("/v1/queues").body, R"({"object":"list","data":[]})");
  for (const char* name : {"b", "a-._Z9"}) {
    EXPECT_EQ(call({"PUT", std::string("/v1/queues/") + name, "{}"}).status, 200);
  }
  publish(1);
  const auto list = boost::json::parse(get("/v1/queues").body).as_object();
  const auto& data = list.at("data").as_array();
  ASSERT_EQ(data.size(), 3u);
  EXPECT_EQ(data[0].at("name").as_string(), "a-._Z9");
  EXPECT_TRUE(data[0].at("oldest_age_ms").is_null());
  EXPECT_EQ(data[2].at("name").as_string(), "q");
  EXPECT_EQ(data[2].at("published").as_int64(), 1);
  EXPECT_GE(data[2].at("oldest_age_ms").as_int64(), 0);
  EXPECT_EQ(good("DELETE", ""), R"({"object":"queue.deleted","name":"q","deleted":true})");
  expect_error(get("/v1/queues/q"), 404, "not_found", "name");
}

TEST_F(HttpQueues, DeadLettersAreListedPageByPageRequeuedAndDiscarded) {
  start();
  good("POST", "/messages", R"({"payload":"a","lane":"ann"})");
  publish(2);
  good("POST", "/terminate", R"({"reason":"broken","lease":)" + lease(3) + "}");
  const auto page = [&](const std::string& query) {
    return boost::json::parse(good("GET", "/dead_letters" + query)).as_object();
  };
  const auto first = page("?limit=2");
  EXPECT_EQ(first.at("object").as_string(), "list");
  EXPECT_TRUE(first.at("has_more").as_bool());
  ASSERT_EQ(first.at("data").as_array().size(), 2u);
  const auto& letter = first.at("data").at(0).as_object();
  EXPECT_EQ(letter.at("id").as_int64(), 1);
  EXPECT_EQ(letter.at("reason").as_string(), "broken");
  EXPECT_EQ(letter.at("lane").as_string(), "ann");
  EXPECT_EQ(letter.at("attempts").as_int64(), 1);
  EXPECT_EQ(letter.at("payload").as_string(), "a");
  EXPECT_GE(letter.at("died_ms").as_int64(), letter.at("published_ms").as_int64());
  EXPECT_TRUE(first.at("data").at(1).at("lane").is_null());
  const auto second = page("?limit=1&after=2");
  ASSERT_EQ(second.at("data").as_array().size(), 1u);
  EXPECT_EQ(second.at("data").at(0).at("id").as_int64(), 3);
  EXPECT_FALSE(second.at("has_more").as_bool());
  EXPECT_EQ(page("").at("data").as_array().size(), 3u);

  EXPECT_EQ(good("POST", "/dead_letters/requeue", R"({"ids":[2,"2"]})"),
            R"({"object":"queue.dead_letters.requeued","count":1})");
  EXPECT_EQ(counts(), "1 0 2");
  EXPECT_EQ(good("POST", "/dead_letters/discard", R"({"all":true})"),
            R"({"object":"queue.dead_letters.discarded","count":2})");
  EXPECT_EQ(counts(), "1 0 0");
}

TEST_F(HttpQueues, AKeyBindsItsBody) {
  start();
  const std::string key = "Idempotency-Key: k\r\n";
  const std::string body = R"({"payload":"a"})";
  const std::string receipt = R"({"object":"queue.receipt","id":1,"count":1,"duplicate":)";
  EXPECT_EQ(good("POST", "/messages", body, key), receipt + "false}");
  EXPECT_EQ(good("POST", "/messages", body, key), receipt + "true}");
  EXPECT_EQ(counts(), "1 0 0");
  expect_error(call({"POST", "/v1/queues/q/messages", R"({"payload":"b"})"}, key), 422,
               "idempotency_mismatch", "idempotency_key");
  for (const std::string& bad : {std::string(), std::string(256, 'k')}) {
    expect_error(call({"POST", "/v1/queues/q/messages", body}, "Idempotency-Key: " + bad + "\r\n"),
                 400, "invalid_argument", "Idempotency-Key");
  }
  EXPECT_EQ(counts(), "1 0 0");
}

// ---- What is refused ----------------------------------------------------------------------------

TEST_F(HttpQueues, WrongBodiesAreRefusedByTheirMember) {
  start();
  publish(1);
  const std::string held = lease(1);
  const auto state = [&] {
    auto info = boost::json::parse(good("GET", "")).as_object();
    info.erase("oldest_age_ms");
    return boost::json::serialize(info);
  };
  const std::string before = state();
  const auto with_lease = [&](const std::string& more) {
    return "{\"lease\":\"" + held + "\"," + more + "}";
  };
  struct Case {
    std::string method, path, body, param;
  };
  std::vector<Case> cases = {
      {"POST", "/messages", "{}", "payload"},
      {"POST", "/messages", R"({"lane":"l"})", "payload"},
      {"POST", "/messages", R"({"payload":null})", "payload"},
      {"POST", "/messages", R"({"payload":"a","payload_base64":"AA=="})", "payload"},
      {"POST", "/messages", R"({"payload_base64":5})", "payload_base64"},
      {"POST", "/messages", R"({"payload_base64":"A*=="})", "payload_base64"},
      {"POST", "/messages", R"({"payload":"a","lane":5})", "lane"},
      {"POST", "/messages", R"({"payload":"a","lane":")" + std::string(257, 'l') + "\"}", "lane"},
      {"POST", "/messages", R"({"payload":"a","priority":1})", "priority"},
      {"POST", "/messages", R"({"payload":"a","priority":"urgent"})", "priority"},
      {"POST", "/messages", R"({"payload":"a","delay_ms":"1"})", "delay_ms"},
      {"POST", "/messages", R"({"payload":"a","delay_ms":-1})", "delay_ms"},
      {"POST", "/messages", R"({"payload":"a","ttl_ms":0})", "ttl_ms"},
      {"POST", "/messages", R"({"payload":"a","ttl_ms":1,"deadline_ms":9})", "ttl_ms"},
      {"POST", "/messages", R"({"payload":"a","deadline_ms":1})", "deadline_ms"},
      {"POST", "/messages", R"({"payload":"a","prio":"low"})", "prio"},
      {"POST", "/messages", "{\"payload\":\"" + std::string((1 << 20) + 1, 'a') + "\"}", "payload"},
      {"POST", "/leases", R"({"max":0})", "max"},
      {"POST", "/leases", R"({"max":1001})", "max"},
      {"POST", "/leases", R"({"max":"1"})", "max"},
      {"POST", "/leases", R"({"lease_ms":0})", "lease_ms"},
      {"POST", "/leases", R"({"wait_ms":60001})", "wait_ms"},
      {"POST", "/leases", R"({"limit":1})", "limit"},
      {"POST", "/ack", with_lease(R"("delay_ms":1)"), "delay_ms"},
      {"POST", "/nack", with_lease(R"("delay_ms":-1)"), "delay_ms"},
      {"POST", "/nack", with_lease(R"("reason":5)"), "reason"},
      {"POST", "/nack", with_lease("\"reason\":\"" + std::string(1025, 'r') + "\""), "reason"},
      {"POST", "/extend", with_lease(R"("lease_ms":0)"), "lease_ms"},
      {"POST", "/extend", with_lease(R"("ids":[1])"), "ids"},
      {"POST", "/terminate", with_lease(R"("delay_ms":1)"), "delay_ms"},
      {"PUT", "", R"({"max_attempts":0})", "max_attempts"},
      {"PUT", "", R"({"max_attempts":201})", "max_attempts"},
      {"PUT", "", R"({"max_attempts":"5"})", "max_attempts"},
      {"PUT", "", R"({"lease_ms":1.5})", "lease_ms"},
      {"PUT", "", R"({"on_dead":"burn"})", "on_dead"},
      {"PUT", "", R"({"on_dead":true})", "on_dead"},
      {"PUT", "", R"({"attempts":3})", "attempts"},
      {"GET", "/dead_letters?after=x", "", "after"},
      {"GET", "/dead_letters?after=-1", "", "after"},
      {"GET", "/dead_letters?limit=101", "", "limit"},
      {"GET", "/dead_letters?limit=", "", "limit"},
  };
  for (const char* action : {"/ack", "/nack", "/extend", "/terminate"}) {
    for (const char* bad : {"{}", R"({"lease":0})", R"({"lease":"x"})", R"({"lease":[1]})"}) {
      cases.push_back({"POST", action, bad, "lease"});
    }
    if (action == std::string("/extend")) continue;
    for (const char* bad : {R"("ids":[])", R"("ids":1)", R"("ids":[0])", R"("ids":[1,"x"])"}) {
      cases.push_back({"POST", action, with_lease(bad), "ids"});
    }
  }
  for (const char* action : {"/dead_letters/requeue", "/dead_letters/discard"}) {
    for (const char* bad : {"{}", R"({"all":false})", R"({"all":1})", R"({"ids":[1],"all":true})",
                            R"({"ids":"1"})", R"({"ids":[]})"}) {
      cases.push_back({"POST", action, bad, "ids"});
    }
    cases.push_back({"POST", action, R"({"id":1})", "id"});
  }
  // No object, on every path that has a body. (An empty one is {}.)
  for (const Call& each : calls_of("q")) {
    if (each.body.empty()) continue;
    for (const char* bad : {" ", "{", "[1]", "null", "\"a\"", "\xff"}) {
      cases.push_back({each.method, each.path.substr(12), bad, ""});
    }
  }
  for (const Case& each : cases) {
    SCOPED_TRACE(each.method + " " + each.path + " " + each.body.substr(0, 80));
    const Answer answer = call({each.method, "/v1/queues/q" + each.path, each.body});
    expect_error(answer, 400, "invalid_argument", each.param);
    EXPECT_TRUE(contains(answer.body, each.param));
  }
  EXPECT_EQ(state(), before) << "one of them changed something";
  EXPECT_TRUE(contains(call({"POST", "/v1/queues/q/messages", R"({"payload":1,"lanes":"l"})"}).body,
                       "did you mean 'lane'?"));
}

TEST_F(HttpQueues, LinesArePublishedTogetherOrNotAtAll) {
  start();
  const std::string line = "{\"payload\":\"a\"}\n";
  std::string many, large;
  for (int i = 0; i <= 16'384; ++i) many += line;
  for (int i = 0; i < 4; ++i) large += "{\"payload\":\"" + std::string(900'000, 'a') + "\"}\n";
  const struct {
    std::string body, param, said;
  } cases[] = {
      {"", "payload", "no line"},
      {"\r\n\n", "payload", "no line"},
      {line + "{\"payload\":\n", "", "lines[1] is no JSON"},
      {line + "[1]\n", "", "lines[1] must be a JSON object"},
      {line + "\n{\"payload\":1,\"lane\":3}\n", "lines[2].lane", "lines[2].lane must be"},
      {line + "{\"payload\":1,\"lanes\":\"l\"}", "lines[1].lanes", "did you mean 'lane'?"},
      {line + "{}\n", "lines[1].payload", "must be there"},
      {many, "", "at most 16384"},
      {large, "payload", "send them in several"},
  };
  for (const auto& [body, param, said] : cases) {
    SCOPED_TRACE(body.substr(0, 60));
    const Answer answer = call({"POST", "/v1/queues/q/messages", body}, kNdjson);
    expect_error(answer, 400, "invalid_argument", param);
    EXPECT_TRUE(contains(answer.body, said)) << answer.body;
  }
  EXPECT_EQ(get("/v1/queues/q").status, 404) << "nothing of them was taken";
  // Lines that aren't called so are one body, which is no JSON.
  expect_error(call({"POST", "/v1/queues/q/messages", line + line}), 400, "invalid_argument", "");
}

TEST_F(HttpQueues, BodiesOverTheLimitAreRefusedBeforeTheyCome) {
  options_.body_bytes_max = 100;
  start();
  for (const Call& each : calls_of("q")) {
    if (each.body.empty()) continue;
    TestClient client(port_);
    client.send(each.method + " " + each.path +
                " HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n");
    expect_error(client.answer(), 413, "too_large", "");
  }
  EXPECT_EQ(get("/v1/queues").body, R"({"object":"list","data":[]})");
}

TEST_F(HttpQueues, QueuesThatAreNotThereAndNamesThatCannotBe) {
  start();
  for (const std::string& bad :
       {std::string("a%20b"), std::string("%2F"), std::string("%C3%A4"), std::string(129, 'n')}) {
    for (const Call& each : calls_of(bad)) {
      SCOPED_TRACE(each.method + " " + each.path);
      const bool makes = each.method == "PUT" || each.path.ends_with("/messages");
      expect_error(call(each), makes ? 400 : 404, makes ? "invalid_argument" : "not_found", "name");
    }
  }
  for (const Call& each : calls_of("none")) {
    if (each.method == "PUT" || each.path.ends_with("/messages")) continue;
    SCOPED_TRACE(each.method + " " + each.path);
    expect_error(call(each), 404, "not_found", "name");
  }
  expect_error(call({"PUT", "/v1/queues/none", R"({"lease_ms":0})"}), 400, "invalid_argument",
               "lease_ms");
  EXPECT_EQ(get("/v1/queues").body, R"({"object":"list","data":[]})");
  EXPECT_EQ(call({"PUT", "/v1/queues/" + std::string(128, 'n'), "{}"}).status, 200);
}

TEST_F(HttpQueues, OtherMethodsAreNamed) {
  start();
  const std::pair<Call, const char*> cases[] = {
      {{"POST", "/v1/queues", "{}"}, "GET, HEAD"},
      {{"POST", "/v1/queues/q", "{}"}, "GET, HEAD, PUT, DELETE"},
      {{"GET", "/v1/queues/q/messages", ""}, "POST"},
      {{"DELETE", "/v1/queues/q/leases", ""}, "POST"},
      {{"POST", "/v1/queues/q/dead_letters", "{}"}, "GET, HEAD"},
      {{"GET", "/v1/queues/q/dead_letters/requeue", ""}, "POST"},
  };
  for (const auto& [what, allow] : cases) {
    SCOPED_TRACE(what.method + " " + what.path);
    const Answer answer = call(what);
    expect_error(answer, 405, "method_not_allowed", "");
    EXPECT_EQ(answer.headers.at("allow"), allow);
  }
  EXPECT_EQ(get("/v1/queues/q/nothing").status, 404);
}

TEST_F(HttpQueues, ALeaseThatEndedOrIsOfAnotherQueueIsGone) {
  start();
  publish(2);
  const std::string held = lease(2);
  call({"POST", "/v1/queues/other/messages", R"({"payload":"a"})"});
  for (const char* action : {"/ack", "/nack", "/extend", "/terminate"}) {
    expect_error(
        call({"POST", "/v1/queues/other" + std::string(action), "{\"lease\":" + held + "}"}), 410,
        "gone", "lease");
  }
  expect_error(call({"POST", "/v1/queues/q/ack", R"({"ids":[1,3],"lease":)" + held + "}"}), 410,
               "gone", "lease");
  EXPECT_EQ(counts(), "0 2 0") << "one of them changed something";
  good("POST", "/ack", "{\"lease\":" + held + "}");
  for (const char* action : {"/ack", "/nack", "/extend", "/terminate"}) {
    expect_error(call({"POST", "/v1/queues/q" + std::string(action), "{\"lease\":" + held + "}"}),
                 410, "gone", "lease");
  }
}

TEST_F(HttpQueues, OnlyWhatIsDeadIsRequeuedOrDiscarded) {
  start();
  publish(2);
  good("POST", "/terminate", R"({"ids":[1],"lease":)" + lease(2) + "}");
  for (const char* action : {"/dead_letters/requeue", "/dead_letters/discard"}) {
    expect_error(call({"POST", "/v1/queues/q" + std::string(action), R"({"ids":[1,2]})"}), 404,
                 "not_found", "ids");
  }
  EXPECT_EQ(counts(), "0 1 1") << "all or none of them";
}

TEST_F(HttpQueues, WhatIsFullSaysWhenToComeAgain) {
  limits_.queue_messages_max = 2;
  limits_.tenant_queues_max = 2;
  start();
  const std::string line = "{\"payload\":\"a\"}\n";
  publish(1);
  EXPECT_EQ(call({"PUT", "/v1/queues/other", "{}"}).status, 200);
  for (const auto& [what, headers] :
       {std::pair{Call{"POST", "/v1/queues/q/messages", line + line}, kNdjson},
        std::pair{Call{"POST", "/v1/queues/third/messages", line}, std::string()},
        std::pair{Call{"PUT", "/v1/queues/third", "{}"}, std::string()}}) {
    const Answer full = call(what, headers);
    expect_error(full, 429, "queue_full", "");
    EXPECT_EQ(full.headers.at("retry-after-ms"), "1000");
  }
  publish(1);
  EXPECT_EQ(call({"POST", "/v1/queues/q/messages", line}).status, 429);
  good("POST", "/ack", "{\"lease\":" + lease(2) + "}");
  publish(1);
}

TEST_F(HttpQueues, AServerWithoutQueuesOrWhoseJournalFailedSaysSo) {
  Http::start();
  for (const Call& each : calls_of("q")) expect_error(call(each), 503, "unavailable", "");
  expect_error(get("/v1/queues"), 503, "unavailable", "");
  stop();
  start();
  publish(1);
  station_->fail_journal({Code::kIo, "no space"});
  // Its own thread hears of it.
  while ((*station_)->accepting()) std::this_thread::yield();
  for (const Call& each : calls_of("q")) {
    if (each.method == "GET" && each.path == "/v1/queues/q") continue;
    SCOPED_TRACE(each.method + " " + each.path);
    const Answer answer = call(each);
    expect_error(answer, 503, "unavailable", "");
    EXPECT_TRUE(contains(answer.body, "no space")) << answer.body;
  }
  EXPECT_EQ(counts(), "1 0 0") << "what is known can be asked";
}

// ---- Whose queues they are ----------------------------------------------------------------------

TEST_F(HttpQueues, TenantsHaveQueuesOfTheirOwn) {
  const auto bearer = [&](const char* tenant) {
    return "Authorization: Bearer " + guard::add_key(folder_ + "/keys", tenant, 0).value() + "\r\n";
  };
  const std::string ann = bearer("ann");
  const std::string bob = bearer("bob");
  const auto keys = guard::KeyFile::open(folder_ + "/keys");
  ASSERT_TRUE(keys);
  keys_ = keys->get();
  start();
  for (const Call& each : calls_of("q")) {
    SCOPED_TRACE(each.method + " " + each.path);
    expect_error(call(each), 401, "invalid_api_key", "");
  }
  good("POST", "/messages", R"({"payload":"hers"})", ann + "Idempotency-Key: k\r\n");
  good("POST", "/messages", R"({"payload":"hers too"})", ann);
  const std::string held = lease(1, ann);

  // To others it isn't there,
  for (const Call& each : calls_of("q")) {
    if (each.method == "PUT" || each.path.ends_with("/messages")) continue;
    SCOPED_TRACE(each.method + " " + each.path);
    expect_error(call(each, bob), 404, "not_found", "name");
  }
  EXPECT_EQ(call({"GET", "/v1/queues", ""}, bob).body, R"({"object":"list","data":[]})");
  // one of that name is another one,
  const std::string receipt =
      good("POST", "/messages", R"({"payload":"his"})", bob + "Idempotency-Key: k\r\n");
  EXPECT_EQ(receipt, R"({"object":"queue.receipt","id":1,"count":1,"duplicate":false})");
  EXPECT_EQ(counts(bob), "1 0 0");
  // and a lease of hers is worth nothing there.
  for (const char* action : {"/ack", "/nack", "/extend", "/terminate"}) {
    expect_error(
        call({"POST", "/v1/queues/q" + std::string(action), "{\"lease\":" + held + "}"}, bob), 410,
        "gone", "lease");
  }
  good("DELETE", "", "", bob);
  EXPECT_EQ(counts(ann), "1 1 0");
  good("POST", "/ack", "{\"lease\":" + held + "}", ann);
}

}  // namespace
}  // namespace waystation::front
