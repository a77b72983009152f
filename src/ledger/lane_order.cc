#include "ledger/lane_order.h"

#include <map>
#include <utility>

#include "base/check.h"

namespace waystation::ledger {
namespace {

class FifoOrder final : public LaneOrder {
 public:
  void add(const LaneHead& head) override {
    CHECK(heads_[head.model].emplace(head.accepted, head.id).second);
  }

  void remove(const LaneHead& head) override {
    const auto at = heads_.find(head.model);
    CHECK(at != heads_.end() && at->second.erase(head.accepted) == 1);
    if (at->second.empty()) heads_.erase(at);
  }

  std::optional<RequestId> next(const std::string& model) const override {
    const auto at = heads_.find(model);
    if (at == heads_.end()) return std::nullopt;
    return at->second.begin()->second;
  }

  void visit(const std::string& model,
             const std::function<bool(RequestId)>& visitor) const override {
    const auto at = heads_.find(model);
    if (at == heads_.end()) return;
    for (const auto& [accepted, id] : at->second) {
      if (!visitor(id)) return;
    }
  }

  std::vector<std::string> models() const override {
    std::vector<std::string> names;
    names.reserve(heads_.size());
    for (const auto& [model, heads] : heads_) names.push_back(model);
    return names;
  }

 private:
  std::map<std::string, std::map<LogIndex, RequestId>> heads_;
};

}  // namespace

std::unique_ptr<LaneOrder> make_fifo_order() { return std::make_unique<FifoOrder>(); }

}  // namespace waystation::ledger
