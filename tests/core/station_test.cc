// The whole core with its real threads: a broker on its loop, a journal on disk, real workers with
// the scripted engine over an in-memory link that breaks at random, and clients that read along.
// What gRPC and HTTP would carry is all that is missing; ThreadSanitizer sees the rest.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <mutex>
#include <random>
#include <thread>

#include "base/thread_executor.h"
#include "broker/broker.h"
#include "engine/scripted/scripted_engine.h"
#include "journal/file_journal.h"
#include "journal/posix_file_system.h"
#include "link/memory_transport.h"
#include "worker/worker.h"

namespace waystation {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kTokens = 20;

std::string whole_answer() {
  std::string text;
  for (std::uint32_t i = 0; i < kTokens; ++i) text += "tok" + std::to_string(i) + " ";
  return text;
}

// Collects a stream; another thread waits for its end.
class Client final : public stream::Reader {
 public:
  bool on_block(stream::BlockPtr block) override {
    std::lock_guard lock(mutex_);
    contiguous_ = contiguous_ && block->first == next_;
    for (const v1::Event& event : block->events) text_ += event.text();
    next_ = block->end();
    return true;
  }
  void on_end(const stream::Ending& ending) override { over(ending.state); }
  void on_interrupted(const Error&) override { over(v1::REQUEST_STATE_UNSPECIFIED); }

  std::future<v1::RequestState> ended() { return ended_.get_future(); }
  std::string text() const {
    std::lock_guard lock(mutex_);
    return text_;
  }
  bool contiguous() const {
    std::lock_guard lock(mutex_);
    return contiguous_;
  }

 private:
  void over(v1::RequestState state) { ended_.set_value(state); }

  mutable std::mutex mutex_;
  std::string text_;
  Sequence next_ = 0;
  bool contiguous_ = true;
  std::promise<v1::RequestState> ended_;
};

// A worker on its own thread, for as long as the station stands.
class LiveWorker {
 public:
  LiveWorker(link::MemoryLink& link, int index)
      : engine_(engine::make_scripted_engine(
            *engine::parse_scripted_options("interval-ms=1,slots=8,tokens=" + std::to_string(kTokens)),
            clock_)),
        worker_(options(link, index), *engine_),
        thread_([this] { EXPECT_TRUE(worker_.run()); }) {}
  ~LiveWorker() {
    worker_.leave("the test ends");
    thread_.join();
  }

 private:
  static worker::WorkerOptions options(link::MemoryLink& link, int index) {
    worker::WorkerOptions options;
    options.name = "worker-" + std::to_string(index);
    options.handle_signals = false;
    options.backoff_min_ms = 1;
    options.backoff_max_ms = 20;
    options.connect = [&link](link::WorkerEvents& events)
        -> Result<std::unique_ptr<link::WorkerTransport>> {
      return link.connect(link::Peer{"unix:", true}, events);
    };
    return options;
  }

  SystemClock clock_;
  std::unique_ptr<engine::Engine> engine_;
  worker::Worker worker_;
  std::thread thread_;
};

// One life of a server on a folder.
class Station {
 public:
  explicit Station(const std::string& dir)
      : background_(2),
        broker_(config(), {clock_, background_, *meter_, [this] { return random_(); }}),
        link_(link::MemoryLink::Delivery::kThreaded) {
    journal::FileJournal::Options options;
    options.dir = dir;
    options.segment_bytes_max = 64 << 10;  // rolls and checkpoints often
    options.callbacks = broker_.journal_callbacks();
    options.file_system = &files_;
    options.meter = meter_.get();
    auto journal = journal::FileJournal::open(std::move(options));
    EXPECT_TRUE(journal) << journal.error().message;
    journal_ = std::move(*journal);
    link_.serve(broker_);
    EXPECT_TRUE(broker_.start(*journal_, link_));
    loop_ = std::thread([this] {
      while (broker_.turn(5ms)) {
      }
    });
    for (int i = 0; i < 3; ++i) workers_.push_back(std::make_unique<LiveWorker>(link_, i));
  }
  ~Station() {
    workers_.clear();
    broker_.stop();
    loop_.join();
    background_.stop();
  }

