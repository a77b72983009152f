// Files and batches over real sockets: the body that comes in pieces, the form, the answers.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "base/thread_executor.h"
#include "batch/runner.h"
#include "front/fake_api.h"
#include "front/server.h"
#include "front/test_client.h"
#include "store/batches.h"
#include "store/files.h"

namespace waystation::front {
namespace {

namespace fs = std::filesystem;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The value of a string member.
std::string member(const std::string& json, const std::string& name) {
  const std::string before = "\"" + name + "\":\"";
  const std::size_t at = json.find(before);
  if (at == std::string::npos) return "";
  return json.substr(at + before.size(), json.find('"', at + before.size()) - at - before.size());
}

std::string form(const std::string& content, const std::string& purpose = "user_data",
                 const std::string& more = "") {
  std::string out;
  if (!purpose.empty()) {
    out += "--B\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n" + purpose + "\r\n";
  }
  return out + more +
         "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f.jsonl\"\r\n"
         "Content-Type: application/octet-stream\r\n\r\n" +
         content + "\r\n--B--\r\n";
}

class HttpFiles : public testing::Test {
 protected:
  HttpFiles() {
    char name[] = "/tmp/ws_front_test.XXXXXX";
    file_options_.folder = ::mkdtemp(name);
  }
  ~HttpFiles() override {
    if (server_) server_->stop(0);
    server_.reset();
    if (runner_) runner_->stop();
    if (database_) database_->stop();
    disk_.stop();
    fs::remove_all(file_options_.folder);
  }
  void start() {
    auto schema = store::files_schema();
    for (auto& step : store::batches_schema()) schema.push_back(std::move(step));
    for (auto& step : store::bound_keys_schema()) schema.push_back(std::move(step));
    database_ = std::move(
        store::Database::open({.path = file_options_.folder + "/store.db"}, schema).value());
    files_ = std::make_unique<store::Files>(file_options_, *database_, disk_, clock_);
    ASSERT_TRUE(files_->start());
    runner_ = std::make_unique<batch::Runner>(batch::RunnerOptions{}, api_, *database_, *files_,
                                              clock_, *meter_);
    ASSERT_TRUE(runner_->start());
    options_.listen.port = 0;
    options_.tick_ms = 5;
    Parts parts;
    parts.files = files_.get();
    parts.batches = runner_.get();
    server_ = std::make_unique<Server>(options_, api_, nullptr, nullptr, clock_, *meter_, parts);
    auto port = server_->start();
    ASSERT_TRUE(port) << port.error().message;
    port_ = *port;
  }

