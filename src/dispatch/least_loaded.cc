#include <algorithm>
#include <optional>

#include "dispatch/policy.h"

namespace waystation::dispatch {
namespace {

class LeastLoaded final : public Policy {
 public:
  std::size_t choose(const std::vector<Candidate>& candidates) override {
    std::size_t best = 0;
    std::optional<std::size_t> has_prefix;
    const bool weighted = std::all_of(candidates.begin(), candidates.end(),
                                      [](const Candidate& c) { return c.weight > 0; });
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const Candidate& a = candidates[i];
      if (a.ran_lane) return i;
      if (a.has_prefix) has_prefix = i;
      const Candidate& b = candidates[best];
      const bool freer = weighted || load(a) == load(b) ? a.taken < b.taken : load(a) < load(b);
      if (freer) best = i;
    }
    if (!weighted && has_prefix && load(candidates[*has_prefix]) < load(candidates[best]) + 0.125) {
      return *has_prefix;
    }
    return best;
  }

 private:
  static double load(const Candidate& c) { return static_cast<double>(c.in_flight) / c.slots; }
};

}  // namespace

std::unique_ptr<Policy> make_least_loaded() {
  return std::make_unique<LeastLoaded>();
}

}  // namespace waystation::dispatch
