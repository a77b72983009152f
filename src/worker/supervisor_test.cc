#include "worker/supervisor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <mutex>

#include "worker/process.h"

namespace waystation::worker {
namespace {

using Clock = std::chrono::steady_clock;

class CountingMeter final : public Meter, Counter {
 public:
  Counter& counter(const std::string& name, const std::string&, Labels) override {
    counter_name = name;
    return *this;
  }
  Gauge& gauge(const std::string&, const std::string&, Labels) override { std::abort(); }
  Histogram& histogram(const std::string&, const std::string&, std::vector<double>,
                       Labels) override {
    std::abort();
  }
  void add(double amount) override { total += amount; }
  std::string counter_name;
  double total = 0;
};

// Runs shell scripts as workers, and knows when each was started and given up.
struct Shell {
  explicit Shell(std::string script, int workers = 1) {
    options.workers = workers;
    options.backoff_min_ms = 5;
    options.backoff_max_ms = 20;
    options.command = [this, script](int index) {
      std::lock_guard lock(mutex);
      starts.push_back(Clock::now());
      changed.notify_all();
      return std::vector<std::string>{"/bin/sh", "-c", script, "sh", std::to_string(index)};
    };
    options.on_given_up = [this](int index, const std::string& reason) {
      std::lock_guard lock(mutex);
      given_up.push_back(std::to_string(index) + " " + reason);
      changed.notify_all();
    };
  }
  void start() {
    auto started = Supervisor::start(options, meter);
    ASSERT_TRUE(started) << started.error().message;
    supervisor = std::move(*started);
  }
  template <typename Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), condition);
  }

  SupervisorOptions options;
  CountingMeter meter;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Clock::time_point> starts;
  std::vector<std::string> given_up;
  std::unique_ptr<Supervisor> supervisor;
};

// A named pipe that children write lines into, so no test has to guess when a child is up. Held
// open for writing too: a child never waits for the reader, and the reader never sees the end.
struct Fifo {
  Fifo() {
    char pattern[] = "/tmp/ws-supervisor-XXXXXX";
    dir = ::mkdtemp(pattern);
    path = dir + "/fifo";
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  }
  ~Fifo() {
    ::close(fd);
    std::filesystem::remove_all(dir);
  }
  std::string read_line() const {
    std::string line;
    pollfd readable{fd, POLLIN, 0};
    while (::poll(&readable, 1, 20'000) == 1) {
      char c = 0;
      if (::read(fd, &c, 1) != 1 || c == '\n') break;
      line.push_back(c);
    }
    return line;
  }
  std::string dir;
  std::string path;
  int fd = -1;
};

// What a child wrote as its pid; never a process group or everybody.
pid_t pid_of(const std::string& line) {
  const int pid = std::atoi(line.c_str());
  EXPECT_GT(pid, 1) << "'" << line << "'";
  return pid > 1 ? pid : 1 << 30;
}

TEST(SupervisorTest, RestartsWithGrowingWaits) {
  Shell shell("exit 3");
  shell.start();
  ASSERT_TRUE(shell.wait([&] { return shell.starts.size() >= 5; }));
  shell.supervisor->stop(0);
  const auto gap = [&](std::size_t i) { return shell.starts[i + 1] - shell.starts[i]; };
  // 5, 10 and 20 ms, counted in whole milliseconds.
  EXPECT_GT(gap(0), std::chrono::milliseconds(4));
  EXPECT_GT(gap(1), std::chrono::milliseconds(9));
  EXPECT_GT(gap(2), std::chrono::milliseconds(19));
  EXPECT_GE(shell.meter.total, 4);
  EXPECT_EQ(shell.meter.counter_name, "waystation_worker_restarts_total");
  EXPECT_TRUE(shell.given_up.empty());
}

TEST(SupervisorTest, AKilledWorkerIsReplaced) {
  Fifo fifo;
  Shell shell("echo $$ > " + fifo.path + "; exec sleep 1000");
  shell.start();
  const pid_t first = pid_of(fifo.read_line());
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  const pid_t second = pid_of(fifo.read_line());
  EXPECT_NE(first, second);
  shell.supervisor->stop(10'000);
  EXPECT_EQ(::kill(second, 0), -1);  // gone and reaped
  EXPECT_EQ(shell.meter.total, 1);
}

TEST(SupervisorTest, DoesntRestartABadConfiguration) {
  Shell shell("[ $1 = 0 ] && exit 78; exec sleep 1000", 2);
  shell.start();
  ASSERT_TRUE(shell.wait([&] { return !shell.given_up.empty(); }));
  EXPECT_EQ(shell.given_up[0], "0 exit status 78");
  shell.supervisor->stop(10'000);
  EXPECT_EQ(shell.starts.size(), 2u);  // the other one lived on
}

TEST(SupervisorTest, StopKillsWhatIgnoresIt) {
  Fifo fifo;
  Shell shell("trap '' TERM; echo $$ > " + fifo.path + "; while :; do sleep 0.05; done");
  shell.start();
  const pid_t pid = pid_of(fifo.read_line());
  shell.supervisor->stop(50);
  EXPECT_EQ(::kill(pid, 0), -1);
}

TEST(SupervisorTest, StopLetsAWorkerEndInItsOwnWay) {
  Fifo fifo;
  Shell shell("trap 'echo bye > " + fifo.dir + "/bye; exit 0' TERM; echo up > " + fifo.path +
              "; while :; do sleep 0.05; done");
  shell.start();
  EXPECT_EQ(fifo.read_line(), "up");
  shell.supervisor->stop(20'000);
  EXPECT_TRUE(std::filesystem::exists(fifo.dir + "/bye"));
}

TEST(SupervisorTest, StopIsHeardAtAnyMoment) {
  for (int i = 0; i < 200; ++i) {
    Shell shell("exec sleep 1000");
    const auto command = shell.options.command;
    // Stops while the supervisor is starting its worker, each round at another moment.
    shell.options.command = [&, command, i](int index) {
      const auto words = command(index);
      const auto until = Clock::now() + std::chrono::microseconds(i * 2);
      while (Clock::now() < until) {
      }
      return words;
    };
    shell.start();
    ASSERT_TRUE(shell.wait([&] { return !shell.starts.empty(); }));
    shell.supervisor->stop(20'000);
  }
}

TEST(SupervisorTest, AMissingProgramIsTriedAgain) {
  Shell shell("");
  auto command = shell.options.command;
  shell.options.command = [command](int index) {
    (void)command(index);
    return std::vector<std::string>{"/nowhere/waystation"};
  };
  shell.start();
  EXPECT_TRUE(shell.wait([&] { return shell.starts.size() >= 3; }));
}

TEST(SupervisorTest, ChildrenGetNothingThatIsNotTheirs) {
  const int leak = ::open("/dev/null", O_RDONLY);
  ASSERT_GE(leak, 0);
  ASSERT_EQ(::dup2(leak, 42), 42);  // not closed on exec
  ::signal(SIGUSR1, SIG_IGN);
  // stdin is empty, the open file is closed, the ignored signal is not ignored: then 78.
  Shell shell("read line && exit 1; [ -e /proc/$$/fd/42 ] && exit 2; kill -USR1 $$; exit 78");
  Result<Process> child = Process::start(shell.options.command(0));
  ASSERT_TRUE(child);
  const Exit exit = child->reap();
  ::signal(SIGUSR1, SIG_DFL);
  ::close(42);
  ::close(leak);
  EXPECT_TRUE(exit.by_signal) << exit.to_string();
  EXPECT_EQ(exit.value, SIGUSR1);
}

}  // namespace
}  // namespace waystation::worker
