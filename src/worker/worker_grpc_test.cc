// The whole of link and worker over real sockets: in one process, and with real worker processes
// under the supervisor.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "engine/scripted/scripted_engine.h"
#include "link/grpc/grpc_client.h"
#include "link/grpc/grpc_server.h"
#include "worker/supervisor.h"
#include "worker/test_server.h"
#include "worker/worker.h"

namespace waystation::worker {
namespace {

constexpr link::ServerSessionConfig kFast{.join_token = "", .heartbeat_ms = 50, .lease_ms = 5000};

struct TempDir {
  TempDir() {
    char pattern[] = "/tmp/ws-worker-XXXXXX";
    path = ::mkdtemp(pattern);
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  std::string socket() const { return "unix:" + path + "/link.sock"; }
  std::string path;
};

// A server with its transport, in the order that they must be made and unmade.
struct Station {
  explicit Station(const std::string& address, std::uint64_t epoch = 1)
      : link({.addresses = {address}}), server(link, kFast, epoch) {
    const Status started = link.start(server);
    EXPECT_TRUE(started) << started.error().message;
  }
  ~Station() { link.stop(); }
  link::GrpcLinkServer link;
  TestServer server;
};

TEST(WorkerOverGrpcTest, GoesOnWithTheNextServer) {
  TempDir dir;
  auto first = std::make_unique<Station>(dir.socket(), 1);
  const SystemClock clock;
  engine::ScriptedOptions scripted;
  scripted.tokens = 100;
  scripted.interval_ms = 1;
  const auto engine = engine::make_scripted_engine(scripted, clock);
  WorkerOptions options;
  options.name = "w";
  options.backoff_min_ms = 1;
  options.backoff_max_ms = 10;
  options.connect = [&](link::WorkerEvents& events) {
    return link::connect_grpc({.address = dir.socket(), .connect_timeout_ms = 500}, events);
  };
  Worker worker(options, *engine);
  std::thread thread([&] { EXPECT_TRUE(worker.run()); });

  for (int request = 1; request <= 50; ++request) ASSERT_TRUE(first->server.assign(request));
  for (int request = 1; request <= 50; ++request) {
    ASSERT_TRUE(first->server.wait_for_end(request));
    EXPECT_EQ(first->server.answer(request).text, scripted_text(100));
  }
  ASSERT_TRUE(first->server.assign(51));
  ASSERT_TRUE(first->server.wait([&] { return first->server.answers[{51, 1}].ids.size() > 10; }));
  first->link.stop();  // in mid-answer
  const Answer so_far = first->server.answer(51);
  first.reset();

  Station second(dir.socket(), 2);
  ASSERT_TRUE(second.server.assign(51, 2, &so_far));
  ASSERT_TRUE(second.server.wait_for_end(51, 2));
  EXPECT_EQ(so_far.text + second.server.answer(51, 2).text, scripted_text(100));
  EXPECT_EQ(second.server.fenced, 0u);
  worker.leave("end of test");
  thread.join();
}

SupervisorOptions worker_process(const std::string& address, const std::string& scripted) {
  SupervisorOptions options;
  options.backoff_min_ms = 1;
  options.command = [=](int) {
    return std::vector<std::string>{WORKER_TEST_PROGRAM, address, scripted,
                                    std::to_string(::getpid())};
  };
  return options;
}

TEST(WorkerOverGrpcTest, AKilledWorkerProcessIsReplacedInMidAnswer) {
  TempDir dir;
  Station station(dir.socket());
  const auto meter = make_null_meter();
  auto supervisor = Supervisor::start(
      worker_process(dir.socket(), "tokens=200,interval-ms=2,slots=4"), *meter);
  ASSERT_TRUE(supervisor) << supervisor.error().message;

  ASSERT_TRUE(station.server.assign(1));
  pid_t pid = 0;
  ASSERT_TRUE(station.server.wait([&] {
    if (station.server.session() == nullptr) return false;
    pid = static_cast<pid_t>(station.server.session()->hello().pid());
    return station.server.answers[{1, 1}].ids.size() > 10;
  }));
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  ASSERT_TRUE(station.server.wait([&] { return station.server.disconnections == 1; }));
  const Answer so_far = station.server.answer(1);
  EXPECT_FALSE(so_far.ended());

  ASSERT_TRUE(station.server.assign(1, 2, &so_far));
  ASSERT_TRUE(station.server.wait_for_end(1, 2));
  EXPECT_EQ(so_far.text + station.server.answer(1, 2).text, scripted_text(200));

  // SIGTERM: what is running is finished first.
  ASSERT_TRUE(station.server.assign(2));
  ASSERT_TRUE(station.server.wait([&] { return !station.server.answers[{2, 1}].ids.empty(); }));
  (*supervisor)->stop(20'000);
  EXPECT_TRUE(station.server.wait_for_end(2));
  EXPECT_EQ(station.server.answer(2).finish, "stop");
}

TEST(WorkerOverGrpcTest, AWorkerThatWasNotStartedByItsServerEnds) {
  TempDir dir;
  Station station(dir.socket());
  SupervisorOptions options = worker_process(dir.socket(), "");
  const auto command = options.command;
  std::mutex mutex;
  std::condition_variable changed;
  int starts = 0;
  options.command = [&, command](int index) {
    std::vector<std::string> words = command(index);
    words[3] = "1";  // another parent
    std::lock_guard lock(mutex);
    ++starts;
    changed.notify_all();
    return words;
  };
  const auto meter = make_null_meter();
  auto supervisor = Supervisor::start(options, *meter);
  ASSERT_TRUE(supervisor);
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(20), [&] { return starts >= 3; }));
  lock.unlock();
  (*supervisor)->stop(0);
  EXPECT_EQ(station.server.connections, 0);
}

}  // namespace
}  // namespace waystation::worker
