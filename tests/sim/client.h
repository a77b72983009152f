// A client as `front` would serve it: it submits, reads along, loses its connection, comes back,
// tries again with the same key, cancels, looks at what isn't its own. What it sees, the checker
// judges.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sim/checker.h"
#include "sim/plan.h"
#include "sim/server.h"

namespace waystation::sim {

class Client {
 public:
  Client(Scheduler& scheduler, History& history, Checker& checker, Server& server,
         const SimClock& clock, const Plan& plan, Dice dice, int number);

  void start();
  // The connection broke: no answer comes any more, and no stream goes on.
  void server_died();
  // From now on it makes no new calls, sees through those it has made, and deals with what blocks
  // its tenant's lanes.
  void calm();
  bool done() const;
  // What it still waits for, for people.
  std::string waits_for() const;

 private:
  enum class State { kToSubmit, kAsked, kReading, kOver };
  struct Call {
    int number = 0;
    Asked asked;
    broker::Submission submission;  // without its reader
    State state = State::kToSubmit;
    int tries = 0;
    int connection = 0;  // answers that belong to an earlier one are not heard
    RequestId id;
    std::shared_ptr<stream::Reader> reader;
    Sequence next = 0;
  };
  using CallPtr = std::shared_ptr<Call>;
  class Reader;

  void live();
  CallPtr make_call();
  void submit(const CallPtr& call);
  void submitted(const CallPtr& call, Result<broker::Submitted> result);
  void try_again(const CallPtr& call);
  void attach(const CallPtr& call);
  void attach_later(const CallPtr& call);
  void over(const CallPtr& call, const std::string& how);
  // Something to do with a call that was made.
  void meddle(const CallPtr& call);
  void go_away(const CallPtr& call);
  void look(const CallPtr& call, const std::string& tenant);
  void cancel(const CallPtr& call);
  void erase(const CallPtr& call);
  void peek(const CallPtr& call);
  void requeue(RequestId id);
  void discard(RequestId id);
  void deal_with_letter(RequestId id);
  void deal_with_letters();
  std::string name_of(const Call& call) const;

  Scheduler& scheduler_;
  History& history_;
  Checker& checker_;
  Server& server_;
  const SimClock& clock_;
  const Plan& plan_;
  Dice dice_;
  const int number_;
  const std::string tenant_;
  int calls_left_;
  int requeues_ = 0;     // that wait for their answer
  int plans_ = 0;        // letters that it will deal with
  int connections_ = 0;  // servers that it has lost
  std::vector<CallPtr> calls_;
};

}  // namespace waystation::sim
