// Virtual time: one queue of tasks, run one after the other on one thread. Tasks of one moment run
// in an order that the seed decides.
#pragma once

#include <compare>
#include <cstdint>
#include <map>

#include "base/clock.h"
#include "base/executor.h"
#include "sim/dice.h"

namespace waystation::sim {

using Micros = std::int64_t;
inline constexpr Micros kMs = 1000;
inline constexpr Micros kSecond = 1000 * kMs;

// Of a process (or one of its connections): when it ends, what it still had to do is dropped.
using Life = std::uint64_t;
inline constexpr Life kWorldLife = 0;

class Scheduler {
 public:
  explicit Scheduler(Dice dice) : dice_(dice) {}

  Micros now() const { return now_; }
  std::uint64_t steps() const { return steps_; }

  Life begin_life() { return ++last_life_; }
  void end_life(Life life);

  void at(Micros when, Life life, Task task);
  void after(Micros delay, Life life, Task task) { at(now_ + delay, life, std::move(task)); }

  // Runs the next task that is due by `limit`. False: there is none, and it is `limit` now.
  bool step(Micros limit);
  // Runs what is due by `limit`, or until `interrupt()`. May be called from within a task: so a
  // thread is blocked in a system call while the others go on.
  void run_until(Micros limit);
  // The innermost run_until() and those around it return at once, until `resume()`.
  void interrupt() { interrupted_ = true; }
  void resume() { interrupted_ = false; }

 private:
  struct When {
    Micros time;
    std::uint64_t tie;
    std::uint64_t number;
    auto operator<=>(const When&) const = default;
  };
  struct Entry {
    Entry(Life of, Task what) : life(of), task(std::move(what)) {}
    Life life;
    Task task;
  };

  Dice dice_;
  Micros now_ = 0;
  std::uint64_t steps_ = 0;
  std::uint64_t tasks_made_ = 0;
  Life last_life_ = kWorldLife;
  bool interrupted_ = false;
  std::map<When, Entry> queue_;
};

// A machine's clock: the steady one is virtual time, the wall clock may be set.
class SimClock final : public Clock {
 public:
  explicit SimClock(const Scheduler& scheduler) : scheduler_(scheduler) {}
  TimeMs wall_ms() const override { return kStartMs + scheduler_.now() / kMs + jumped_ms_; }
  std::int64_t steady_us() const override { return scheduler_.now(); }
  void jump_ms(TimeMs ms) { jumped_ms_ += ms; }

 private:
  static constexpr TimeMs kStartMs = 1'800'000'000'000;
  const Scheduler& scheduler_;
  TimeMs jumped_ms_ = 0;
};

}  // namespace waystation::sim
