#include "base/thread_executor.h"

#include <chrono>
#include <limits>

#include "base/thread_name.h"

namespace waystation {

ThreadExecutor::ThreadExecutor(std::size_t threads, const char* name)
    : inbox_(std::numeric_limits<std::size_t>::max()) {
  for (std::size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this, name] {
      name_this_thread(name);
      std::vector<Task> tasks;
      while (inbox_.receive_all(tasks, std::chrono::hours(1))) {
        for (Task& task : tasks) task();
        tasks.clear();
      }
    });
  }
}

ThreadExecutor::~ThreadExecutor() { stop(); }

void ThreadExecutor::stop() {
  inbox_.close();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void ThreadExecutor::run(Task task) { inbox_.send_reserved(std::move(task)); }

}  // namespace waystation