  Answer call(const std::string& method, const std::string& target, const std::string& body = "",
              const std::string& headers = "") {
    TestClient client(port_);
    client.send(method + " " + target + " HTTP/1.1\r\nHost: x\r\n" + headers +
                "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    return client.answer(method == "HEAD");
  }
  static std::string upload_head(std::size_t size, const std::string& more = "") {
    return "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; "
           "boundary=B\r\n" +
           more + "Content-Length: " + std::to_string(size) + "\r\n\r\n";
  }
  Answer upload(const std::string& body) {
    TestClient client(port_);
    client.send(upload_head(body.size()) + body);
    return client.answer();
  }
  std::size_t left_in_tmp() {
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator(file_options_.folder + "/tmp")) {
      count += entry.exists() ? 1 : 0;
    }
    return count;
  }
  void wait_until(const std::string& what, const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "waited for " << what;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  Options options_;
  store::FilesOptions file_options_;
  SystemClock clock_;
  std::unique_ptr<Meter> meter_ = make_null_meter();
  ThreadExecutor disk_{1};
  FakeApi api_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<store::Files> files_;
  std::unique_ptr<batch::Runner> runner_;
  std::unique_ptr<Server> server_;
  std::uint16_t port_ = 0;
};

TEST_F(HttpFiles, AFileFromUploadToRemoval) {
  start();
  const Answer made = upload(form("{\"a\":1}\n"));
  ASSERT_EQ(made.status, 200) << made.body;
  const std::string id = member(made.body, "id");
  EXPECT_TRUE(id.starts_with("file-"));
  EXPECT_TRUE(contains(made.body, "\"bytes\":8,"));
  EXPECT_EQ(member(made.body, "filename"), "f.jsonl");
  EXPECT_EQ(member(made.body, "purpose"), "user_data");
  EXPECT_EQ(call("GET", "/v1/files/" + id).body, made.body);
  EXPECT_TRUE(contains(call("GET", "/v1/files").body, made.body));
  const Answer content = call("GET", "/v1/files/" + id + "/content");
  EXPECT_EQ(content.body, "{\"a\":1}\n");
  EXPECT_TRUE(content.is_whole);
  EXPECT_EQ(content.headers.at("content-type"), "application/octet-stream");
  EXPECT_EQ(content.headers.at("x-content-type-options"), "nosniff");
  EXPECT_EQ(call("HEAD", "/v1/files/" + id + "/content").status, 200);
  EXPECT_EQ(call("DELETE", "/v1/files/" + id).body,
            "{\"id\":\"" + id + "\",\"object\":\"file\",\"deleted\":true}");
  EXPECT_EQ(call("GET", "/v1/files/" + id).status, 404);
  EXPECT_EQ(call("GET", "/v1/files/" + id + "/content").status, 404);
  EXPECT_EQ(call("DELETE", "/v1/files/" + id).status, 404);
}

TEST_F(HttpFiles, SeveralUploadsOnOneConnectionAndPipelined) {
  start();
  TestClient client(port_);
  const std::string body = form("one");
  client.send(upload_head(body.size()) + body + upload_head(body.size()) + body);
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_EQ(client.answer().status, 200);
  client.get("/v1/files?limit=1");
  const Answer list = client.answer();
  EXPECT_TRUE(contains(list.body, "\"has_more\":true"));
}

TEST_F(HttpFiles, ALargeFileGoesThroughWhole) {
  start();
  std::string content;
  for (int i = 0; content.size() < (5 << 20); ++i) content += std::to_string(i) + "\r\n--";
  const Answer made = upload(form(content));
  ASSERT_EQ(made.status, 200) << made.body;
  const Answer got = call("GET", "/v1/files/" + member(made.body, "id") + "/content");
  EXPECT_TRUE(got.is_whole);
  EXPECT_TRUE(got.body == content);
}

TEST_F(HttpFiles, BodiesInChunksAndByteByByte) {
  start();
  const std::string body = form("chunked");
  TestClient client(port_);
  client.send(
      "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n"
      "Transfer-Encoding: chunked\r\n\r\n");
  for (const char c : body) client.send(std::string("1\r\n") + c + "\r\n");
  client.send("0\r\n\r\n");
  EXPECT_EQ(client.answer().status, 200);
  client.send(upload_head(body.size()));
  for (const char c : body) client.send(std::string(1, c));
  EXPECT_EQ(client.answer().status, 200);
}

TEST_F(HttpFiles, AClientThatAsksFirstIsToldToContinue) {
  start();
  const std::string body = form("x");
  TestClient client(port_);
  client.send(upload_head(body.size(), "Expect: 100-continue\r\n"));
  EXPECT_EQ(client.head().status, 100);
  client.send(body);
  EXPECT_EQ(client.answer().status, 200);
  // And isn't, when the answer is known already.
  TestClient refused(port_);
  refused.send(
      "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nExpect: "
      "100-continue\r\nContent-Length: 5\r\n\r\n");
  EXPECT_EQ(refused.head().status, 400);
}

TEST_F(HttpFiles, RefusesBadForms) {
  start();
  const auto param = [&](const std::string& body) {
    const Answer answer = upload(body);
    EXPECT_EQ(answer.status, 400) << answer.body;
    return member(answer.body, "param");
  };
  EXPECT_EQ(param(form("x", "")), "purpose");
  EXPECT_EQ(param(form("x", "nonsense")), "purpose");
  EXPECT_EQ(param("--B\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n--B--"),
            "file");
  EXPECT_EQ(param("garbage"), "");
  EXPECT_EQ(param(""), "");
  const auto expiry = [](const std::string& anchor, const std::string& seconds) {
    return form("x", "user_data",
                "--B\r\nContent-Disposition: form-data; name=\"expires_after[anchor]\"\r\n\r\n" +
                    anchor +
                    "\r\n--B\r\nContent-Disposition: form-data; "
                    "name=\"expires_after[seconds]\"\r\n\r\n" +
                    seconds + "\r\n");
  };
  EXPECT_EQ(param(expiry("now", "3600")), "expires_after[anchor]");
  EXPECT_EQ(param(expiry("created_at", "5")), "expires_after[seconds]");
  EXPECT_EQ(param(expiry("created_at", "x")), "expires_after[seconds]");
  const Answer good = upload(expiry("created_at", "3600"));
  EXPECT_EQ(good.status, 200);
  EXPECT_TRUE(contains(good.body, "\"expires_at\":"));
  EXPECT_EQ(call("POST", "/v1/files", "{}").status, 400);
  EXPECT_EQ(call("GET", "/v1/files?limit=0").status, 400);
  EXPECT_EQ(call("GET", "/v1/files?order=up").status, 400);
  EXPECT_EQ(call("GET", "/v1/files?after=file-x").status, 400);
  wait_until("the folder to be empty", [&] { return left_in_tmp() == 0; });
}

TEST_F(HttpFiles, RefusesWhatIsTooLarge) {
  options_.file_bytes_max = file_options_.file_bytes_max = 100'000;
  start();
  const Answer announced = upload(std::string(3 << 20, 'x'));  // by the header alone
  EXPECT_EQ(announced.status, 413);
  const Answer over = upload(form(std::string(200'000, 'x')));
  EXPECT_EQ(over.status, 413);
  EXPECT_TRUE(contains(over.body, "100000 bytes")) << over.body;
  EXPECT_EQ(upload(form(std::string(100'000, 'x'))).status, 200);
  // Other calls keep their own bound.
  EXPECT_EQ(call("POST", "/v1/chat/completions", std::string(5 << 20, ' ')).status, 413);
  wait_until("the folder to be empty", [&] { return left_in_tmp() == 0; });
}

TEST_F(HttpFiles, AClientThatLeavesInTheMiddleLeavesNothing) {
  start();
  const std::string body = form(std::string(1 << 20, 'x'));
  for (const bool hard : {false, true}) {
    TestClient client(port_);
    client.send(upload_head(body.size()) + body.substr(0, 600'000));
    wait_until("a file that is written", [&] { return left_in_tmp() == 1; });
    hard ? client.reset() : client.close();
    wait_until("the folder to be empty", [&] { return left_in_tmp() == 0; });
  }
  EXPECT_TRUE(contains(call("GET", "/v1/files").body, "\"data\":[]"));
}

TEST_F(HttpFiles, AClientThatStopsSendingIsTimedOut) {
  options_.body_timeout_ms = 50;
  start();
  TestClient client(port_);
  client.send(upload_head(1000) + "--B\r\n");
  EXPECT_EQ(client.answer().status, 408);
  EXPECT_TRUE(client.is_at_end());
}

TEST_F(HttpFiles, AServerThatEndsEndsUploads) {
  start();
  TestClient client(port_);
  client.send(upload_head(1000) + "--B\r\n");
  TestClient probe(port_);  // the upload is being handled once a later call is answered
  probe.get("/v1/files");
  EXPECT_EQ(probe.answer().status, 200);
  server_->stop(10);
  const Answer answer = client.answer();
  EXPECT_TRUE(answer.status == 503 || answer.status == 0) << answer.status;
}

TEST_F(HttpFiles, WithoutAStoreItSaysSo) {
  options_.listen.port = 0;
  server_ = std::make_unique<Server>(options_, api_, nullptr, nullptr, clock_, *meter_);
  port_ = server_->start().value();
  EXPECT_EQ(upload(form("x")).status, 503);
  EXPECT_EQ(call("GET", "/v1/batches").status, 503);
}

// ---- batches ------------------------------------------------------------------------------------

TEST_F(HttpFiles, ABatchFromItsFileToItsResults) {
  start();
  const std::string line =
      R"({"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"hi"}]}})";
  const std::string input = member(upload(form(line, "batch")).body, "id");
  const Answer made = call(
      "POST", "/v1/batches",
      R"({"input_file_id":")" + input +
          R"(","endpoint":"/v1/chat/completions","completion_window":"24h","metadata":{"k":"v"}})");
  ASSERT_EQ(made.status, 200) << made.body;
  const std::string id = member(made.body, "id");
  EXPECT_EQ(member(made.body, "status"), "validating");
  EXPECT_TRUE(contains(made.body, R"("metadata":{"k":"v"})"));
  const RequestId request = api_.wait_request();
  api_.push(request, {FakeApi::start()});
  api_.push(request, {FakeApi::delta("Hello")});
  api_.push(request, {FakeApi::stop()});
  api_.end(request, FakeApi::completed());
  std::string batch;
  wait_until("the batch to be complete", [&] {
    batch = call("GET", "/v1/batches/" + id).body;
    return member(batch, "status") == "completed";
  });
  EXPECT_TRUE(contains(batch, R"("request_counts":{"total":1,"completed":1,"failed":0})"));
  EXPECT_FALSE(contains(batch, "error_file_id"));
  const Answer output = call("GET", "/v1/files/" + member(batch, "output_file_id") + "/content");
  EXPECT_TRUE(contains(output.body, R"("custom_id":"a","response":{"status_code":200,)"));
  EXPECT_TRUE(contains(output.body, "Hello"));
  EXPECT_TRUE(contains(call("GET", "/v1/batches?limit=1").body, batch));
  EXPECT_EQ(call("POST", "/v1/batches/" + id + "/cancel").status, 400);
}

TEST_F(HttpFiles, AKeyMakesOneBatch) {
  start();
  const std::string input = member(upload(form("{}", "batch")).body, "id");
  const auto create = [&](const std::string& window, const std::string& space) {
    return call("POST", "/v1/batches",
                R"({"input_file_id":")" + input + R"(","endpoint":"/v1/embeddings",)" + space +
                    R"("completion_window":")" + window + R"("})",
                "Idempotency-Key: k\r\n");
  };
  const Answer first = create("24h", "");
  ASSERT_EQ(first.status, 200) << first.body;
  const Answer again = create("24h", " ");  // the same JSON
  ASSERT_EQ(again.status, 200) << again.body;
  EXPECT_EQ(member(again.body, "id"), member(first.body, "id"));
  const Answer other = create("24h", R"("metadata":{"a":"b"},)");
  EXPECT_EQ(other.status, 422);
  EXPECT_EQ(member(other.body, "param"), "Idempotency-Key");
}

TEST_F(HttpFiles, RefusesBadBatches) {
  start();
  EXPECT_EQ(call("POST", "/v1/batches", "").status, 400);
  EXPECT_EQ(call("POST", "/v1/batches", "{}").status, 400);
  const Answer unknown =
      call("POST", "/v1/batches",
           R"({"input_file_id":"file-x","endpoint":"/v1/embeddings","completion_window":"24h"})");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(member(unknown.body, "param"), "input_file_id");
  const Answer endpoint =
      call("POST", "/v1/batches",
           R"({"input_file_id":"file-x","endpoint":"/v1/audio","completion_window":"24h"})");
  EXPECT_EQ(endpoint.status, 400);
  EXPECT_EQ(member(endpoint.body, "param"), "endpoint");
  EXPECT_EQ(call("GET", "/v1/batches/batch_x").status, 404);
  EXPECT_EQ(call("POST", "/v1/batches/batch_x/cancel").status, 404);
  EXPECT_EQ(call("GET", "/v1/batches?limit=101").status, 400);
}

}  // namespace
}  // namespace waystation::front
