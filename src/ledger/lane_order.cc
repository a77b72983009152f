#include "ledger/lane_order.h"

#include <map>
#include <utility>

#include "base/check.h"

namespace waystation::ledger {
namespace {

class PriorityOrder final : public LaneOrder {
 public:
  void add(const LaneHead& head) override {
    CHECK(heads_[head.model].emplace(place_of(head), head.id).second);
  }

  void remove(const LaneHead& head) override {
    const auto at = heads_.find(head.model);
    CHECK(at != heads_.end() && at->second.erase(place_of(head)) == 1);
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
    for (const auto& [place, id] : at->second) {
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
  using Place = std::pair<std::int64_t, LogIndex>;  // no two heads share a record
  static Place place_of(const LaneHead& head) {
    return {lane_place(head.priority, head.accepted), head.accepted};
  }

  std::map<std::string, std::map<Place, RequestId>> heads_;
};

}  // namespace

std::unique_ptr<LaneOrder> make_priority_order() { return std::make_unique<PriorityOrder>(); }

}  // namespace waystation::ledger
