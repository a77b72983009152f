// One child process, by pidfd.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace waystation::worker {

// How a child ended.
struct Exit {
  bool by_signal = false;
  int value = 0;  // exit status, or the signal's number
  std::string to_string() const;  // "exit status 78", "signal 9 (Killed)"
};

// A running child. Owned by one thread. Destroying it doesn't end the child.
class Process {
 public:
  // Starts `command` (its first entry is a path) as supervisor.h says. kIo says why not.
  static Result<Process> start(const std::vector<std::string>& command);

  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  ~Process();

  pid_t pid() const { return pid_; }
  // Becomes readable (poll) when the child has ended.
  int fd() const { return fd_; }
  void signal(int number) const;
  // After fd() became readable. Once.
  Exit reap();

 private:
  Process(pid_t pid, int fd) : pid_(pid), fd_(fd) {}
  pid_t pid_ = 0;
  int fd_ = -1;
};

}  // namespace waystation::worker