  broker::Broker& broker() { return broker_; }
  link::MemoryLink& link() { return link_; }

 private:
  static broker::Config config() {
    broker::Config config;
    config.expected_models = {"scripted"};
    config.callers_help = true;
    config.limits.attempts_max = 1000;  // broken links are not the requests' fault
    return config;
  }

  SystemClock clock_;
  std::unique_ptr<Meter> meter_ = make_null_meter();
  std::mt19937_64 random_{std::random_device{}()};
  journal::PosixFileSystem files_;
  ThreadExecutor background_;
  broker::Broker broker_;
  std::unique_ptr<journal::FileJournal> journal_;
  link::MemoryLink link_;
  std::thread loop_;
  std::vector<std::unique_ptr<LiveWorker>> workers_;
};

class StationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = std::filesystem::temp_directory_path() / "station-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  static Result<broker::Submitted> submit(Station& station, const std::string& conversation,
                                          const std::string& key, std::shared_ptr<Client> client) {
    broker::Submission submission;
    submission.envelope.set_tenant("default");
    submission.envelope.set_model("scripted");
    submission.envelope.set_partitionkey(conversation);
    submission.envelope.set_idempotencykey(key);
    submission.envelope.set_data(R"({"model":"scripted","messages":[{"role":"user","content":"hi"}]})");
    submission.detached = true;
    submission.reader = std::move(client);
    std::promise<Result<broker::Submitted>> answer;
    station.broker().gather();
    const Status taken = station.broker().submit(
        std::move(submission), [&](Result<broker::Submitted> got) { answer.set_value(std::move(got)); });
    station.broker().help();
    EXPECT_TRUE(taken);
    return answer.get_future().get();
  }

  std::string dir_;
};

TEST_F(StationTest, ManyClientsWorkersThatBreakAndEveryAnswerIsWhole) {
  Station station(dir_);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::shared_ptr<Client>> clients;
      for (int i = 0; i < 25; ++i) {
        clients.push_back(std::make_shared<Client>());
        EXPECT_TRUE(submit(station, "talk-" + std::to_string((t * 25 + i) % 10), "", clients.back()));
      }
      for (auto& client : clients) {
        EXPECT_EQ(client->ended().get(), v1::REQUEST_STATE_COMPLETED);
        EXPECT_EQ(client->text(), whole_answer());
        EXPECT_TRUE(client->contiguous());
      }
    });
  }
  // Cut as often as answers allow, until all clients are done.
  std::promise<void> done;
  std::thread cutter([&, waiting = done.get_future()]() mutable {
    while (waiting.wait_for(40ms) == std::future_status::timeout) station.link().cut_all();
  });
  for (std::thread& thread : threads) thread.join();
  done.set_value();
  cutter.join();
}

TEST_F(StationTest, ARestartInTheMiddleLosesNothing) {
  std::vector<RequestId> ids;
  {
    Station station(dir_);
    for (int i = 0; i < 50; ++i) {
      const auto submitted = submit(station, "talk-" + std::to_string(i % 10),
                                    "key-" + std::to_string(i), std::make_shared<Client>());
      ASSERT_TRUE(submitted);
      ids.push_back(submitted->id);
    }
  }  // the server ends with most of them under way
  Station station(dir_);
  for (int i = 0; i < 50; ++i) {
    const auto again = submit(station, "talk-" + std::to_string(i % 10), "key-" + std::to_string(i),
                              nullptr);
    ASSERT_TRUE(again);
    EXPECT_TRUE(again->duplicate);
    EXPECT_EQ(again->id, ids[static_cast<std::size_t>(i)]);
    auto client = std::make_shared<Client>();
    ASSERT_TRUE(station.broker().attach("default", again->id, 0, client, [](auto) {}));
    EXPECT_EQ(client->ended().get(), v1::REQUEST_STATE_COMPLETED);
    EXPECT_EQ(client->text(), whole_answer());
    EXPECT_TRUE(client->contiguous());
  }
}

}  // namespace
}  // namespace waystation
