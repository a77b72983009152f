// Which lane goes next. The ledger tells it the heads that are ready to run; dispatch asks for the
// next one a model has. First in, first out for now; priorities and fairness get files of their own.
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
};

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

// By time of acceptance.
std::unique_ptr<LaneOrder> make_fifo_order();

}  // namespace waystation::ledger
