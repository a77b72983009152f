// An Executor with threads of its own.
#pragma once

#include <cstddef>
#include <thread>
#include <vector>

#include "base/executor.h"
#include "base/mailbox.h"

namespace waystation {

// Runs tasks in order of arrival on `threads` threads, and those that may wait on one more, of low
// priority.
class ThreadExecutor final : public Executor {
 public:
  // `name`: of the threads.
  explicit ThreadExecutor(std::size_t threads, const char* name = "executor");
  ~ThreadExecutor() override;
  void run(Task task) override;
  void run_aside(Task task) override;
  // Runs what is queued, takes nothing more, and returns when all threads have ended. Idempotent;
  // one thread. The destructor does the same.
  void stop();

 private:
  Mailbox<Task> inbox_;
  Mailbox<Task> aside_;
  std::vector<std::thread> threads_;
};

}  // namespace waystation
