// The whole truth about people's queues, as a pure state machine: no I/O, no clock, no threads. Its
// owner (the station) calls everything, one call at a time.
//
// Commands make records and apply them; a recovery that applies the same records comes to the same
// durable state. What isn't durable is who has which message now: a lease ends with its server, and
// its token is worth nothing at the next one (its number begins with the server's epoch).
//
// A message lives from Published to Settled. It may be delivered once the record that made it
// deliverable is durable, which the owner tells by make_visible().
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "queue/model.h"
#include "queue/record.h"

namespace waystation::queue {

// Records to journal, in order.
using Proposal = std::vector<std::string>;

class Ledger {
 public:
  explicit Ledger(Limits limits) : limits_(limits) {}

  // ---- Recovery: restore (perhaps), apply each record after it, then begin ---------------------

  Status restore(std::string_view snapshot, LogIndex index);
  Status apply(std::string_view record, LogIndex index);
  // Void are the leases of all earlier servers. Everything that is stored may be delivered.
  void begin(TimeMs now_ms, Proposal& out);
  // The durable state after the last record; equal states give equal bytes.
  std::string snapshot() const;

  // Records up to here are durable. Appends queues that have something new to deliver.
  void make_visible(LogIndex durable, std::vector<QueueId>& changed);

  // ---- Publishing ------------------------------------------------------------------------------

  // Takes messages; makes the queue when it isn't there. kInvalidArgument, kQueueFull,
  // kIdempotencyMismatch, kExpired. A duplicate (same key, same fingerprint) changes nothing.
  Result<Receipt> publish(const std::string& tenant, const std::string& name,
                          Publication publication, TimeMs now_ms, Proposal& out);

  // ---- Consuming -------------------------------------------------------------------------------

  // Leases what comes first, as far as it is in memory. `consumer`: whose end ends the lease; {}:
  // nobody's. Nothing taken and `cold`: see cold().
  Taken take(QueueId queue, const TakeLimits& limits, ConsumerId consumer, TimeMs lease_ms,
             TimeMs now_ms);
  // Ends the lease of these messages (none: of all that it has left). All or nothing; kGone: the
  // lease has ended, or doesn't hold them.
  Status ack(const LeaseKey& key, const Ranges& ranges, TimeMs now_ms, Proposal& out);
  // `counts`: as a failed attempt.
  Status nack(const LeaseKey& key, const Ranges& ranges, TimeMs delay_ms, bool counts,
              const std::string& reason, TimeMs now_ms, Proposal& out);
  // They are dead letters at once.
  Status terminate(const LeaseKey& key, const Ranges& ranges, const std::string& reason,
                   TimeMs now_ms, Proposal& out);
  Result<TimeMs> extend(const LeaseKey& key, TimeMs lease_ms, TimeMs now_ms);
  // A consumer is gone; its leases end.
  void end_consumer(ConsumerId consumer, bool counts, TimeMs now_ms, Proposal& out);
  // Leases that ran out, deadlines that passed, delays that are over. Appends queues that have
  // something new to deliver at once.
  void tick(TimeMs now_ms, Proposal& out, std::vector<QueueId>& changed);
  // Of a lease whose consumer doesn't say.
  TimeMs lease_ms(QueueId queue) const { return queue_of(queue)->settings.lease_ms; }
  // Messages that a consumer has.
  std::uint64_t held(ConsumerId consumer) const {
    const auto found = held_.find(consumer);
    return found == held_.end() ? 0 : found->second;
  }

  // ---- Dead letters, settings, queues ----------------------------------------------------------

  std::vector<DeadEntry> dead_letters(QueueId queue, MessageId after, std::size_t count_max) const;
  // Of all dead ones when `ids` is empty, else of these. Gives their number. kNotFound names one
  // that isn't dead; nothing is changed then.
  Result<std::uint64_t> revive(QueueId queue, const std::vector<MessageId>& ids, TimeMs now_ms,
                               Proposal& out);
  Result<std::uint64_t> discard(QueueId queue, const std::vector<MessageId>& ids, TimeMs now_ms,
                                Proposal& out);
  // Makes the queue when it isn't there. kInvalidArgument, kQueueFull.
  Result<QueueId> open(const std::string& tenant, const std::string& name, TimeMs now_ms,
                       Proposal& out);
  void configure(QueueId queue, const Settings& settings, TimeMs now_ms, Proposal& out);
  void remove(QueueId queue, TimeMs now_ms, Proposal& out);

  // ---- Payloads that are not in memory ---------------------------------------------------------

