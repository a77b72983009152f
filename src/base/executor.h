// Where work runs that must not block its caller. Injected, so that tests decide when it happens.
#pragma once

#include <functional>
#include <utility>

namespace waystation {

using Task = std::move_only_function<void()>;

class Executor {
 public:
  virtual ~Executor() = default;
  // Runs the task later, on another thread or in another turn. Any thread.
  virtual void run(Task task) = 0;
  // The same, for long work that nobody waits for: it takes what others leave of the processor.
  virtual void run_aside(Task task) { run(std::move(task)); }
};

}  // namespace waystation
