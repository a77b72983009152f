#include "sim/scheduler.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace waystation::sim {

void Scheduler::end_life(Life life) {
  // What a task holds may reach for the scheduler when it is destroyed: take it out first.
  std::vector<Task> dropped;
  for (auto at = queue_.begin(); at != queue_.end();) {
    if (at->second.life == life) {
      dropped.push_back(std::move(at->second.task));
      at = queue_.erase(at);
    } else {
      ++at;
    }
  }
}

void Scheduler::at(Micros when, Life life, Task task) {
  queue_.emplace(When{std::max(when, now_), dice_.next(), ++tasks_made_},
                 Entry(life, std::move(task)));
}

bool Scheduler::step(Micros limit) {
  if (queue_.empty() || queue_.begin()->first.time > limit) {
    now_ = std::max(now_, limit);
    return false;
  }
  auto node = queue_.extract(queue_.begin());
  now_ = std::max(now_, node.key().time);
  ++steps_;
  node.mapped().task();
  return true;
}

void Scheduler::run_until(Micros limit) {
  while (!interrupted_ && step(limit)) {
  }
}

}  // namespace waystation::sim
