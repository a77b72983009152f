#include <algorithm>

#include "dispatch/policy.h"

namespace waystation::dispatch {
namespace {

class LeastLoaded final : public Policy {
 public:
  std::size_t choose(const std::vector<Candidate>& candidates) override {
    std::size_t best = 0;
    const bool weighted = std::all_of(candidates.begin(), candidates.end(),
                                      [](const Candidate& c) { return c.weight > 0; });
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (candidates[i].ran_lane) return i;
      const auto& a = candidates[i];
      const auto& b = candidates[best];
      if (weighted) {
        if (a.taken < b.taken) best = i;
        continue;
      }
      // a.in_flight / a.slots < b.in_flight / b.slots, without the division
      if (std::uint64_t{a.in_flight} * b.slots < std::uint64_t{b.in_flight} * a.slots) best = i;
    }
    return best;
  }
};

}  // namespace

std::unique_ptr<Policy> make_least_loaded() { return std::make_unique<LeastLoaded>(); }

}  // namespace waystation::dispatch
