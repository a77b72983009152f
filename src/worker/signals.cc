#include "worker/signals.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <utility>

#include "base/check.h"

namespace waystation::worker {
namespace {

// What a signal handler may touch: lock-free atomics and write(2).
std::atomic<int> wake_fd{-1};
std::atomic<int> signals_seen{0};

constexpr std::uint64_t kStop = 1 << 16;  // above any signal number

void on_raw_signal(int signal) {
  const int saved_errno = errno;
  if (signals_seen.fetch_add(1) > 0) ::_exit(128 + signal);
  const auto value = static_cast<std::uint64_t>(signal);
  [[maybe_unused]] const ssize_t written = ::write(wake_fd.load(), &value, sizeof value);
  errno = saved_errno;
}

void handle_with(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
}

}  // namespace

SignalWatch::SignalWatch(std::function<void(int signal)> on_signal) {
  const int fd = ::eventfd(0, EFD_CLOEXEC);
  CHECK(fd >= 0);
  CHECK(wake_fd.exchange(fd) == -1);
  signals_seen = 0;
  thread_ = std::thread([fd, on_signal = std::move(on_signal)] {
    while (true) {
      std::uint64_t value = 0;
      if (::read(fd, &value, sizeof value) != sizeof value) continue;
      if (value % kStop != 0) on_signal(static_cast<int>(value % kStop));
      if (value >= kStop) return;
    }
  });
  handle_with(on_raw_signal);
}

SignalWatch::~SignalWatch() {
  handle_with(SIG_DFL);
  const int fd = wake_fd.load();
  [[maybe_unused]] const ssize_t written = ::write(fd, &kStop, sizeof kStop);
  thread_.join();
  wake_fd = -1;
  ::close(fd);
}

}  // namespace waystation::worker
