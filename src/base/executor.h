// Where work runs that must not block its caller. Injected, so that tests decide when it happens.
#pragma once

#include <functional>

namespace waystation {

using Task = std::move_only_function<void()>;

class Executor {
 public:
  virtual ~Executor() = default;
  // Runs the task later, on another thread or in another turn. Any thread.
  virtual void run(Task task) = 0;
};

}  // namespace waystation
