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
  std::string tenant = {};
};

// A step of priority is worth this many records, so that a request of low priority waits long, but
// not for ever.
inline constexpr std::int64_t kRecordsPerStep = 1'000'000;

// Where a head of this priority stands among its tenant's: the lowest goes first.
constexpr std::int64_t lane_place(std::int32_t priority, LogIndex accepted) {
  constexpr std::int32_t kStepsMax = 10;
  const std::int64_t steps = priority > kStepsMax    ? kStepsMax
                             : priority < -kStepsMax ? -kStepsMax
                                                     : priority;
  return static_cast<std::int64_t>(accepted.value) - steps * kRecordsPerStep;
}

// Heads of one level share their model's workers fairly among tenants; a lower level goes first.
constexpr std::int64_t lane_level(std::int32_t priority, LogIndex accepted) {
  const std::int64_t place = lane_place(priority, accepted);
  return (place - (place < 0 ? kRecordsPerStep - 1 : 0)) / kRecordsPerStep;
}

// Owned and called by the ledger, on its thread. Deterministic: the same calls give the same
// answers.
class LaneOrder {
 public:
  virtual ~LaneOrder() = default;
  virtual void add(const LaneHead& head) = 0;
  virtual void remove(const LaneHead& head) = 0;
  // Instead of remove(): the head is given to a worker.
  virtual void take(const LaneHead& head) = 0;
  // The head to run next for a model; it stays until it is removed.
  virtual std::optional<RequestId> next(const std::string& model) const = 0;
  // The heads of a model in the order to run them, until the visitor returns false.
  virtual void visit(const std::string& model,
                     const std::function<bool(RequestId)>& visitor) const = 0;
  // Models that have a ready head.
  virtual std::vector<std::string> models() const = 0;
};

// By level; within one, tenants take turns, and each has its own heads by place. Turns are those of
// start-time fair queueing (Goyal, Vin and Cheng 1996) with requests of equal cost: a tenant that
// comes after a pause has no credit from it, and one that asks for much delays no other by more
// than a request each.
std::unique_ptr<LaneOrder> make_fair_order();

}  // namespace waystation::ledger
