// What each record does to the state; the same for a command and for a recovery.
#include <algorithm>
#include <limits>

#include "base/check.h"
#include "queue/ledger.h"
#include "queue/ledger_parts.h"

namespace waystation::queue {
namespace {

// Whether a message of `part` is in one of the side tables.
template <typename Table>
bool touches(const Table& table, const Range& part) {
  if (table.empty()) return false;
  const auto at = table.lower_bound(part.first);
  return at != table.end() && at->first < part.end();
}

Error misfit(const char* what) {
  return Error{Code::kCorruption, std::string("a record doesn't fit the queues' state: ") + what};
}

Status check_live(const Frame& frame, const Range& part) {
  for (std::uint64_t i = 0; !frame.settled.empty() && i < part.count; ++i) {
    if (frame.is_settled(part.first + i)) return misfit("a message was settled before");
  }
  return {};
}

}  // namespace

Status Ledger::apply(std::string_view bytes, LogIndex index) {
  auto record = decode(bytes);
  if (!record) return record.error();
  return apply_body(*record, index);
}

Status Ledger::apply_body(Record& record, LogIndex index) {
  index_ = index;
  last_time_ms_ = at_least(record.time_ms);
  return std::visit([this](auto& body) { return apply_one(body); }, record.body);
}

Status Ledger::apply_one(const Started& body) {
  epoch_ = body.epoch;
  return {};
}

Status Ledger::apply_one(const Created& body) {
  if (body.queue.value < next_queue_) return misfit("a queue's number is used again");
  if (names_.contains({body.tenant, body.name})) return misfit("a queue is made twice");
  next_queue_ = body.queue.value + 1;
  Queue& queue = queues_[body.queue];
  queue.id = body.queue;
  queue.tenant = body.tenant;
  queue.name = body.name;
  names_[{queue.tenant, queue.name}] = queue.id;
  return {};
}

Status Ledger::apply_one(const Configured& body) {
  Queue* queue = queue_of(body.queue);
  if (queue == nullptr) return misfit("settings of no queue");
  queue->settings = body.settings;
  if (queue->settings.dead_blocks) return {};
  for (auto& [id, letter] : queue->dead) {
    if (!letter.blocks) continue;
    letter.blocks = false;
    if (began_) queue->schedule.done(id, queue->frame_of(id)->options_of(id));
  }
  return {};
}

Status Ledger::apply_one(const Deleted& body) {
  Queue* queue = queue_of(body.queue);
  if (queue == nullptr) return misfit("the end of no queue");
  while (!queue->frames.empty()) drop_frame(*queue, queue->frames.begin()->first);
  totals_.messages -= queue->live;
  totals_.dead -= queue->dead.size();
  totals_.keys -= queue->keys.size();
  totals_.leased -= queue->leased;
  for (auto lease = leases_.begin(); lease != leases_.end();) {
    if (lease->second.queue == body.queue) {
      lease_ends_.erase({lease->second.until_ms, lease->first});
      held_.erase(lease->second.consumer);
      consumer_leases_.erase({lease->second.consumer, lease->first});
      lease = leases_.erase(lease);
    } else {
      ++lease;
    }
  }
  names_.erase({queue->tenant, queue->name});
  queues_.erase(body.queue);
  return {};
}

Status Ledger::apply_one(Published& body) {
  Queue* queue = queue_of(body.queue);
  if (queue == nullptr) return misfit("messages for no queue");
  if (body.first != queue->next) return misfit("a message's number is missing");
  Frame frame;
  frame.first = body.first;
  frame.count = frame.live = static_cast<std::uint32_t>(body.payload->count());
  frame.record = index_;
  frame.bytes = body.payload->bytes().size();
  frame.published_ms = last_time_ms_;
  frame.options = std::move(body.options);
  if (fits_memory(*queue, frame.bytes)) {
    frame.payload = std::move(body.payload);
    queue->memory_bytes += frame.bytes;
    totals_.memory_bytes += frame.bytes;
  }
  queue->next += frame.count;
  queue->live += frame.count;
  queue->bytes += frame.bytes;
  totals_.messages += frame.count;
  totals_.bytes += frame.bytes;
  by_record_.emplace_hint(by_record_.end(), index_, std::pair{queue->id, frame.first});
  if (!body.key.empty()) {
    totals_.keys += queue->keys.contains(body.key) ? 0 : 1;
    queue->keys[body.key] = {std::move(body.fingerprint), frame.first, frame.count, last_time_ms_};
    queue->key_order.emplace_back(last_time_ms_, std::move(body.key));
  }
  const Range range{frame.first, frame.count};
  queue->frames.emplace_hint(queue->frames.end(), range.first, std::move(frame));
  wait_visible(queue->id, {range});
  return {};
}

Status Ledger::apply_one(const Carried& body) {
  Queue* queue = queue_of(body.queue);
  Frame* frame = queue == nullptr ? nullptr : queue->frame_of(body.first);
  if (frame == nullptr) return misfit("messages that were settled are carried over");
  by_record_.erase(frame->record);
  frame->record = index_;
  by_record_.emplace_hint(by_record_.end(), index_, std::pair{queue->id, frame->first});
  return {};
}

Status Ledger::apply_one(const Settled& body) {
  Queue* queue = queue_of(body.queue);
  if (queue == nullptr) return misfit("an outcome for no queue");
  return each_part(*queue, body.ranges, [&](Frame& frame, const Range& part) {
    return settle_part(*queue, frame, part);
  });
}

// May remove the frame.
Status Ledger::settle_part(Queue& queue, Frame& frame, const Range& part) {
  if (const Status live = check_live(frame, part); !live) return live;
  if (!frame.is_plain() || touches(queue.dead, part) || touches(queue.not_before, part)) {
    for (std::uint64_t i = 0; i < part.count; ++i) {
      const MessageId id = part.first + i;
      totals_.dead -= queue.dead.erase(id);
      queue.not_before.erase(id);
      if (began_) queue.schedule.done(id, frame.options_of(id));
    }
  }
  queue.live -= part.count;
  totals_.messages -= part.count;
  frame.live -= static_cast<std::uint32_t>(part.count);
  if (frame.live == 0) {
    drop_frame(queue, frame.first);
  } else {
    if (frame.settled.empty()) frame.settled.assign(frame.count, 0);
    std::fill_n(frame.settled.begin() + static_cast<std::ptrdiff_t>(part.first - frame.first),
                part.count, std::uint8_t{1});
  }
  return {};
}

void Ledger::fail_part(Queue& queue, Frame& frame, const Range& part) {
  if (frame.failures.empty()) frame.failures.assign(frame.count, 0);
  for (std::uint64_t i = 0; i < part.count; ++i) {
    std::uint8_t& failures = frame.failures[part.first + i - frame.first];
    if (failures < std::numeric_limits<std::uint8_t>::max()) ++failures;
  }
}

Status Ledger::apply_one(const Returned& body) {
  Queue* queue = queue_of(body.queue);
  if (queue == nullptr) return misfit("a message comes back to no queue");
  const Status known = each_part(*queue, body.ranges, [&](Frame& frame, const Range& part) {
    if (const Status live = check_live(frame, part); !live) return live;
    if (body.counts) fail_part(*queue, frame, part);
    for (std::uint64_t i = 0; i < part.count; ++i) {
      const MessageId id = part.first + i;
      if (body.not_before_ms != 0) {
        queue->not_before[id] = body.not_before_ms;
      } else if (!queue->not_before.empty()) {
        queue->not_before.erase(id);
      }
    }
    return Status();
  });
  if (known) wait_visible(queue->id, body.ranges);
  return known;
}

Status Ledger::apply_one(const Died& body) {
  Queue* queue = queue_of(body.queue);
  if (queue == nullptr) return misfit("a dead letter of no queue");
  return each_part(*queue, body.ranges, [&](Frame& frame, const Range& part) {
    if (const Status live = check_live(frame, part); !live) return live;
    fail_part(*queue, frame, part);
    for (std::uint64_t i = 0; i < part.count; ++i) {
      const MessageId id = part.first + i;
      const MessageOptions& options = frame.options_of(id);
      const bool blocks = queue->settings.dead_blocks && !options.lane.empty();
      totals_.dead += queue->dead.try_emplace(id).second ? 1 : 0;
      queue->dead[id] = {body.reason, last_time_ms_, blocks};
      if (!queue->not_before.empty()) queue->not_before.erase(id);
      if (began_ && !blocks) queue->schedule.done(id, options);
    }
    return Status();
  });
}

Status Ledger::apply_one(const Revived& body) {
  Queue* queue = queue_of(body.queue);
  if (queue == nullptr) return misfit("a message of no queue is revived");
  const Status known = each_part(*queue, body.ranges, [&](Frame& frame, const Range& part) {
    for (std::uint64_t i = 0; i < part.count; ++i) {
      const MessageId id = part.first + i;
      if (queue->dead.erase(id) == 0)
        return Status(misfit("a message is revived that wasn't dead"));
      --totals_.dead;
      if (!frame.failures.empty()) frame.failures[id - frame.first] = 0;
    }
    return Status();
  });
  if (known) wait_visible(queue->id, body.ranges);
  return known;
}

bool Ledger::fits_memory(const Queue& queue, std::uint64_t bytes) const {
  const std::uint64_t all = totals_.memory_bytes + bytes;
  return all <= limits_.memory_bytes_max ||
         (all <= 2 * limits_.memory_bytes_max &&
          queue.memory_bytes + bytes <= limits_.queue_memory_bytes_min);
}

void Ledger::drop_payload(Queue& queue, Frame& frame) {
  if (!frame.payload) return;
  queue.memory_bytes -= frame.bytes;
  totals_.memory_bytes -= frame.bytes;
  frame.payload = nullptr;
}

void Ledger::drop_frame(Queue& queue, MessageId first) {
  const auto at = queue.frames.find(first);
  CHECK(at != queue.frames.end());
  Frame& frame = at->second;
  drop_payload(queue, frame);
  queue.bytes -= frame.bytes;
  totals_.bytes -= frame.bytes;
  by_record_.erase(frame.record);
  queue.frames.erase(at);
}

// Keys bind for their time, whatever becomes of their messages.
void Ledger::forget_keys(Queue& queue, TimeMs now_ms) {
  while (!queue.key_order.empty() && queue.key_order.front().first + limits_.key_ttl_ms <= now_ms) {
    const auto& [time_ms, key] = queue.key_order.front();
    const auto bound = queue.keys.find(key);
    if (bound != queue.keys.end() && bound->second.time_ms == time_ms) {
      queue.keys.erase(bound);
      --totals_.keys;
    }
    queue.key_order.pop_front();
  }
}

void Ledger::wait_visible(QueueId queue, const Ranges& ranges) {
  if (!began_) return;  // begin() finds them
  for (const Range& range : ranges) pending_.push_back({index_, queue, range});
}

void Ledger::make_visible(LogIndex durable, std::vector<QueueId>& changed) {
  while (!pending_.empty() && pending_.front().index <= durable) {
    const Pending pending = pending_.front();
    pending_.pop_front();
    Queue* queue = queue_of(pending.queue);
    if (queue == nullptr) continue;
    enter(*queue, pending.range);
    if (changed.empty() || changed.back() != queue->id) changed.push_back(queue->id);
  }
}

// These may be delivered, as far as they are neither settled nor dead.
void Ledger::enter(Queue& queue, const Range& range) {
  CHECK(each_part(queue, {range}, [&](Frame& frame, const Range& part) {
    if (frame.is_plain() && frame.settled.empty() && !touches(queue.dead, part) &&
        !touches(queue.not_before, part)) {
      queue.schedule.add(part, frame.options_of(part.first).priority);
      return Status();
    }
    for (std::uint64_t i = 0; i < part.count; ++i) {
      const MessageId id = part.first + i;
      if (frame.is_settled(id) || queue.dead.contains(id)) continue;
      const MessageOptions& options = frame.options_of(id);
      const auto later = queue.not_before.find(id);
      queue.schedule.add(id, options,
                         later == queue.not_before.end() ? options.not_before_ms : later->second);
    }
    return Status();
  }));
}

void Ledger::rebuild(Queue& queue) {
  for (const auto& [id, letter] : queue.dead) {
    if (letter.blocks) queue.schedule.block(id, queue.frame_of(id)->options_of(id));
  }
  for (const auto& [first, frame] : queue.frames) enter(queue, {first, frame.count});
}

}  // namespace waystation::queue