  // The frames that take() needs next, at most about `bytes_max` of them.
  std::vector<Cold> cold(QueueId queue, std::uint64_t bytes_max) const;
  void warm(QueueId queue, MessageId first, PayloadPtr payload);
  // Frames whose records are below `index`, oldest first, at most about `bytes_max`.
  std::vector<Cold> stored_below(LogIndex index, std::uint64_t bytes_max) const;
  // Writes a frame again at the tail, if it is still where `cold` says.
  void carry(const Cold& cold, PayloadPtr payload, TimeMs now_ms, Proposal& out);
  // The oldest record that holds payloads; {}: none.
  LogIndex oldest_needed() const;

  // ---- Questions -------------------------------------------------------------------------------

  // kNotFound; another tenant's doesn't exist.
  Result<QueueId> find(const std::string& tenant, const std::string& name) const;
  QueueInfo info(QueueId queue) const;
  std::vector<QueueInfo> list(const std::string& tenant) const;
  Totals totals() const;
  const std::map<QueueId, Queue>& queues() const { return queues_; }
  QueueId next_queue() const { return QueueId{next_queue_}; }
  TimeMs last_time_ms() const { return last_time_ms_; }
  std::uint64_t epoch() const { return epoch_; }
  LogIndex index() const { return index_; }

 private:
  using QueueName = std::pair<std::string, std::string>;  // tenant, name
  struct Pending {  // may be delivered once the record is durable
    LogIndex index;
    QueueId queue;
    Range range;
  };

  TimeMs at_least(TimeMs now_ms) const { return now_ms > last_time_ms_ ? now_ms : last_time_ms_; }
  LogIndex commit(Body body, TimeMs now_ms, Proposal& out);
  Status apply_body(Record& record, LogIndex index);
  Status apply_one(const Started& body);
  Status apply_one(const Created& body);
  Status apply_one(const Configured& body);
  Status apply_one(const Deleted& body);
  Status apply_one(Published& body);
  Status apply_one(const Carried& body);
  Status apply_one(const Settled& body);
  Status apply_one(const Returned& body);
  Status apply_one(const Died& body);
  Status apply_one(const Revived& body);

  Queue* queue_of(QueueId id);
  const Queue* queue_of(QueueId id) const;
  // Calls f(frame, range within it) for all of the range; an error when a part has no frame.
  template <typename F>
  Status each_part(Queue& queue, const Ranges& ranges, F f);
  Status settle_part(Queue& queue, Frame& frame, const Range& part);
  void fail_part(Queue& queue, Frame& frame, const Range& part);
  void drop_frame(Queue& queue, MessageId first);
  bool fits_memory(const Queue& queue, std::uint64_t bytes) const;
  void drop_payload(Queue& queue, Frame& frame);
  void forget_keys(Queue& queue, TimeMs now_ms);
  void wait_visible(QueueId queue, const Ranges& ranges);
  void enter(Queue& queue, const Range& range);
  void rebuild(Queue& queue);

  Status check_room(const Queue* queue, const Publication& publication) const;
  Result<std::pair<Queue*, Ranges>> release(const LeaseKey& key, const Ranges& ranges);
  void end_lease(std::uint64_t lease, bool counts, const std::string& reason, TimeMs now_ms,
                 Proposal& out);
  void give_back(Queue& queue, const Ranges& ranges, bool counts, TimeMs delay_ms,
                 const std::string& reason, TimeMs now_ms, Proposal& out);
  Result<Ranges> dead_ranges(const Queue& queue, const std::vector<MessageId>& ids) const;
  void expire_messages(Queue& queue, TimeMs now_ms, Proposal& out);
  void write_queue(Writer& writer, const Queue& queue) const;
  // What the ledger can't have written, fails.
  void read_queue(Reader& reader);

  const Limits limits_;
  bool began_ = false;  // schedules are kept only from then on
  std::uint64_t epoch_ = 0;
  std::uint64_t next_queue_ = 1;
  std::uint64_t next_lease_ = 0;
  LogIndex index_;           // of the last record applied
  TimeMs last_time_ms_ = 0;  // of the last record: time never goes back in the log

  std::map<QueueId, Queue> queues_;
  std::map<QueueName, QueueId> names_;
  std::map<LogIndex, std::pair<QueueId, MessageId>> by_record_;  // frames
  std::deque<Pending> pending_;
  std::unordered_map<std::uint64_t, Lease> leases_;
  std::set<std::pair<TimeMs, std::uint64_t>> lease_ends_;
  std::set<std::pair<ConsumerId, std::uint64_t>> consumer_leases_;
  std::unordered_map<ConsumerId, std::uint64_t> held_;  // messages
  Totals totals_;
};

}  // namespace waystation::queue
