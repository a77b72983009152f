// The ledger: the whole truth about requests, as a pure state machine. No I/O, no clock, no
// threads; its owner (the broker's thread) calls everything.
//
// Commands (`submit`, `lease`, `output`, …) decide: they add records and effects to a Proposal and
// have changed the state when they return. `apply` changes the state from one record. Both end in
// the same code: a command makes records and applies them, so a recovery that applies the journal's
// records comes to the same state (invariant I7). Time enters as `now_ms` and leaves as
// Record.time_ms; the state depends on nothing else.
//
// What readers may see is the records themselves (Appended, Settled), once they are durable.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "ledger/lane_order.h"
#include "ledger/request.h"
#include "message/proto/link.pb.h"
#include "message/proto/records.pb.h"

namespace waystation::ledger {

// Bounds on what may be accepted. They bind commands, never `apply`.
struct Limits {
  // What blocks a lane counts as if it were live: its requeueing is never refused for want of room.
  std::size_t live_requests_max = 10'000;        // queued and running
  std::uint64_t live_bytes_max = 256ull << 20;   // of their envelopes
  std::size_t lane_requests_max = 1'000;         // live ones of one conversation
  std::uint32_t attempts_max = 3;                // that count, before a request is dead
  TimeMs idempotency_ttl_ms = 24 * 3600 * 1000;  // how long a key binds
  TimeMs retain_ms = 24 * 3600 * 1000;           // ended requests are kept this long
};

// Hand this to the worker.
struct StartWork {
  WorkerId worker;
  v1::Assign assign;
};
// Tell the worker to drop it.
struct StopWork {
  WorkerId worker;
  v1::Fence fence;
};
using Effect = std::variant<StartWork, StopWork>;

// What commands add to: records to journal, in order, and effects. Effects to workers may go before
// the records are durable (their results come back through later records of the same log).
struct Proposal {
  std::vector<v1::Record> records;
  std::vector<Effect> effects;
};

struct Accepted {
  RequestId id;
  bool duplicate = false;  // the key was bound: `id` is the earlier request
  TimeMs accepted_ms = 0;
};

// What runs a request.
struct Runner {
  WorkerId worker;
  std::string worker_name = {};
  std::string model = {};        // empty: the one asked for
  std::string fingerprint = {};  // of its model; empty: its token ids mean nothing to others
};

// How a request is to be treated; beside the envelope, which says what is to be done.
struct Terms {
  bool detached = false;
  bool stream_usage = false;
  std::uint32_t choices = 1;
  bool compose = false;
  bool locked = false;  // refused when its lane has a live request, or is blocked
  bool block_on_dead =
      false;  // should it die, its lane is blocked; of no use without a conversation
};

struct Counts {
  std::size_t queued = 0;
  std::size_t running = 0;
  std::size_t retained = 0;      // ended and kept
  std::uint64_t live_bytes = 0;  // and of what blocks lanes
  std::size_t open_letters = 0;  // dead, and nobody has dealt with them
  std::size_t blocked_lanes = 0;
};

class Ledger {
 public:
  explicit Ledger(Limits limits, std::unique_ptr<LaneOrder> order = make_fair_order());

  // ---- Recovery ---------------------------------------------------------------------------------

  // Changes the state by one record. Records come in order of their index. An error means that the
  // record doesn't fit the state: the journal isn't ours, or was changed by another hand. The state
  // is then as it was.
  Status apply(const v1::Record& record, LogIndex index);

  v1::LedgerSnapshot snapshot() const;
  // Only into a fresh ledger.
  Status restore(const v1::LedgerSnapshot& snapshot);

  // ---- Commands ---------------------------------------------------------------------------------

  // Makes a new epoch; every running request goes back to its lane. First command of every start.
  // Also ends what had finished or failed for good when the log was cut before its terminal record.
  void start_epoch(std::string version, TimeMs now_ms, Proposal& out);

  // The earlier request that the key is bound to, if any; kIdempotencyMismatch for another body,
  // kGone when that request was erased.
  Result<std::optional<Accepted>> find_duplicate(const v1::Envelope& envelope, TimeMs now_ms) const;

  // Accepts `envelope` (its id a new UUIDv7) or answers with the earlier request of the same key.
  // Errors: those of find_duplicate, kQueueFull, kExpired (the deadline is past), kInvalidArgument,
  // kConversationLocked.
  Result<Accepted> submit(v1::Envelope envelope, const Terms& terms, TimeMs now_ms, Proposal& out);

