#include "base/thread_executor.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <limits>

#include "base/thread_name.h"

namespace waystation {

namespace {

constexpr std::size_t kUnbounded = std::numeric_limits<std::size_t>::max();
// A quarter of a processor beside a thread of normal priority that wants all of it: enough for
// checkpoints to keep up with a server that is never idle.
constexpr int kAsideNice = 5;

void run_all(Mailbox<Task>& inbox) {
  std::vector<Task> tasks;
  while (inbox.receive_all(tasks, std::chrono::hours(1))) {
    for (Task& task : tasks) task();
    tasks.clear();
  }
}

}  // namespace

ThreadExecutor::ThreadExecutor(std::size_t threads, const char* name)
    : inbox_(kUnbounded), aside_(kUnbounded) {
  for (std::size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this, name] {
      name_this_thread(name);
      run_all(inbox_);
    });
  }
  threads_.emplace_back([this] {
    name_this_thread("aside");
    ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kAsideNice);
    run_all(aside_);
  });
}

ThreadExecutor::~ThreadExecutor() {
  stop();
}

void ThreadExecutor::stop() {
  inbox_.close();
  aside_.close();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void ThreadExecutor::run(Task task) {
  inbox_.send_reserved(std::move(task));
}

void ThreadExecutor::run_aside(Task task) {
  aside_.send_reserved(std::move(task));
}

}  // namespace waystation
