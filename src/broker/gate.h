// The gate that everything visible passes (invariant I2): an effect waits here until the records it
// depends on are durable. Effects leave in the order in which they came.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <utility>

#include "base/crash_point.h"
#include "base/ids.h"
#include "base/result.h"

namespace waystation::broker {

// An effect. Called once: with null when it may be seen, with the error when its records were lost.
using Effect = std::move_only_function<void(const Error* lost)>;

// Owned and called by the broker's thread.
class Gate {
 public:
  // `seen`: the newest record the effect depends on; never below an earlier effect's.
  void add(LogIndex seen, Effect effect) {
    if (failure_) {
      effect(&*failure_);
    } else if (waiting_.empty() && seen <= durable_) {
      if (passing_ < seen) passing_ = seen;
      effect(nullptr);
    } else {
      waiting_.emplace_back(seen, std::move(effect));
    }
  }

  // Records up to `durable` are on disk: lets go what depends on no later one.
  void open_to(LogIndex durable) {
    if (failure_) return;
    durable_ = durable;
    while (!waiting_.empty() && waiting_.front().first <= durable) {
      auto [seen, effect] = std::move(waiting_.front());
      waiting_.pop_front();
      passing_ = seen;
      crash_point(CrashPoint::kBrokerBeforeRelease);
      effect(nullptr);
      crash_point(CrashPoint::kBrokerAfterRelease);
    }
    passing_ = durable;
  }

  // Nothing becomes durable any more: what waits, and what still comes, hears the error.
  void fail(Error failure) {
    failure_ = std::move(failure);
    auto waiting = std::exchange(waiting_, {});
    for (auto& [seen, effect] : waiting) effect(&*failure_);
  }

  // The record that what is visible now depends on at most.
  LogIndex passed() const { return passing_; }
  bool empty() const { return waiting_.empty(); }
  bool failed() const { return failure_.has_value(); }

 private:
  LogIndex durable_;
  LogIndex passing_;
  std::deque<std::pair<LogIndex, Effect>> waiting_;
  std::optional<Error> failure_;
};

}  // namespace waystation::broker
