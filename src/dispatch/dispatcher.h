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
#include "dispatch/prefixes.h"

namespace waystation::dispatch {

// What a worker does with one of its models.
struct Service {
  std::string model;
  std::string fingerprint = {};  // of the model's file; empty: its token ids mean nothing to others
  bool prefills = false;         // goes on from the text of an answer
};

// A worker as it offers itself.
struct Offer {
  std::vector<Service> services = {};
  std::uint32_t slots = 1;
  std::uint32_t weight = 0;  // share of the load among workers of its rank; 0 = by its slots
  std::uint32_t rank = 0;    // gets work only when nobody of a lower rank can take it
};

// What a lane's head needs.
struct Need {
  std::string model;
  std::string lane = {};   // of a conversation; empty: none
  std::vector<std::uint64_t> prefix = {};  // prefix_chain() of its prompt; empty: not compared
  bool alone = false;      // only an empty worker will do, and it gets nothing else until release()
  bool begun = false;      // there is an answer to go on from …
  std::string fingerprint = {};  // … of this model's tokens; empty: only its text
  std::string avoid = {};  // the worker that failed it last, by name: only when nobody else is free
};

// Pure; owned and called by the broker's thread.
class Dispatcher {
 public:
  explicit Dispatcher(std::unique_ptr<Policy> policy = make_least_loaded());

  void add(WorkerId worker, std::string name, Offer offer);
  void remove(WorkerId worker);
  // Takes no new work any more.
  void set_leaving(WorkerId worker);

  // Begins a round of picks: worker reservations of the last round are given up.
  void begin_round();

  // Chooses a worker and takes one of its slots. When a suspect needs an empty worker and none is
  // empty, the least loaded one is kept free of new work for the rest of the round. An answer that
  // has begun goes to a worker that can go on from it; when nobody can, to any, who will say so.
  std::optional<WorkerId> pick(const Need& need);

  // A slot of the worker is free again.
  void release(WorkerId worker);

  bool serves(const std::string& model) const;
  // Several workers serve it, so there is a choice.
  bool has_choice(const std::string& model) const;
  // Some worker could take a request for this model now.
  bool has_credit(const std::string& model) const;
  std::uint32_t slots() const;

 private:
  struct Worker {
    std::string name;
    Offer offer;
    std::uint32_t in_flight = 0;
    std::uint64_t taken = 0;  // work given, in shares of its weight
    bool leaving = false;
    bool alone = false;     // runs one suspect, and nothing beside it
    bool reserved = false;  // is emptied for a suspect
    const Service* service(const std::string& model) const;
    bool can_continue(const Need& need) const;
    bool open() const { return !leaving && !alone && !reserved && in_flight < offer.slots; }
  };

  std::optional<WorkerId> pick_alone(const Need& need);
  bool somebody_continues(const Need& need) const;
  void remember(const std::string& lane, WorkerId worker);

  std::unique_ptr<Policy> policy_;
  std::vector<std::pair<WorkerId, Worker>> workers_;  // few; in order of joining
  std::vector<Candidate> candidates_;                 // reused between picks

  PrefixIndex prefixes_;

  // The worker that last ran a lane holds its prompt in cache. Bounded, least recently used out.
  using LaneEntry = std::pair<std::string, WorkerId>;
  std::list<LaneEntry> lanes_;
  std::unordered_map<std::string, std::list<LaneEntry>::iterator> lane_index_;
};

}  // namespace waystation::dispatch
