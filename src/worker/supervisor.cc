#include "worker/supervisor.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread_name.h"
#include "worker/process.h"

namespace waystation::worker {
namespace {

TimeMs steady_ms() { return SystemClock().steady_us() / 1000; }

// What a person should look at, by how the worker ended.
std::string advice(const Exit& exit) {
  if (exit.by_signal && exit.value == SIGKILL) {
    return "killed: by an operator, or by the kernel for want of memory (see dmesg)";
  }
  if (exit.by_signal) return "crashed: a fault of the engine; see its last lines above";
  if (exit.value == kDontRestartExit) return "its configuration is bad; see its last line above";
  if (exit.value == 0) return "it left by itself";
  return "see its last lines above";
}

struct Slot {
  std::optional<Process> process;
  TimeMs started_ms = 0;
  TimeMs backoff_ms = 0;
  TimeMs start_at_ms = 0;
  bool given_up = false;
};

}  // namespace

// Everything but stop() happens on the thread.
class Supervisor::Loop {
 public:
  Loop(SupervisorOptions options, Meter& meter, int wake_fd)
      : options_(std::move(options)),
        restarts_(meter.counter("waystation_worker_restarts_total",
                                "Local worker processes started again after they ended")),
        wake_fd_(wake_fd),
        slots_(static_cast<std::size_t>(options_.workers)) {
    for (Slot& slot : slots_) slot.backoff_ms = options_.backoff_min_ms;
    thread_ = std::thread([this] {
      name_this_thread("supervisor");
      run();
    });
  }

  ~Loop() {
    stop(0);
    ::close(wake_fd_);
  }

  void stop(TimeMs grace_ms) {
    if (!thread_.joinable()) return;
    grace_ms_ = grace_ms;
    stopping_ = true;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
    thread_.join();
  }

 private:
  void run() {
    while (!stopping_) {
      const TimeMs now_ms = steady_ms();
      for (std::size_t i = 0; i < slots_.size(); ++i) {
        Slot& slot = slots_[i];
        if (!slot.process && !slot.given_up && slot.start_at_ms <= now_ms) start(i);
      }
      wait(next_start_ms(), wake_fd_);
    }
    for (const Slot& slot : slots_) {
      if (slot.process) slot.process->signal(SIGTERM);
    }
    const TimeMs until_ms = steady_ms() + grace_ms_;
    while (any_running() && steady_ms() < until_ms) wait(until_ms);
    for (const Slot& slot : slots_) {
      if (slot.process) slot.process->signal(SIGKILL);
    }
    while (any_running()) wait(-1);
  }

  void start(std::size_t index) {
    Slot& slot = slots_[index];
    slot.started_ms = steady_ms();
    Result<Process> process = Process::start(options_.command(static_cast<int>(index)));
    if (!process) {
      schedule(slot);
      WS_LOG(error, "worker not started index={} retry_ms={} reason=\"{}\"", index,
             slot.start_at_ms - steady_ms(), process.error().message);
      return;
    }
    WS_LOG(info, "worker started index={} pid={}", index, process->pid());
    slot.process.emplace(std::move(*process));
  }

  // Sets when the slot starts again, and doubles the wait of the next time.
  void schedule(Slot& slot) {
    const TimeMs now_ms = steady_ms();
    if (now_ms - slot.started_ms >= options_.healthy_after_ms) {
      slot.backoff_ms = options_.backoff_min_ms;
    }
    slot.start_at_ms = now_ms + slot.backoff_ms;
    slot.backoff_ms = std::min(slot.backoff_ms * 2, options_.backoff_max_ms);
  }

  void on_exit(std::size_t index) {
    Slot& slot = slots_[index];
    const pid_t pid = slot.process->pid();
    const Exit exit = slot.process->reap();
    slot.process.reset();
    if (stopping_) {
      WS_LOG(info, "worker stopped index={} pid={} exit=\"{}\"", index, pid, exit.to_string());
      return;
    }
    if (!exit.by_signal && exit.value == kDontRestartExit) {
      slot.given_up = true;
      WS_LOG(error, "worker given up index={} pid={} exit=\"{}\" hint=\"{}\"", index, pid,
             exit.to_string(), advice(exit));
      if (options_.on_given_up) options_.on_given_up(static_cast<int>(index), exit.to_string());
      return;
    }
    restarts_.add();
    schedule(slot);
    WS_LOG(warn, "worker ended index={} pid={} exit=\"{}\" lived_ms={} restart_ms={} hint=\"{}\"",
           index, pid, exit.to_string(), steady_ms() - slot.started_ms,
           slot.start_at_ms - steady_ms(), advice(exit));
  }

  bool any_running() const {
    return std::any_of(slots_.begin(), slots_.end(),
                       [](const Slot& slot) { return slot.process.has_value(); });
  }

  // -1: nothing waits for a start.
  TimeMs next_start_ms() const {
    TimeMs next_ms = -1;
    for (const Slot& slot : slots_) {
      if (slot.process || slot.given_up) continue;
      next_ms = next_ms < 0 ? slot.start_at_ms : std::min(next_ms, slot.start_at_ms);
    }
    return next_ms;
  }

  // Waits for an exit, for `wake_fd` (stop() was called; -1 when that is known), or until
  // `until_ms` (-1: no limit), and takes the exits in.
  void wait(TimeMs until_ms, int wake_fd = -1) {
    std::vector<pollfd> fds{{wake_fd, POLLIN, 0}};  // poll skips a negative one
    std::vector<std::size_t> indexes;
    const std::size_t first = fds.size();
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      if (!slots_[i].process) continue;
      fds.push_back({slots_[i].process->fd(), POLLIN, 0});
      indexes.push_back(i);
    }
    int timeout_ms = -1;
    if (until_ms >= 0) {
      timeout_ms = static_cast<int>(std::clamp<TimeMs>(until_ms - steady_ms(), 0, 60'000));
    }
    if (::poll(fds.data(), fds.size(), timeout_ms) <= 0) return;
    for (std::size_t i = 0; i < indexes.size(); ++i) {
      if (fds[first + i].revents != 0) on_exit(indexes[i]);
    }
  }

  const SupervisorOptions options_;
  Counter& restarts_;
  const int wake_fd_;
  std::vector<Slot> slots_;
  std::atomic<TimeMs> grace_ms_ = 0;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

Result<std::unique_ptr<Supervisor>> Supervisor::start(SupervisorOptions options, Meter& meter) {
  const int probe = static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0));
  if (probe < 0) {
    return Error{Code::kUnavailable,
                 "this kernel has no pidfd to supervise workers with (Linux 5.3 or later has): "
                 "start with --workers 0 and run 'waystation worker' under another supervisor"};
  }
  ::close(probe);
  const int wake_fd = ::eventfd(0, EFD_CLOEXEC);
  if (wake_fd < 0) return Error{Code::kIo, "no file descriptor left for the supervisor"};
  return std::unique_ptr<Supervisor>(
      new Supervisor(std::make_unique<Loop>(std::move(options), meter, wake_fd)));
}

Supervisor::Supervisor(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Supervisor::~Supervisor() = default;

void Supervisor::stop(TimeMs grace_ms) { loop_->stop(grace_ms); }

}  // namespace waystation::worker
