// What happened in a run: a hash of all of it, the last lines of it for people, and the first
// broken invariant.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "sim/scheduler.h"

namespace waystation::sim {

struct Violation {
  std::string invariant;  // "I1" … "I11", as in docs/ARCHITECTURE.md
  std::string what;
};

class History {
 public:
  // `trace`: prints every line as it comes.
  History(const Scheduler& scheduler, bool trace) : scheduler_(scheduler), trace_(trace) {}

  // A line begins with who did it: "client 3", "server", "disk".
  void note(std::string line);
  // The first one stays, and ends the run.
  void violated(std::string_view invariant, std::string what);

  const std::optional<Violation>& violation() const { return violation_; }
  // The same seed gives the same hash, or something in the run isn't a function of the seed.
  std::uint64_t hash() const { return hash_; }
  const std::deque<std::string>& recent() const { return recent_; }

 private:
  static constexpr std::size_t kRecentMax = 60;

  const Scheduler& scheduler_;
  const bool trace_;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  std::deque<std::string> recent_;
  std::optional<Violation> violation_;
};

}  // namespace waystation::sim
