// Which lane goes next. The ledger tells it the heads that are ready to run; dispatch asks for the
// next one a model has.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"

namespace waystation::ledger {

// The first request of a lane, when it is queued. `accepted` never changes, so a request that comes
// back after a failed attempt stands before everything younger.
struct LaneHead {
  RequestId id;
  std::string model;
  LogIndex accepted;
  std::int32_t priority = 0;
};

// Where a head of this priority stands: the lowest goes first. A step of priority is worth a fixed
// number of records, so that a request of low priority waits long, but not for ever.
constexpr std::int64_t lane_place(std::int32_t priority, LogIndex accepted) {
  constexpr std::int64_t kRecordsPerStep = 1'000'000;
  constexpr std::int32_t kStepsMax = 10;
  const std::int64_t steps = priority > kStepsMax ? kStepsMax : priority < -kStepsMax ? -kStepsMax : priority;
  return static_cast<std::int64_t>(accepted.value) - steps * kRecordsPerStep;
}

// Owned and called by the ledger, on its thread. Deterministic: the same calls give the same answers.
class LaneOrder {
 public:
  virtual ~LaneOrder() = default;
  virtual void add(const LaneHead& head) = 0;
  virtual void remove(const LaneHead& head) = 0;
  // The head to run next for a model; it stays until it is removed.
  virtual std::optional<RequestId> next(const std::string& model) const = 0;
  // The heads of a model in the order to run them, until the visitor returns false.
  virtual void visit(const std::string& model,
                     const std::function<bool(RequestId)>& visitor) const = 0;
  // Models that have a ready head.
  virtual std::vector<std::string> models() const = 0;
};

// By priority and time of acceptance: see lane_place.
std::unique_ptr<LaneOrder> make_priority_order();

}  // namespace waystation::ledger
