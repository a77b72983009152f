// How to choose between workers that could all take a request. One file a policy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/ids.h"

namespace waystation::dispatch {

struct Candidate {
  WorkerId worker;
  std::uint32_t slots = 1;
  std::uint32_t in_flight = 0;  // less than slots
  bool ran_lane = false;        // it ran this conversation's last request
  bool has_prefix = false;      // it computed most of this prompt for another request
  std::uint32_t weight = 0;     // share of the load; 0 = by its slots
  std::uint64_t taken = 0;      // work given to it, in shares of its weight
};

class Policy {
 public:
  virtual ~Policy() = default;
  // The index of the chosen one. `candidates` is not empty.
  virtual std::size_t choose(const std::vector<Candidate>& candidates) = 0;
};

// The worker that ran the conversation before, for its cached prompt; else, of weighted ones, the
// one that is furthest behind its share; else the one that computed most of this prompt before,
// unless it is busier than another by an eighth of its slots (on a CPU a stream beside it costs
// more than a prompt computed again; and a beginning that everybody shares must not bring everybody
// to one worker); else the one with the smallest share of its slots taken; of equals the one that
// was given least.
std::unique_ptr<Policy> make_least_loaded();

}  // namespace waystation::dispatch
