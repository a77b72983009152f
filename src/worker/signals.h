// SIGTERM and SIGINT as a call on a normal thread.
#pragma once

#include <functional>
#include <thread>

namespace waystation::worker {

// While it lives: the first SIGTERM or SIGINT calls `on_signal` on a thread of its own; the second
// ends the process at once (exit status 128 + signal). One at a time in a process.
class SignalWatch {
 public:
  explicit SignalWatch(std::function<void(int signal)> on_signal);
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

 private:
  std::thread thread_;
};

}  // namespace waystation::worker
