#include "worker/worker.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <future>
#include <thread>

#include "engine/scripted/scripted_engine.h"
#include "link/memory_transport.h"
#include "worker/signals.h"
#include "worker/test_server.h"

namespace waystation::worker {
namespace {

constexpr link::ServerSessionConfig kFast{.join_token = "", .heartbeat_ms = 20, .lease_ms = 2000};

std::unique_ptr<engine::Engine> scripted(std::uint32_t tokens, std::uint32_t interval_ms,
                                         std::uint32_t slots = 8) {
  static const SystemClock clock;
  engine::ScriptedOptions options;
  options.tokens = tokens;
  options.interval_ms = interval_ms;
  options.slots = slots;
  return engine::make_scripted_engine(options, clock);
}

// A worker on a thread of its own, over a memory link to a TestServer.
class Rig {
 public:
  explicit Rig(std::unique_ptr<engine::Engine> engine, link::ServerSessionConfig config = kFast,
               bool silent = false, bool exit_on_loss = false, TimeMs grace_ms = 1,
               link::Peer peer = {"unix:", true})
      : engine_(std::move(engine)), server(link, std::move(config), 1, silent) {
    link.serve(server);
    WorkerOptions options;
    options.name = "w";
    options.connect = [this, peer](link::WorkerEvents& events)
        -> Result<std::unique_ptr<link::WorkerTransport>> { return link.connect(peer, events); };
    options.exit_on_loss = exit_on_loss;
    options.grace_ms = grace_ms;
    options.welcome_ms = 60'000;  // longer than any test waits: what counts is the server's lease
    options.backoff_min_ms = 1;
    options.backoff_max_ms = 4;
    worker_.emplace(std::move(options), *engine_);
  }
  ~Rig() {
    worker_->leave("end of test");
    if (thread_.joinable()) thread_.join();
    link.stop();
  }

  void start() {
    thread_ = std::thread([this] { ended_.set_value(worker_->run()); });
  }
  Status wait_for_end() {
    auto future = ended_.get_future();
    if (future.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
      return Error{Code::kTimeout, "the worker didn't end"};
    }
    return future.get();
  }
  Worker& worker() { return *worker_; }

 private:
  std::unique_ptr<engine::Engine> engine_;
  std::optional<Worker> worker_;
  std::promise<Status> ended_;
  std::thread thread_;

