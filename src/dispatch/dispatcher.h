// Which worker gets which lane's head. Knows the workers, what they serve and how many requests each
// may still take (credit); knows nothing of the requests but what it is asked about.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "dispatch/policy.h"

namespace waystation::dispatch {

// Pure; owned and called by the broker's thread.
class Dispatcher {
 public:
  explicit Dispatcher(std::unique_ptr<Policy> policy = make_least_loaded());

  void add(WorkerId worker, std::vector<std::string> models, std::uint32_t slots);
  void remove(WorkerId worker);
  // Takes no new work any more.
  void set_leaving(WorkerId worker);

  // Begins a round of picks: worker reservations of the last round are given up.
  void begin_round();

  // Chooses a worker for the head of `lane` and takes one of its slots. With `alone`, only an empty
  // worker will do, and it gets nothing else until release(); when none is empty, the least loaded
  // one is kept free of new work for the rest of the round. Empty `lane`: no affinity.
  std::optional<WorkerId> pick(const std::string& model, const std::string& lane, bool alone);

  // A slot of the worker is free again.
  void release(WorkerId worker);

  bool serves(const std::string& model) const;
  // Some worker could take a request for this model now.
  bool has_credit(const std::string& model) const;
  std::uint32_t slots() const;

 private:
  struct Worker {
    std::vector<std::string> models;
    std::uint32_t slots = 0;
    std::uint32_t in_flight = 0;
    bool leaving = false;
    bool alone = false;     // runs one suspect, and nothing beside it
    bool reserved = false;  // is emptied for a suspect
    bool serves(const std::string& model) const;
    bool open() const { return !leaving && !alone && !reserved && in_flight < slots; }
  };

  std::optional<WorkerId> pick_alone(const std::string& model);
  void remember(const std::string& lane, WorkerId worker);

  std::unique_ptr<Policy> policy_;
  std::vector<std::pair<WorkerId, Worker>> workers_;  // few; in order of joining
  std::vector<Candidate> candidates_;                 // reused between picks

  // The worker that last ran a lane holds its prompt in cache. Bounded, least recently used out.
  using LaneEntry = std::pair<std::string, WorkerId>;
  std::list<LaneEntry> lanes_;
  std::unordered_map<std::string, std::list<LaneEntry>::iterator> lane_index_;
};

}  // namespace waystation::dispatch