  // Gives a ready head of a lane (from order().next) to a worker.
  void lease(RequestId id, const Runner& runner, TimeMs now_ms, Proposal& out);
  // The attempt that `fence` names still runs, on this worker.
  bool is_current(WorkerId worker, const v1::Fence& fence) const;

  // What a worker produced. False when its fence is not the current triple: nothing was changed.
  bool output(WorkerId worker, const v1::Output& output, TimeMs now_ms, Proposal& out);

  // The worker is gone, and with it what ran on it.
  void worker_lost(WorkerId worker, const std::string& reason, TimeMs now_ms, Proposal& out);

  // The worker has left as agreed: what it had not finished goes back, and counts against nothing.
  void worker_left(WorkerId worker, TimeMs now_ms, Proposal& out);

  // The attempt was never sent to its worker, and won't be: it goes back, and counts against
  // nothing. Does nothing when it isn't current any more.
  void take_back(WorkerId worker, const v1::Fence& fence, const std::string& why, TimeMs now_ms,
                 Proposal& out);

  // Ends a live request; does nothing to one that ended.
  void cancel(RequestId id, const std::string& reason, TimeMs now_ms, Proposal& out);

  // Deletes what a request was asked and has answered; one that is live is cancelled first. Its key
  // goes on binding. Does nothing when that was done before.
  void erase(RequestId id, const std::string& reason, TimeMs now_ms, Proposal& out);

  // Dead letters (dead_letters.cc). Errors of both: kConflict for a request that isn't dead, or
  // that was dealt with in the other way.

  // What requeue() would answer: the request made of the letter before, if any. Also kConflict: the
  // server put its prompt together, so its body says nothing by itself.
  Result<std::optional<Accepted>> check_requeue(const Request& request) const;
  // Makes a new request of a dead letter; `envelope`: as it was accepted, from the journal. It
  // takes the letter's place if that blocks its lane, else it goes to the lane's end, and then it
  // may be kQueueFull. It has as long for its answer as the first had, and no idempotency key. A
  // letter that was requeued before answers with the request of that time, as a duplicate.
  Result<Accepted> requeue(RequestId id, v1::Envelope envelope, RequestId new_id, TimeMs now_ms,
                           Proposal& out);
  // The letter was dealt with, and its lane goes on. Does nothing when it was discarded before.
  Status discard(RequestId id, TimeMs now_ms, Proposal& out);

  // Expires what is past its deadline.
  void expire(TimeMs now_ms, Proposal& out);
  // The earliest deadline of a live request; 0 = none.
  TimeMs next_expiry_ms() const;

  // Forgets ended requests past their retention, at most `count_max` of them, oldest first; but
  // none that blocks its lane. `below`: also younger ones whose records begin below this index,
  // unless their key still binds.
  void forget(TimeMs now_ms, LogIndex below, std::size_t count_max, Proposal& out);

  // Writes a request again at the tail; `events` are all of its events. `body`: the envelope of an
  // open letter, where there is one; those of live requests the ledger knows itself.
  void carry(RequestId id, std::vector<v1::Event> events, std::optional<v1::Envelope> body,
             TimeMs now_ms, Proposal& out);

  // ---- Questions --------------------------------------------------------------------------------

  // The request, or kNotFound, or kGone (past its retention, or erased). Another tenant's is
  // answered like one that doesn't exist.
  Result<const Request*> find(const std::string& tenant, RequestId id) const;
  const Request* find(RequestId id) const;
  const LaneOrder& order() const { return *order_; }
  // How many queued requests of the same model stand before it, plus one; 0 when it isn't queued.
  std::uint64_t queue_position(const Request& request) const;
  // Those with a cache key that have not ended otherwise than completed; by acceptance.
  std::vector<const Request*> cacheable() const;
  // What stands before this live one in its lane, in order: live requests, and what blocks it.
  std::vector<const Request*> ahead_of(const Request& request) const;
  // A tenant's dead letters, dealt with or not, newest first, at most `count_max` of those before
  // the letter `after`. kInvalidArgument: `after` names none.
  Result<std::vector<const Request*>> dead_letters(const std::string& tenant,
                                                   std::optional<RequestId> after,
                                                   std::size_t count_max) const;
  std::vector<RequestId> blocking() const;  // what blocks a lane
  // The attempts that are leased to this worker, also those that were not sent to it yet.
  std::vector<v1::Fence> running_on(WorkerId worker) const;
  // A request for this model was accepted before (its workers may be on their way).
  bool knows_model(const std::string& model) const { return models_.contains(model); }
  std::vector<RequestId> live() const;  // by acceptance
  // Requests with records below `index`, by age, at most `count_max`.
  std::vector<RequestId> stored_below(LogIndex index, std::size_t count_max) const;
  // The oldest record that is still needed; {} when there is no request.
  LogIndex oldest_needed() const;
  Epoch epoch() const { return epoch_; }
  LogIndex index() const { return index_; }
  Counts counts() const;
  const Limits& limits() const { return limits_; }

