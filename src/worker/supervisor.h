// Keeps N local worker processes running. One thread of its own starts them, waits for them and
// ends last: workers ask the kernel to kill them when the thread that started them ends.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/meter.h"
#include "base/result.h"

namespace waystation::worker {

// EX_CONFIG: starting it again can't help (its model file is bad).
inline constexpr int kDontRestartExit = 78;

struct SupervisorOptions {
  int workers = 1;
  // The command line of worker `index` (from 0); its first entry is the path of the program. Called
  // on the supervisor's thread before every start.
  std::function<std::vector<std::string>(int index)> command;
  // A worker exited with kDontRestartExit and stays down. On the supervisor's thread; may be empty.
  std::function<void(int index, const std::string& reason)> on_given_up;
  TimeMs backoff_min_ms = 100;
  TimeMs backoff_max_ms = 10'000;
  TimeMs healthy_after_ms = 30'000;  // a worker that lived so long starts again without much wait
};

// Children get /dev/null as stdin, our stdout and stderr, no other open file, default signal
// handling, and a process group of their own (so a terminal's Ctrl-C reaches the server alone,
// which then drains). Needs Linux 5.3 or later (pidfd).
class Supervisor {
 public:
  // Starts the thread, which starts the workers. `meter` must outlive the supervisor.
  static Result<std::unique_ptr<Supervisor>> start(SupervisorOptions options, Meter& meter);
  // As stop(0), if it wasn't stopped.
  ~Supervisor();

  // SIGTERM to all; SIGKILL to those that still run after `grace_ms`. Returns when all are gone.
  void stop(TimeMs grace_ms);

 private:
  class Loop;
  explicit Supervisor(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace waystation::worker
