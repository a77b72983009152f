// Commands: what may change, and the records that say so.
#include "queue/ledger.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "queue/ledger_parts.h"

namespace waystation::queue {
namespace {

constexpr int kFullRetryMs = 1000;
constexpr std::size_t kNameBytesMax = 128;

bool is_queue_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

Error full(std::string what) {
  return Error{Code::kQueueFull, std::move(what) + "; try again later", {}, kFullRetryMs};
}

Error lease_ended() {
  return Error{Code::kGone,
               "the lease doesn't hold these messages (any more): it ran out, was settled, or was "
               "given by an earlier start of the server; they are delivered again",
               "lease"};
}

void append(Ranges& ranges, MessageId first, std::uint64_t count) {
  if (!ranges.empty() && ranges.back().end() == first) {
    ranges.back().count += count;
  } else {
    ranges.push_back({first, count});
  }
}

}  // namespace

// Stamps, applies, and proposes.
LogIndex Ledger::commit(Body body, TimeMs now_ms, Proposal& out) {
  Record record{at_least(now_ms), std::move(body)};
  out.push_back(encode(record));
  const LogIndex index{index_.value + 1};
  CHECK(apply_body(record, index));
  return index;
}

void Ledger::begin(TimeMs now_ms, Proposal& out) {
  commit(Started{epoch_ + 1}, now_ms, out);
  next_lease_ = epoch_ << 40;
  began_ = true;
  for (auto& [id, queue] : queues_) rebuild(queue);
}

Result<QueueId> Ledger::open(const std::string& tenant, const std::string& name, TimeMs now_ms,
                             Proposal& out) {
  if (const auto found = names_.find({tenant, name}); found != names_.end()) return found->second;
  if (!is_queue_name(name)) {
    return Error{Code::kInvalidArgument,
                 "a queue's name has 1 to 128 characters of a-z A-Z 0-9 . _ -", "name"};
  }
  const auto own = std::count_if(names_.begin(), names_.end(),
                                 [&](const auto& each) { return each.first.first == tenant; });
  if (queues_.size() >= limits_.queues_max ||
      static_cast<std::size_t>(own) >= limits_.tenant_queues_max) {
    return full("there are too many queues; delete one that is no longer used");
  }
  const QueueId id{next_queue_};
  commit(Created{id, tenant, name}, now_ms, out);
  return id;
}

Status Ledger::check_room(const Queue* queue, const Publication& publication) const {
  const std::uint64_t count = publication.payload->count();
  const std::uint64_t bytes = publication.payload->bytes().size();
  if (queue != nullptr && (queue->live + count > limits_.queue_messages_max ||
                           queue->bytes + bytes > limits_.queue_bytes_max)) {
    return full("the queue is full");
  }
  if (totals_.messages + count > limits_.messages_max ||
      totals_.bytes + bytes > limits_.bytes_max) {
    return full("the queues of this server are full");
  }
  if (!publication.key.empty() && totals_.keys >= limits_.keys_max) {
    return full("the queues hold as many idempotency keys as they may");
  }
  return {};
}

Result<Receipt> Ledger::publish(const std::string& tenant, const std::string& name,
                                Publication publication, TimeMs now_ms, Proposal& out) {
  now_ms = at_least(now_ms);
  const auto found = names_.find({tenant, name});
  Queue* queue = found == names_.end() ? nullptr : queue_of(found->second);
  if (queue != nullptr && !publication.key.empty()) {
    forget_keys(*queue, now_ms);
    if (const auto bound = queue->keys.find(publication.key); bound != queue->keys.end()) {
      if (bound->second.fingerprint != publication.fingerprint) {
        return Error{
            Code::kIdempotencyMismatch,
            "this idempotency key was used for other messages; take a new key for new ones",
            "idempotency_key"};
      }
      return Receipt{bound->second.first, bound->second.count, true};
    }
  }
  for (const MessageOptions& options : publication.options) {
    if (options.deadline_ms != 0 && options.deadline_ms <= now_ms) {
      return Error{Code::kExpired, "the deadline of a message is past", "deadline"};
    }
  }
  if (const Status room = check_room(queue, publication); !room) return room.error();
  if (queue == nullptr) {
    const auto opened = open(tenant, name, now_ms, out);
    if (!opened) return opened.error();
    queue = queue_of(*opened);
  }
  if (publication.record.empty()) {
    publication.record = encode_published(publication.key, publication.fingerprint,
                                          publication.options, *publication.payload);
  }
  const Receipt receipt{queue->next, publication.payload->count(), false};
  place_published(publication.record, queue->id, receipt.first, now_ms);
  out.push_back(std::move(publication.record));
  Record record{now_ms, Published{queue->id, receipt.first, std::move(publication.key),
                                  std::move(publication.fingerprint),
                                  std::move(publication.options), std::move(publication.payload)}};
  CHECK(apply_body(record, LogIndex{index_.value + 1}));
  return receipt;
}

Taken Ledger::take(QueueId id, const TakeLimits& limits, ConsumerId consumer, TimeMs lease_ms,
                   TimeMs now_ms) {
  Taken taken;
  Queue* queue = queue_of(id);
  if (queue == nullptr) return taken;
  Lease lease{id, consumer, at_least(now_ms) + lease_ms, {}};
  while (taken.messages < limits.messages) {
    const auto front = queue->schedule.front();
    if (!front) break;
    Frame& frame = *queue->frame_of(front->range.first);
    if (!frame.payload) {
      taken.cold = true;
      break;
    }
    const auto at = static_cast<std::uint32_t>(front->range.first - frame.first);
    std::uint64_t count = std::min(
        {front->range.count, frame.end() - front->range.first, limits.messages - taken.messages});
    const std::uint64_t bytes_left = limits.bytes - std::min(limits.bytes, taken.bytes);
    count = std::min<std::uint64_t>(count, frame.payload->fitting(at, bytes_left));
    const std::uint32_t failures = frame.failures_of(front->range.first);
    for (std::uint64_t i = 1; !frame.failures.empty() && i < count; ++i) {
      if (frame.failures_of(front->range.first + i) != failures) count = i;
    }
    const std::uint64_t bytes = frame.payload->bytes(at, count).size();
    if (bytes > bytes_left && !taken.pieces.empty()) break;
    queue->schedule.take(*front, count);
    if (!frame.is_plain()) {
      for (std::uint64_t i = 0; i < count; ++i) {
        const MessageId message = front->range.first + i;
        queue->schedule.stop_clock(message, frame.options_of(message));
      }
    }
    taken.pieces.push_back({front->range.first, static_cast<std::uint32_t>(count), failures + 1, at,
                            frame.published_ms, frame.payload});
    taken.messages += count;
    taken.bytes += bytes;
    append(lease.ranges, front->range.first, count);
    if (at + count == frame.count && !fits_memory(*queue, 0)) {
      drop_payload(*queue, frame);
    }
  }
  if (taken.messages == 0) return taken;
  taken.lease = next_lease_++;
  taken.until_ms = lease.until_ms;
  queue->leased += taken.messages;
  totals_.leased += taken.messages;
  lease_ends_.emplace(lease.until_ms, taken.lease);
  if (consumer.value != 0) {
    consumer_leases_.emplace(consumer, taken.lease);
    held_[consumer] += taken.messages;
  }
  leases_.emplace(taken.lease, std::move(lease));
  return taken;
}

// Takes the ranges out of the lease, and gives them; all that is left when none are named.
Result<std::pair<Queue*, Ranges>> Ledger::release(const LeaseKey& key, const Ranges& wanted) {
  const auto found = leases_.find(key.lease);
  if (found == leases_.end() || found->second.queue != key.queue) return lease_ended();
  Lease& lease = found->second;
  Queue& queue = *queue_of(lease.queue);
  Ranges taken;
  if (wanted.empty()) {
    taken = std::move(lease.ranges);
    lease.ranges.clear();
  } else {
    Ranges left = lease.ranges;
    for (const Range& range : wanted) {
      const auto holder = std::find_if(left.begin(), left.end(), [&](const Range& held) {
        return range.count > 0 && held.first <= range.first && range.first < held.end() &&
               range.count <= held.end() - range.first;
      });
      if (holder == left.end()) return lease_ended();
      const Range before{holder->first, range.first - holder->first};
      const Range after{range.end(), holder->end() - range.end()};
      if (before.count > 0 && after.count > 0) {
        *holder = before;
        left.insert(holder + 1, after);
      } else if (before.count > 0 || after.count > 0) {
        *holder = before.count > 0 ? before : after;
      } else {
        left.erase(holder);
      }
    }
    lease.ranges = std::move(left);
    taken = wanted;
  }
  std::uint64_t count = 0;
  for (const Range& range : taken) count += range.count;
  queue.leased -= count;
  totals_.leased -= count;
  if (lease.consumer.value != 0) held_[lease.consumer] -= count;
  if (lease.ranges.empty()) {
    lease_ends_.erase({lease.until_ms, key.lease});
    consumer_leases_.erase({lease.consumer, key.lease});
    leases_.erase(found);
  }
  return std::pair{&queue, std::move(taken)};
}

Status Ledger::ack(const LeaseKey& key, const Ranges& ranges, TimeMs now_ms, Proposal& out) {
  auto released = release(key, ranges);
  if (!released) return released.error();
  commit(Settled{key.queue, Outcome::kAcked, std::move(released->second)}, now_ms, out);
  return {};
}

Status Ledger::nack(const LeaseKey& key, const Ranges& ranges, TimeMs delay_ms, bool counts,
                    const std::string& reason, TimeMs now_ms, Proposal& out) {
  auto released = release(key, ranges);
  if (!released) return released.error();
  give_back(*released->first, released->second, counts, delay_ms, reason, now_ms, out);
  return {};
}

Status Ledger::terminate(const LeaseKey& key, const Ranges& ranges, const std::string& reason,
                         TimeMs now_ms, Proposal& out) {
  auto released = release(key, ranges);
  if (!released) return released.error();
  commit(Died{key.queue, reason, std::move(released->second)}, now_ms, out);
  return {};
}

// Back to the queue, or, where that was the last attempt, to the dead letters.
void Ledger::give_back(Queue& queue, const Ranges& ranges, bool counts, TimeMs delay_ms,
                       const std::string& reason, TimeMs now_ms, Proposal& out) {
  Ranges back, dead;
  CHECK(each_part(queue, ranges, [&](Frame& frame, const Range& part) -> Status {
    for (std::uint64_t i = 0; i < part.count; ++i) {
      const std::uint32_t failures = frame.failures_of(part.first + i) + 1;
      append(counts && failures >= queue.settings.attempts_max ? dead : back, part.first + i, 1);
    }
    return {};
  }));
  const TimeMs not_before = delay_ms > 0 ? at_least(now_ms) + delay_ms : 0;
  if (!back.empty()) commit(Returned{queue.id, counts, not_before, std::move(back)}, now_ms, out);
  if (!dead.empty()) commit(Died{queue.id, reason, std::move(dead)}, now_ms, out);
}

Result<TimeMs> Ledger::extend(const LeaseKey& key, TimeMs lease_ms, TimeMs now_ms) {
  const auto found = leases_.find(key.lease);
  if (found == leases_.end() || found->second.queue != key.queue) return lease_ended();
  Lease& lease = found->second;
  lease_ends_.erase({lease.until_ms, key.lease});
  lease.until_ms = at_least(now_ms) + lease_ms;
  lease_ends_.emplace(lease.until_ms, key.lease);
  return lease.until_ms;
}

void Ledger::end_lease(std::uint64_t number, bool counts, const std::string& reason, TimeMs now_ms,
                       Proposal& out) {
  const LeaseKey key{leases_.at(number).queue, number};
  CHECK(nack(key, {}, 0, counts, reason, now_ms, out));
}

void Ledger::end_consumer(ConsumerId consumer, bool counts, TimeMs now_ms, Proposal& out) {
  while (true) {
    const auto first = consumer_leases_.lower_bound({consumer, 0});
    if (first == consumer_leases_.end() || first->first != consumer) break;
    end_lease(first->second, counts, "its consumer went away", now_ms, out);
  }
  held_.erase(consumer);
}

void Ledger::expire_messages(Queue& queue, TimeMs now_ms, Proposal& out) {
  std::vector<MessageId> expired;
  queue.schedule.expired(now_ms, expired);
  if (expired.empty()) return;
  std::sort(expired.begin(), expired.end());
  Ranges ranges;
  for (const MessageId id : expired) {
    queue.schedule.remove(id, queue.frame_of(id)->options_of(id));
    append(ranges, id, 1);
  }
  commit(Settled{queue.id, Outcome::kExpired, std::move(ranges)}, now_ms, out);
}

void Ledger::tick(TimeMs now_ms, Proposal& out, std::vector<QueueId>& changed) {
  now_ms = at_least(now_ms);
  while (!lease_ends_.empty() && lease_ends_.begin()->first <= now_ms) {
    end_lease(lease_ends_.begin()->second, true, "its lease ran out", now_ms, out);
  }
  for (auto& [id, queue] : queues_) {
    const TimeMs next = queue.schedule.next_ms();
    if (next == 0 || next > now_ms) continue;
    expire_messages(queue, now_ms, out);
    queue.schedule.tick(now_ms);
    changed.push_back(id);  // also what an expired one kept waiting in its lane
  }
}

Result<Ranges> Ledger::dead_ranges(const Queue& queue, const std::vector<MessageId>& ids) const {
  Ranges ranges;
  if (ids.empty()) {
    for (const auto& [id, letter] : queue.dead) append(ranges, id, 1);
    return ranges;
  }
  std::vector<MessageId> sorted = ids;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (const MessageId id : sorted) {
    if (!queue.dead.contains(id)) {
      return Error{Code::kNotFound, "the queue has no dead letter " + std::to_string(id), "ids"};
    }
    append(ranges, id, 1);
  }
  return ranges;
}

namespace {

std::uint64_t count_of(const Ranges& ranges) {
  std::uint64_t count = 0;
  for (const Range& range : ranges) count += range.count;
  return count;
}

}  // namespace

Result<std::uint64_t> Ledger::revive(QueueId id, const std::vector<MessageId>& ids, TimeMs now_ms,
                                     Proposal& out) {
  auto ranges = dead_ranges(*queue_of(id), ids);
  if (!ranges) return ranges.error();
  const std::uint64_t count = count_of(*ranges);
  if (count > 0) commit(Revived{id, std::move(*ranges)}, now_ms, out);
  return count;
}

Result<std::uint64_t> Ledger::discard(QueueId id, const std::vector<MessageId>& ids, TimeMs now_ms,
                                      Proposal& out) {
  auto ranges = dead_ranges(*queue_of(id), ids);
  if (!ranges) return ranges.error();
  const std::uint64_t count = count_of(*ranges);
  if (count > 0) commit(Settled{id, Outcome::kDiscarded, std::move(*ranges)}, now_ms, out);
  return count;
}

void Ledger::configure(QueueId id, const Settings& settings, TimeMs now_ms, Proposal& out) {
  if (queue_of(id)->settings == settings) return;
  commit(Configured{id, settings}, now_ms, out);
}

void Ledger::remove(QueueId id, TimeMs now_ms, Proposal& out) {
  commit(Deleted{id}, now_ms, out);
}

void Ledger::carry(const Cold& cold, PayloadPtr payload, TimeMs now_ms, Proposal& out) {
  const Queue* queue = queue_of(cold.queue);
  const auto at = queue == nullptr ? by_record_.end() : by_record_.find(cold.record);
  if (at == by_record_.end() || at->second != std::pair{cold.queue, cold.first}) return;
  commit(Carried{cold.queue, cold.first, std::move(payload)}, now_ms, out);
}

}  // namespace waystation::queue