 private:
  struct Lane {
    std::deque<Request*> requests;  // by place; the first may run, or blocks the others
  };

  // Stamps the record, applies it and puts it into the proposal.
  void commit(v1::Record record, TimeMs now_ms, Proposal& out);
  void settle(Request& request, v1::RequestState state, std::string finish_reason,
              v1::Failure failure, TimeMs now_ms, Proposal& out);
  void end_attempt(Request& request, v1::AttemptEnd cause, const std::string& detail, bool counts,
                   TimeMs now_ms, Proposal& out);
  void give_up(Request& request, const std::string& detail, TimeMs now_ms, Proposal& out);
  void append_events(Request& request, const v1::Output& output, TimeMs now_ms, Proposal& out);
  v1::Fence fence_of(const Request& request) const;
  Status has_room(const v1::Envelope& envelope, bool locked) const;

  Status apply_body(const v1::Record& record, LogIndex index, TimeMs now_ms);
  Status apply_epoch(const v1::EpochStarted& body, TimeMs now_ms);
  Status apply_accepted(const v1::Accepted& body, LogIndex index, TimeMs now_ms);
  Status apply_leased(const v1::Leased& body, TimeMs now_ms);
  Status apply_appended(const v1::Appended& body, LogIndex index, TimeMs now_ms);
  Status apply_attempt_ended(const v1::AttemptEnded& body, TimeMs now_ms);
  Status apply_settled(const v1::Settled& body, TimeMs now_ms);
  Status apply_forgotten(const v1::Forgotten& body);
  Status apply_erased(const v1::Erased& body, LogIndex index);
  Status apply_carried(const v1::Carried& body, LogIndex index);
  Status apply_discarded(const v1::Discarded& body);

  Result<Request*> live_request(const std::string& id_bytes, const char* record);
  void requeue(Request& request, const std::string& outcome, const std::string& detail,
               TimeMs now_ms);
  void leave_worker(Request& request);
  Request& insert(std::unique_ptr<Request> request);
  void join_lane(Request& request);
  void leave_lane(Request& request);
  // From dead_letters.cc.
  Result<Request*> find_open_letter(const std::string& id_bytes, const char* record);
  void add_letter(Request& request);     // it has died, or is dead in a checkpoint
  void remove_letter(Request& request);  // before it is erased or forgotten
  // Before it is marked as dealt with: it is no open letter any more, and blocks no lane.
  void release(Request& request);
  bool key_binds(const Request& request, TimeMs now_ms) const;
  LaneHead head_of(const Request& request) const;

  const Limits limits_;
  std::unique_ptr<LaneOrder> order_;

  Epoch epoch_;
  LogIndex index_;                 // of the last record applied
  TimeMs last_time_ms_ = 0;        // of the last record: time never goes back in the log
  TimeMs forgotten_until_ms_ = 0;  // the newest acceptance among forgotten requests

  std::unordered_map<RequestId, std::unique_ptr<Request>> requests_;
  std::unordered_map<std::string, Lane> lanes_;
  std::map<LogIndex, Request*> by_stored_;  // all, by stored_index
  std::map<LogIndex, Request*> queued_;     // by accepted_index
  std::unordered_map<WorkerId, std::set<RequestId>> running_;
  std::map<std::pair<std::string, std::string>, RequestId> keys_;  // (tenant, key) → request
  std::set<std::pair<TimeMs, RequestId>> deadlines_;               // live ones
  std::set<std::pair<TimeMs, RequestId>> ended_;                   // by time of ending
  std::map<std::string, std::set<std::pair<TimeMs, RequestId>>> letters_;  // dead, by tenant
  std::set<RequestId> blocking_;                                           // what blocks lanes
  std::size_t open_letters_ = 0;
  std::unordered_map<std::string, std::size_t> models_;  // requests per model
  std::size_t running_count_ = 0;
  std::uint64_t live_bytes_ = 0;
};

void write_progress(const Choice& choice, v1::ChoiceProgress& out);

}  // namespace waystation::ledger
