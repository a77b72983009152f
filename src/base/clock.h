// Time as a dependency, so that tests and the simulator own it.
#pragma once

#include "base/ids.h"

namespace waystation {

class Clock {
 public:
  virtual ~Clock() = default;
  // Milliseconds since the Unix epoch; may jump.
  virtual TimeMs wall_ms() const = 0;
  // Microseconds since an arbitrary start; never goes back.
  virtual std::int64_t steady_us() const = 0;
};

// The machine's clock. Stateless; any thread.
class SystemClock final : public Clock {
 public:
  TimeMs wall_ms() const override;
  std::int64_t steady_us() const override;
};

// A clock that stands still until it is moved. One thread.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(TimeMs start_ms = 1'700'000'000'000) : now_us_(start_ms * 1000) {}
  TimeMs wall_ms() const override { return now_us_ / 1000; }
  std::int64_t steady_us() const override { return now_us_; }
  void advance_ms(TimeMs ms) { now_us_ += ms * 1000; }

 private:
  std::int64_t now_us_;
};

}  // namespace waystation