 public:
  link::MemoryLink link{link::MemoryLink::Delivery::kThreaded};
  TestServer server;
};

TEST(WorkerTest, ServesSeveralRequestsTogether) {
  Rig rig(scripted(10, 2));
  rig.start();
  for (int request = 1; request <= 20; ++request) ASSERT_TRUE(rig.server.assign(request));
  for (int request = 1; request <= 20; ++request) {
    ASSERT_TRUE(rig.server.wait_for_end(request));
    EXPECT_EQ(rig.server.answer(request).text, scripted_text(10));
    EXPECT_EQ(rig.server.answer(request).finish, "stop");
  }
  EXPECT_LT(rig.server.steps, 200);  // several requests in one message
  EXPECT_EQ(rig.server.broken, "");
}

TEST(WorkerTest, CancelGivesTheCreditBack) {
  Rig rig(scripted(1'000'000, 1, 1));
  rig.start();
  ASSERT_TRUE(rig.server.assign(1));
  ASSERT_TRUE(rig.server.wait([&] { return rig.server.answers[{1, 1}].ids.size() > 3; }));
  rig.server.cancel(1);
  ASSERT_TRUE(rig.server.wait_for_end(1));
  EXPECT_TRUE(rig.server.answer(1).dropped);
  EXPECT_TRUE(rig.server.assign(2));  // its only slot
}

TEST(WorkerTest, ALostSessionDropsItsWorkAndTheNextGoesOn) {
  Rig rig(scripted(200, 1, 1));
  rig.start();
  ASSERT_TRUE(rig.server.assign(1));
  std::string text;
  for (std::uint32_t attempt = 1; attempt <= 3; ++attempt) {
    ASSERT_TRUE(rig.server.wait([&] { return rig.server.answers[{1, attempt}].ids.size() > 5; }));
    rig.link.cut_all();
    ASSERT_TRUE(rig.server.wait(
        [&] { return rig.server.connections == static_cast<int>(attempt) + 1; }));
    Answer so_far = rig.server.answer(1, attempt);
    so_far.text = text += so_far.text;
    so_far.ids.resize(0);
    for (std::uint32_t i = 0; scripted_text(static_cast<int>(i)).size() < text.size(); ++i) {
      so_far.ids.push_back(i);
    }
    // The only slot is free again: the old attempt is not running any more.
    ASSERT_TRUE(rig.server.assign(1, attempt + 1, &so_far));
  }
  ASSERT_TRUE(rig.server.wait_for_end(1, 4));
  EXPECT_EQ(text + rig.server.answer(1, 4).text, scripted_text(200));
  EXPECT_EQ(rig.server.fenced, 0u);
  EXPECT_EQ(rig.server.broken, "");
}

TEST(WorkerTest, ALocalWorkerEndsWithItsSession) {
  Rig rig(scripted(1'000'000, 1), kFast, false, /*exit_on_loss=*/true);
  rig.start();
  ASSERT_TRUE(rig.server.assign(1));
  ASSERT_TRUE(rig.server.wait([&] { return rig.server.answers[{1, 1}].ids.size() > 3; }));
  rig.link.cut_all();
  const Status ended = rig.wait_for_end();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, Code::kUnavailable);
}

TEST(WorkerTest, ASilentServerIsLost) {
  Rig rig(scripted(1, 0), {.join_token = "", .heartbeat_ms = 20, .lease_ms = 100},
          /*silent=*/true, /*exit_on_loss=*/true);
  rig.start();
  const Status ended = rig.wait_for_end();
  ASSERT_FALSE(ended);
  EXPECT_NE(ended.error().message.find("silent"), std::string::npos) << ended.error().message;
}

// An engine whose step lasts until it is let go.
class SlowEngine final : public engine::Engine {
 public:
  SlowEngine() : models_(1) { models_[0].set_id("slow"); }
  const std::vector<v1::ModelInfo>& models() const override { return models_; }
  std::uint32_t slots() const override { return 1; }
  void start(v1::Assign assign) override { fence_ = assign.fence(); }
  void cancel(const v1::Fence&) override {}
  bool idle() const override { return !fence_.has_value(); }
  std::int64_t wait_us() const override { return 0; }
  void step(v1::Step& out) override {
    go.get_future().wait();
    v1::Output& output = *out.add_outputs();
    *output.mutable_fence() = *fence_;
    output.set_started(true);
    output.set_finish_reason("stop");
    fence_.reset();
  }
  std::promise<void> go;

