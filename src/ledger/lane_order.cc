#include "ledger/lane_order.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"

namespace waystation::ledger {
namespace {

class FairOrder final : public LaneOrder {
 public:
  void add(const LaneHead& head) override {
    Queue& queue = queues_[head.model];
    Heads& heads = queue.levels[lane_level(head.priority, head.accepted)][head.tenant];
    CHECK(heads.emplace(place_of(head), head.id).second);
  }

  void remove(const LaneHead& head) override {
    const auto at = queues_.find(head.model);
    CHECK(at != queues_.end());
    const auto level = at->second.levels.find(lane_level(head.priority, head.accepted));
    CHECK(level != at->second.levels.end());
    const auto heads = level->second.find(head.tenant);
    CHECK(heads != level->second.end() && heads->second.erase(place_of(head)) == 1);
    if (heads->second.empty()) level->second.erase(heads);
    if (level->second.empty()) at->second.levels.erase(level);
    // Nobody waits for this model: whoever comes next, all begin alike.
    if (at->second.levels.empty()) queues_.erase(at);
  }

  void take(const LaneHead& head) override {
    Queue& queue = queues_.at(head.model);
    const std::uint64_t start = queue.start_of(head.tenant);
    queue.now = std::max(queue.now, start);
    queue.next_start[head.tenant] = start + 1;
    std::erase_if(queue.next_start, [&](const auto& own) { return own.second <= queue.now; });
    remove(head);
  }

  std::optional<RequestId> next(const std::string& model) const override {
    std::optional<RequestId> first;
    visit(model, [&](RequestId id) {
      first = id;
      return false;
    });
    return first;
  }

  void visit(const std::string& model,
             const std::function<bool(RequestId)>& visitor) const override {
    const auto at = queues_.find(model);
    if (at == queues_.end()) return;
    for (const auto& [level, tenants] : at->second.levels) {
      if (!visit_level(at->second, tenants, visitor)) return;
    }
  }

  std::vector<std::string> models() const override {
    std::vector<std::string> names;
    names.reserve(queues_.size());
    for (const auto& [model, queue] : queues_) names.push_back(model);
    return names;
  }

 private:
  using Place = std::pair<std::int64_t, LogIndex>;  // no two heads share a record
  using Heads = std::map<Place, RequestId>;
  using Tenants = std::map<std::string, Heads>;

  // What waits for one model. A turn's start is in virtual time, which one request moves by one.
  struct Queue {
    std::map<std::int64_t, Tenants> levels;
    std::map<std::string, std::uint64_t> next_start;  // of tenants that are ahead of `now`
    std::uint64_t now = 0;                            // the newest turn's start

    std::uint64_t start_of(const std::string& tenant) const {
      const auto own = next_start.find(tenant);
      return own == next_start.end() ? now : own->second;
    }
  };

  // A tenant in the middle of a visit: where its next turn stands.
  struct Turn {
    std::uint64_t start;
    const std::string* tenant;
    Heads::const_iterator head;
    Heads::const_iterator end;

    // For a heap whose top goes first.
    bool operator<(const Turn& other) const {
      return std::pair(start, *tenant) > std::pair(other.start, *other.tenant);
    }
  };

  static Place place_of(const LaneHead& head) {
    return {lane_place(head.priority, head.accepted), head.accepted};
  }

  static bool visit_level(const Queue& queue, const Tenants& tenants,
                          const std::function<bool(RequestId)>& visitor) {
    std::vector<Turn> turns;
    turns.reserve(tenants.size());
    for (const auto& [tenant, heads] : tenants) {
      turns.push_back({queue.start_of(tenant), &tenant, heads.begin(), heads.end()});
    }
    std::make_heap(turns.begin(), turns.end());
    while (!turns.empty()) {
      std::pop_heap(turns.begin(), turns.end());
      Turn& turn = turns.back();
      if (!visitor(turn.head->second)) return false;
      ++turn.start;
      if (++turn.head == turn.end) {
        turns.pop_back();
      } else {
        std::push_heap(turns.begin(), turns.end());
      }
    }
    return true;
  }

  std::map<std::string, Queue> queues_;
};

}  // namespace

std::unique_ptr<LaneOrder> make_fair_order() {
  return std::make_unique<FairOrder>();
}

}  // namespace waystation::ledger
