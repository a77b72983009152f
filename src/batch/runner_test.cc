#include "batch/runner.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <random>
#include <thread>

#include "base/thread_executor.h"
#include "batch/fake_broker.h"

namespace waystation::batch {
namespace {

using store::BatchRow;
using store::BatchStatus;
using store::Done;
using store::FileRow;

constexpr const char* kEndpoint = "/v1/chat/completions";

std::string line(const std::string& custom_id, const std::string& model = "m",
                 const std::string& more = "") {
  return "{\"custom_id\":\"" + custom_id + "\",\"method\":\"POST\",\"url\":\"" + kEndpoint +
         "\",\"body\":{\"model\":\"" + model +
         "\",\"messages\":[{\"role\":\"user\",\"content\":\"" + custom_id + "\"}]" + more + "}}\n";
}

std::string lines(int count) {
  std::string out;
  for (int i = 1; i <= count; ++i) out += line("id-" + std::to_string(i));
  return out;
}

class RunnerTest : public testing::Test {
 protected:
  RunnerTest() {
    char name[] = "/tmp/ws_runner_test.XXXXXX";
    folder_ = ::mkdtemp(name);
    options_.backoff_min_ms = 1;
    options_.backoff_max_ms = 5;
    options_.model_grace_ms = 0;
  }
  ~RunnerTest() override {
    close();
    std::filesystem::remove_all(folder_);
  }

  void open() {
    auto schema = store::files_schema();
    for (auto& step : store::batches_schema()) schema.push_back(std::move(step));
    for (auto& step : store::bound_keys_schema()) schema.push_back(std::move(step));
    auto database = store::Database::open({.path = folder_ + "/store.db"}, schema);
    ASSERT_TRUE(database) << database.error().message;
    database_ = std::move(*database);
    store::FilesOptions files;
    files.folder = folder_;
    files_ = std::make_unique<store::Files>(files, *database_, disk_, clock_);
    ASSERT_TRUE(files_->start());
    runner_ = std::make_unique<Runner>(options_, broker_, *database_, *files_, clock_, *meter_);
    ASSERT_TRUE(runner_->start());
  }
  void close() {
    if (!database_) return;
    runner_->stop();
    database_->stop();
    broker_.forget_readers();
    runner_.reset();
    files_.reset();
    database_.reset();
  }