 private:
  std::vector<v1::ModelInfo> models_;
  std::optional<v1::Fence> fence_;
};

TEST(WorkerTest, ALongStepDoesntLoseTheLease) {
  auto engine = std::make_unique<SlowEngine>();
  SlowEngine& slow = *engine;
  Rig rig(std::move(engine));
  rig.start();
  ASSERT_TRUE(rig.server.assign(1));
  ASSERT_TRUE(rig.server.wait([&] { return rig.server.heartbeats > 5; }));
  slow.go.set_value();
  EXPECT_TRUE(rig.server.wait_for_end(1));
}

TEST(WorkerTest, LeavesWhenWhatItHasIsDone) {
  Rig rig(scripted(50, 2), kFast, false, false, /*grace_ms=*/20'000);
  rig.start();
  ASSERT_TRUE(rig.server.assign(1));
  ASSERT_TRUE(rig.server.wait([&] { return !rig.server.answers[{1, 1}].ids.empty(); }));
  rig.worker().leave("test");
  EXPECT_TRUE(rig.wait_for_end());
  EXPECT_TRUE(rig.server.wait([&] { return rig.server.disconnections == 1; }));
  EXPECT_EQ(rig.server.answer(1).text, scripted_text(50));
}

TEST(WorkerTest, GivesBackWhatTheGraceTimeDoesntFinish) {
  Rig rig(scripted(1'000'000, 1), kFast, false, false, /*grace_ms=*/1);
  rig.start();
  ASSERT_TRUE(rig.server.assign(1));
  ASSERT_TRUE(rig.server.wait([&] { return !rig.server.answers[{1, 1}].ids.empty(); }));
  rig.worker().leave("test");
  EXPECT_TRUE(rig.wait_for_end());
  EXPECT_TRUE(rig.server.wait_for_end(1));
  EXPECT_TRUE(rig.server.answer(1).dropped);
}

TEST(WorkerTest, TheServerMayDrainIt) {
  Rig rig(scripted(20, 2), kFast, false, false, /*grace_ms=*/20'000);
  rig.start();
  ASSERT_TRUE(rig.server.assign(1));
  rig.server.drain();
  EXPECT_TRUE(rig.wait_for_end());
  EXPECT_TRUE(rig.server.wait_for_end(1));
  EXPECT_EQ(rig.server.answer(1).text, scripted_text(20));
}

TEST(WorkerTest, LeavesWhileItHasNoSession) {
  Rig rig(scripted(1, 0));
  rig.server.refuse_with = Error{Code::kUnavailable, "not now"};
  rig.start();
  ASSERT_TRUE(rig.server.wait([&] { return rig.server.connections >= 3; }));  // tries again
  rig.worker().leave("test");
  EXPECT_TRUE(rig.wait_for_end());
}

TEST(WorkerTest, ARefusalForGoodEndsIt) {
  Rig rig(scripted(1, 0), kFast, false, false, 1, link::Peer{"ipv4:10.0.0.7:1", false});
  rig.start();
  const Status ended = rig.wait_for_end();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, Code::kUnauthenticated);
  EXPECT_EQ(rig.server.connections, 1);
}

TEST(SignalWatchTest, TheFirstAsksTheSecondEnds) {
  std::promise<int> seen;
  {
    SignalWatch watch([&](int signal) { seen.set_value(signal); });
    ::raise(SIGTERM);
    EXPECT_EQ(seen.get_future().get(), SIGTERM);
  }
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        SignalWatch watch([](int) {});
        ::raise(SIGTERM);
        ::raise(SIGINT);
      },
      testing::ExitedWithCode(128 + SIGINT), "");
}

TEST(DieWithParentTest, RefusesAnotherParent) {
  const Status tied = die_with_parent(::getpid());  // never our own parent
  ASSERT_FALSE(tied);
  EXPECT_EQ(tied.error().code, Code::kUnavailable);
}

// A process starts a worker and dies; the pipe that both hold closes once the worker is dead too.
TEST(DieWithParentTest, TheKernelKillsTheOrphan) {
  int alive[2];
  int tied[2];
  ASSERT_EQ(::pipe(alive), 0);
  ASSERT_EQ(::pipe(tied), 0);
  const pid_t middle = ::fork();
  if (middle == 0) {
    const pid_t self = ::getpid();
    if (::fork() == 0) {
      ::close(alive[0]);
      if (!die_with_parent(self)) ::_exit(1);
      if (::write(tied[1], "x", 1) != 1) ::_exit(1);
      while (true) ::pause();
    }
    char byte = 0;
    ::_exit(::read(tied[0], &byte, 1) == 1 ? 0 : 1);  // the worker is tied; now die
  }
  ::close(alive[1]);
  int status = 1;
  ASSERT_EQ(::waitpid(middle, &status, 0), middle);
  EXPECT_EQ(status, 0);
  pollfd closed{alive[0], POLLIN, 0};
  ASSERT_EQ(::poll(&closed, 1, 20'000), 1);
  char byte = 0;
  EXPECT_EQ(::read(alive[0], &byte, 1), 0);
  for (const int fd : {alive[0], tied[0], tied[1]}) ::close(fd);
}

}  // namespace
}  // namespace waystation::worker