  template <typename T>
  static Result<T> wait(const std::function<Status(Done<T>)>& call) {
    std::promise<Result<T>> promise;
    if (Status s = call([&promise](Result<T> r) { promise.set_value(std::move(r)); }); !s)
      return s.error();
    return promise.get_future().get();
  }
  FileRow upload(const std::string& body, const std::string& purpose = "batch") {
    auto upload = files_->begin_upload();
    EXPECT_TRUE(upload->write(body));
    EXPECT_TRUE(upload->finish());
    return wait<FileRow>([&](Done<FileRow> done) {
             return files_->add(upload, {"t", "in.jsonl", purpose, {}}, std::move(done));
           })
        .value();
  }
  Result<BatchRow> create(const std::string& input_file_id, const std::string& tenant = "t",
                          const std::string& endpoint = kEndpoint, const store::KeyUse& use = {}) {
    return wait<BatchRow>([&](Done<BatchRow> done) {
      return runner_->create(tenant, {input_file_id, endpoint, "24h", "", {}}, use,
                             std::move(done));
    });
  }
  std::string begin(const std::string& body) { return create(upload(body).id).value().id; }
  Result<BatchRow> find(const std::string& id, const std::string& tenant = "t") {
    return wait<BatchRow>(
        [&](Done<BatchRow> done) { return runner_->get(tenant, id, std::move(done)); });
  }
  Result<BatchRow> cancel(const std::string& id, const std::string& tenant = "t") {
    return wait<BatchRow>(
        [&](Done<BatchRow> done) { return runner_->cancel(tenant, id, std::move(done)); });
  }
  static void wait_until(const std::string& what, const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "waited for " << what;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  BatchRow wait_end(const std::string& id) {
    wait_until("the end of " + id, [&] { return store::is_ended(find(id)->status); });
    return find(id).value();
  }
  std::string content(const std::string& file_id) {
    if (file_id.empty()) return "";
    const auto file = wait<FileRow>(
        [&](Done<FileRow> done) { return files_->get("t", file_id, std::move(done)); });
    if (!file) return file.error().message;
    EXPECT_EQ(file->purpose, "batch_output");
    auto reader = files_->open(*file).value();
    std::string out;
    while (reader->read(out, 1 << 16).value()) {
    }
    return out;
  }
  // What of each line stands between two marks.
  static std::vector<std::string> between(const std::string& text, const std::string& before,
                                          const std::string& after) {
    std::vector<std::string> out;
    for (std::size_t at = 0; (at = text.find(before, at)) != std::string::npos;) {
      at += before.size();
      out.push_back(text.substr(at, text.find(after, at) - at));
    }
    return out;
  }
  static std::vector<std::string> custom_ids(const std::string& text) {
    return between(text, "\"custom_id\":\"", "\"");
  }

  std::string folder_;
  RunnerOptions options_;
  SystemClock clock_;
  ThreadExecutor disk_{1};
  std::unique_ptr<Meter> meter_ = make_null_meter();
  FakeBroker broker_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<store::Files> files_;
  std::unique_ptr<Runner> runner_;
};

TEST_F(RunnerTest, OneKeyIsOneBatch) {
  open();
  const std::string input = upload(lines(3)).id;
  const store::KeyUse use{"k", "a"};
  const auto first = create(input, "t", kEndpoint, use);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(create(input, "t", kEndpoint, use)->id, first->id);
  EXPECT_EQ(create(input, "t", kEndpoint, {"k", "b"}).error().code, Code::kIdempotencyMismatch);
  EXPECT_NE(create(input, "t", kEndpoint)->id, first->id);
  close();
  open();
  EXPECT_EQ(create(input, "t", kEndpoint, use)->id, first->id);
  // It runs once: three lines of it, three of the one without a key.
  wait_until("all lines", [&] { return broker_.accepted() == 6; });
  broker_.set_auto_answer(true);
  broker_.release(6);
  EXPECT_EQ(wait_end(first->id).completed, 3u);
  EXPECT_EQ(create(input, "t", kEndpoint, use)->status, BatchStatus::kCompleted);
  EXPECT_EQ(broker_.accepted(), 6u);
}

TEST_F(RunnerTest, AnswersEveryLineInOrder) {
  open();
  const auto input = upload(lines(300));
  const auto made = create(input.id);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(made->status, BatchStatus::kValidating);
  EXPECT_EQ(made->expires_ms - made->created_ms, 24LL * 3600 * 1000);
  const BatchRow row = wait_end(made->id);
  EXPECT_EQ(row.status, BatchStatus::kCompleted);
  EXPECT_EQ(row.total, 300u);
  EXPECT_EQ(row.completed, 300u);
  EXPECT_EQ(row.failed, 0u);
  EXPECT_EQ(row.model, "m");
  EXPECT_EQ(row.usage.input_tokens, 900u);
  EXPECT_EQ(row.usage.output_tokens, 600u);
  EXPECT_EQ(row.error_file_id, "");
  const std::string output = content(row.output_file_id);
  const auto ids = custom_ids(output);
  ASSERT_EQ(ids.size(), 300u);
  for (int i = 1; i <= 300; ++i) EXPECT_EQ(ids[i - 1], "id-" + std::to_string(i));
  EXPECT_EQ(between(output, "\"status_code\":", ",").size(), 300u);
  EXPECT_NE(output.find("0 1 "), std::string::npos);
  EXPECT_EQ(broker_.accepted(), 300u);
  for (const auto status :
       {BatchStatus::kInProgress, BatchStatus::kFinalizing, BatchStatus::kCompleted}) {
    EXPECT_GE(row.since(status), row.created_ms);
  }
}

TEST_F(RunnerTest, LinesAreDetachedRequestsOfLowPriorityWithKeysOfTheirOwn) {
  open();
  const std::string id = begin(lines(3));
  wait_end(id);
  std::set<std::string> keys;
  for (const auto& submission : broker_.accepted_submissions()) {
    EXPECT_TRUE(submission.detached);
    EXPECT_EQ(submission.envelope.priority(), -1);
    EXPECT_EQ(submission.envelope.tenant(), "t");
    EXPECT_GT(submission.envelope.expirytime_ms(), 0);
    keys.insert(submission.envelope.idempotencykey());
  }
  EXPECT_EQ(keys, (std::set<std::string>{"\x01"
                                         "batch/" +
                                             id + "/1",
                                         "\x01"
                                         "batch/" +
                                             id + "/2",
                                         "\x01"
                                         "batch/" +
                                             id + "/3"}));
}

TEST_F(RunnerTest, NeverMoreLinesInFlightThanTheWindow) {
  options_.window = 5;
  broker_.set_auto_answer(false);
  open();
  const std::string first = begin(lines(20));
  const std::string second = begin(lines(20));
  wait_until("a full window", [&] { return broker_.live() == 5; });
  std::size_t released = 0;
  wait_until("all answers", [&] {
    released += broker_.release(1);
    return released == 40;
  });
  EXPECT_EQ(wait_end(first).completed, 20u);
  EXPECT_EQ(wait_end(second).completed, 20u);
  EXPECT_EQ(broker_.live_most(), 5u);
}

TEST_F(RunnerTest, ProgressIsVisible) {
  broker_.set_auto_answer(false);
  open();
  const std::string id = begin(lines(10));
  wait_until("the lines to run", [&] { return broker_.live() == 10; });
  EXPECT_EQ(find(id)->status, BatchStatus::kInProgress);
  EXPECT_EQ(find(id)->total, 10u);
  broker_.release(4);
  wait_until("four outcomes", [&] { return find(id)->completed == 4; });
  EXPECT_EQ(find(id)->status, BatchStatus::kInProgress);
  broker_.release(10);
  EXPECT_EQ(wait_end(id).completed, 10u);
}

TEST_F(RunnerTest, LinesThatFailGoToTheErrorFile) {
  broker_.set_gate([](const broker::Submission& submission) -> std::optional<Error> {
    if (submission.envelope.model() == "m") return std::nullopt;
    return Error{Code::kModelNotFound, "there is no such model", "model"};
  });
  open();
  const std::string id =
      begin(line("good") + line("other-model", "x") + line("bad-body", "m", ",\"temperature\":9") +
            line("stream", "m", ",\"stream\":true") + line("good-too"));
  const BatchRow row = wait_end(id);
  EXPECT_EQ(row.status, BatchStatus::kCompleted);
  EXPECT_EQ(row.completed, 2u);
  EXPECT_EQ(row.failed, 3u);
  EXPECT_EQ(row.model, "");
  EXPECT_EQ(custom_ids(content(row.output_file_id)),
            (std::vector<std::string>{"good", "good-too"}));
  const std::string errors = content(row.error_file_id);
  EXPECT_EQ(custom_ids(errors), (std::vector<std::string>{"other-model", "bad-body", "stream"}));
  EXPECT_EQ(between(errors, "\"status_code\":", ","),
            (std::vector<std::string>{"404", "400", "400"}));
  EXPECT_EQ(between(errors, "\"param\":\"", "\""),
            (std::vector<std::string>{"model", "temperature", "stream"}));
}

TEST_F(RunnerTest, AnInvalidFileFailsWithItsLines) {
  open();
  const BatchRow row = wait_end(
      begin(line("a") + "nonsense\n\n" + line("a") + "{\"custom_id\":\"b\",\"method\":\"GET\"}\n"));
  EXPECT_EQ(row.status, BatchStatus::kFailed);
  EXPECT_GT(row.since(BatchStatus::kFailed), 0);
  EXPECT_EQ(between(row.errors, "\"line\":", "}"), (std::vector<std::string>{"2", "4", "5"}));
  EXPECT_EQ(
      between(row.errors, "\"code\":\"", "\""),
      (std::vector<std::string>{"invalid_json_line", "duplicate_custom_id", "invalid_method"}));
  EXPECT_EQ(broker_.submissions(), 0u);
  const BatchRow empty = wait_end(begin("\n \n"));
  EXPECT_EQ(empty.status, BatchStatus::kFailed);
  EXPECT_NE(empty.errors.find("empty_file"), std::string::npos);
}

TEST_F(RunnerTest, BoundsOfTheFile) {
  options_.lines_max = 3;
  options_.line_bytes_max = 400;
  open();
  EXPECT_EQ(wait_end(begin(lines(3))).status, BatchStatus::kCompleted);
  const BatchRow many = wait_end(begin(lines(4)));
  EXPECT_EQ(many.status, BatchStatus::kFailed);
  EXPECT_NE(many.errors.find("too_many_lines"), std::string::npos);
  const BatchRow large = wait_end(begin(line(std::string(500, 'x'))));
  EXPECT_NE(large.errors.find("line_too_large"), std::string::npos);
}

TEST_F(RunnerTest, RefusesWhatCannotBeABatch) {
  open();
  EXPECT_EQ(create("file-none").error().param, "input_file_id");
  EXPECT_EQ(create("file-none").error().code, Code::kNotFound);
  EXPECT_EQ(create(upload("x", "user_data").id).error().param, "input_file_id");
  const auto input = upload(lines(1));
  EXPECT_EQ(create(input.id, "other").error().code, Code::kNotFound);
  EXPECT_EQ(create(input.id, "t", "/v1/nothing").error().param, "endpoint");
}

TEST_F(RunnerTest, TenantsDoNotSeeEachOther) {
  open();
  const std::string id = begin(lines(1));
  EXPECT_EQ(find(id, "other").error().code, Code::kNotFound);
  EXPECT_EQ(cancel(id, "other").error().code, Code::kNotFound);
  EXPECT_EQ(wait_end(id).status, BatchStatus::kCompleted);
}

TEST_F(RunnerTest, RefusalsThatPassAreWaitedOut) {
  std::atomic<int> refusals = 0;
  broker_.set_gate([&](const broker::Submission&) -> std::optional<Error> {
    if (++refusals % 3 == 0) return std::nullopt;
    return Error{refusals % 2 == 0 ? Code::kQueueFull : Code::kUnavailable, "later", "", 1};
  });
  open();
  const BatchRow row = wait_end(begin(lines(50)));
  EXPECT_EQ(row.status, BatchStatus::kCompleted);
  EXPECT_EQ(row.completed, 50u);
  EXPECT_EQ(broker_.accepted(), 50u);
}

TEST_F(RunnerTest, AModelThatJoinsLateIsWaitedFor) {
  options_.model_grace_ms = 60'000;
  std::atomic<bool> is_there = false;
  std::atomic<int> refused = 0;
  broker_.set_gate([&](const broker::Submission&) -> std::optional<Error> {
    if (is_there) return std::nullopt;
    ++refused;
    return Error{Code::kModelNotFound, "not yet", "model"};
  });
  open();
  const std::string id = begin(lines(5));
  wait_until("refusals", [&] { return refused > 10; });
  EXPECT_EQ(find(id)->failed, 0u);
  is_there = true;
  EXPECT_EQ(wait_end(id).completed, 5u);
}

TEST_F(RunnerTest, ABatchThatWaitsDoesNotHoldUpAnother) {
  options_.window = 4;
  broker_.set_gate([](const broker::Submission& submission) -> std::optional<Error> {
    if (submission.envelope.model() == "m") return std::nullopt;
    return Error{Code::kUnavailable, "not now"};
  });
  open();
  std::string stuck;
  for (int i = 0; i < 20; ++i) stuck += line("s" + std::to_string(i), "x");
  const std::string first = begin(stuck);
  EXPECT_EQ(wait_end(begin(lines(20))).completed, 20u);
  EXPECT_EQ(find(first)->status, BatchStatus::kInProgress);
}

TEST_F(RunnerTest, CancelCallsBackWhatRunsAndKeepsWhatIsDone) {
  options_.window = 10;
  broker_.set_auto_answer(false);
  open();
  const std::string id = begin(lines(30));
  wait_until("the window", [&] { return broker_.live() == 10; });
  broker_.release(4);
  wait_until("four outcomes", [&] { return find(id)->completed == 4; });
  wait_until("the window", [&] { return broker_.live() == 10; });
  const auto cancelling = cancel(id);
  ASSERT_TRUE(cancelling);
  EXPECT_EQ(cancelling->status, BatchStatus::kCancelling);
  const BatchRow row = wait_end(id);
  EXPECT_EQ(row.status, BatchStatus::kCancelled);
  EXPECT_GT(row.since(BatchStatus::kCancelling), 0);
  EXPECT_EQ(broker_.cancelled().size(), 10u);
  EXPECT_EQ(row.completed, 4u);
  EXPECT_EQ(row.failed, 26u);
  EXPECT_EQ(custom_ids(content(row.output_file_id)).size(), 4u);
  EXPECT_EQ(between(content(row.error_file_id), "\"code\":\"", "\""),
            std::vector<std::string>(26, "batch_cancelled"));
  EXPECT_EQ(cancel(id)->status, BatchStatus::kCancelled);  // again
}

TEST_F(RunnerTest, AnEndedBatchCannotBeCancelled) {
  open();
  const std::string id = begin(lines(1));
  wait_end(id);
  const auto refused = cancel(id);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
}

TEST_F(RunnerTest, ABatchOutOfTimeExpires) {
  options_.completion_ms = 300;
  options_.window = 5;
  broker_.set_auto_answer(false);
  open();
  const std::string id = begin(lines(12));
  wait_until("the window", [&] { return broker_.live() == 5; });
  broker_.release(2);
  const BatchRow row = wait_end(id);
  EXPECT_EQ(row.status, BatchStatus::kExpired);
  EXPECT_GT(row.since(BatchStatus::kExpired), 0);
  EXPECT_EQ(row.completed, 2u);
  EXPECT_EQ(row.failed, 10u);
  EXPECT_EQ(between(content(row.error_file_id), "\"code\":\"", "\""),
            std::vector<std::string>(10, "batch_expired"));
}

TEST_F(RunnerTest, AReaderThatIsLetGoJoinsAgain) {
  broker_.set_deltas(500);
  open();
  const BatchRow row = wait_end(begin(lines(3)));
  EXPECT_EQ(row.completed, 3u);
  EXPECT_GT(broker_.attaches(), 0u);
  std::string answer;
  for (int i = 0; i < 500; ++i) answer += std::to_string(i) + " ";
  EXPECT_EQ(between(content(row.output_file_id), "\"content\":\"", "\""),
            std::vector<std::string>(3, answer));
}

TEST_F(RunnerTest, InterruptedLinesAreJoinedAgain) {
  broker_.set_auto_answer(false);
  open();
  const std::string id = begin(lines(8));
  wait_until("the lines to run", [&] { return broker_.live() == 8; });
  broker_.interrupt();
  wait_until("the lines to be joined", [&] { return broker_.attaches() >= 8; });
  broker_.release(8);
  EXPECT_EQ(wait_end(id).completed, 8u);
  EXPECT_EQ(broker_.accepted(), 8u);
}

TEST_F(RunnerTest, OverManyRestartsEveryLineIsAnsweredOnce) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  broker_.set_auto_answer(false);
  open();
  const std::string id = begin(lines(200));
  for (int restart = 0; restart < 15; ++restart) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(random() % 20);
    while (std::chrono::steady_clock::now() < end) broker_.release(random() % 3);
    close();
    broker_.release(random() % 20);  // what ends while nobody looks
    open();
  }
  broker_.set_auto_answer(true);
  std::thread rest([&] {
    while (!store::is_ended(find(id)->status)) broker_.release(10);
  });
  const BatchRow row = wait_end(id);
  rest.join();
  EXPECT_EQ(row.status, BatchStatus::kCompleted);
  EXPECT_EQ(row.completed, 200u);
  EXPECT_EQ(broker_.accepted(), 200u);  // no line was repeated
  const auto ids = custom_ids(content(row.output_file_id));
  ASSERT_EQ(ids.size(), 200u);
  for (int i = 1; i <= 200; ++i) EXPECT_EQ(ids[i - 1], "id-" + std::to_string(i));
}

TEST_F(RunnerTest, ACancelledBatchIsCancelledAfterARestartToo) {
  options_.window = 5;
  broker_.set_auto_answer(false);
  open();
  const std::string id = begin(lines(10));
  wait_until("the window", [&] { return broker_.live() == 5; });
  // The notes of what was accepted are in the database once a later work is.
  wait_until("the notes", [&] {
    return database_
               ->call<std::vector<store::LineResult>>(
                   [&](store::Sql& sql) { return store::batch_lines(sql, id); })
               ->size() == 5;
  });
  runner_->stop();
  ASSERT_TRUE(cancel(id));
  close();
  open();
  const BatchRow row = wait_end(id);
  EXPECT_EQ(row.status, BatchStatus::kCancelled);
  EXPECT_EQ(broker_.cancelled().size(), 5u);
}

TEST_F(RunnerTest, TheInputMayBeDeletedWhileItRuns) {
  broker_.set_auto_answer(false);
  options_.window = 2;
  open();
  const auto input = upload(lines(10));
  const std::string id = create(input.id)->id;
  wait_until("the window", [&] { return broker_.live() == 2; });
  ASSERT_TRUE(wait<FileRow>(
      [&](Done<FileRow> done) { return files_->remove("t", input.id, std::move(done)); }));
  close();
  broker_.set_auto_answer(true);
  broker_.release(2);
  open();
  EXPECT_EQ(wait_end(id).completed, 10u);
  wait_until("the content to go", [&] { return !files_->open(input.hash); });
}

TEST_F(RunnerTest, MoreBatchesThanAreActiveAtOnce) {
  options_.active_max = 2;
  open();
  std::vector<std::string> ids;
  for (int i = 0; i < 7; ++i) ids.push_back(begin(lines(5 + i)));
  for (int i = 0; i < 7; ++i) EXPECT_EQ(wait_end(ids[i]).completed, 5u + i);
}

}  // namespace
}  // namespace waystation::batch
