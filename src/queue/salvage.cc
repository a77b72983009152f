#include "queue/salvage.h"

#include <algorithm>
#include <optional>
#include <type_traits>
#include <variant>
#include <vector>

namespace waystation::queue {
namespace {

constexpr std::string_view kTurnOver =
    "salvage: a later message of its lane was delivered, so its own turn was over; what became of "
    "it is lost";

void append(Ranges& ranges, MessageId id) {
  if (ranges.empty() || ranges.back().end() != id) {
    ranges.push_back({id, 1});
  } else {
    ++ranges.back().count;
  }
}

std::uint64_t count_of(const Ranges& ranges) {
  std::uint64_t count = 0;
  for (const Range& range : ranges) count += range.count;
  return count;
}

std::string text_of(const Ranges& ranges) {
  std::string text;
  for (const Range& range : ranges) {
    text += text.empty() ? "" : ", ";
    text += std::to_string(range.first);
    if (range.count > 1) text += ".." + std::to_string(range.end() - 1);
  }
  return text;
}

// Of messages that are named: those that are there.
template <typename Which>
Ranges only(const Queue& queue, const Ranges& ranges, Which which) {
  Ranges found;
  for (const Range& range : ranges) {
    const MessageId end = std::min(range.end(), queue.next);
    for (MessageId id = range.first; id < end;) {
      const Frame* frame = queue.frame_of(id);
      if (frame == nullptr) {
        const auto next = queue.frames.upper_bound(id);
        id = next == queue.frames.end() ? end : next->first;
        continue;
      }
      for (; id < std::min(end, frame->end()); ++id) {
        if (!frame->is_settled(id) && which(id)) append(found, id);
      }
    }
  }
  return found;
}

Ranges live(const Queue& queue, const Ranges& ranges) {
  return only(queue, ranges, [](MessageId) { return true; });
}
Ranges dead(const Queue& queue, const Ranges& ranges) {
  return only(queue, ranges, [&](MessageId id) { return queue.dead.contains(id); });
}

bool overlap(Ranges ranges) {
  std::ranges::sort(ranges, {}, &Range::first);
  const auto at = std::ranges::adjacent_find(
      ranges, [](const Range& a, const Range& b) { return a.end() > b.first; });
  return at != ranges.end();
}

}  // namespace

Status Salvage::use(const journal::Checkpoint& checkpoint) {
  auto ledger = std::make_unique<Ledger>(Limits{});
  if (Status restored = ledger->restore(checkpoint.state, checkpoint.index); !restored) {
    return restored;
  }
  ledger_ = std::move(ledger);
  base_ = checkpoint;
  return {};
}

void Salvage::use_nothing(LogIndex index) {
  base_ = {index, Ledger(Limits{}).snapshot()};
  ledger_ = std::make_unique<Ledger>(Limits{});
  (void)ledger_->restore(base_.state, index);
}

// A settlement of nothing.
std::string Salvage::filler(TimeMs time_ms) const {
  return encode({time_ms, Settled{}});
}

Status Salvage::begin(const IsLost& is_lost, Emit emit) {
  emit_ = std::move(emit);
  for (const auto& [id, queue] : ledger_->queues()) {
    for (const auto& [first, frame] : queue.frames) {
      if (is_lost(frame.record)) without_payload_.emplace(id, first);
    }
  }
  return {};
}

void Salvage::hole(std::uint64_t records) {
  if (records == 0) return;
  records_missing_ += records;
  doubtful_.clear();
  for (const auto& [id, queue] : ledger_->queues()) {
    for (const auto& [first, frame] : queue.frames) {
      for (MessageId message = first; message < frame.end(); ++message) {
        if (frame.is_settled(message) || queue.dead.contains(message)) continue;
        doubtful_[id][frame.options_of(message).lane].insert(message);
      }
    }
  }
}

Status Salvage::write(Body body) {
  Record record{ledger_->last_time_ms(), std::move(body)};
  return write(record);
}

Status Salvage::write(Record& record) {
  record.time_ms = std::max(record.time_ms, ledger_->last_time_ms());
  std::string bytes = encode(record);
  const LogIndex index{ledger_->index().value + 1};
  if (Status applied = ledger_->apply(bytes, index); !applied) return applied;
  return emit_(std::move(bytes), record.time_ms);
}

const Queue* Salvage::find(QueueId id) const {
  const auto found = ledger_->queues().find(id);
  return found == ledger_->queues().end() ? nullptr : &found->second;
}

Status Salvage::drop(QueueId queue) {
  ++affected_[queue].records_dropped;
  return {};
}

Result<bool> Salvage::take(std::string_view bytes) {
  auto record = decode(bytes);
  if (!record) return false;
  const Status taken = std::visit([&](auto& body) { return fit(*record, body); }, record->body);
  if (!taken) return taken.error();
  return true;
}

Status Salvage::fit(Record& record, Started& body) {
  body.epoch = std::max(body.epoch, ledger_->epoch());
  return write(record);
}

// Of two queues of one name, the older was deleted.
Status Salvage::fit(Record& record, Created& body) {
  if (const auto older = ledger_->find(body.tenant, body.name)) {
    if (older->value >= body.queue.value) return drop(body.queue);
    if (Status deleted = write(Deleted{*older}); !deleted) return deleted;
  }
  return body.queue < ledger_->next_queue() ? drop(body.queue) : write(record);
}

Status Salvage::fit(Record& record, Configured& body) {
  return find(body.queue) == nullptr ? drop(body.queue) : write(record);
}

Status Salvage::fit(Record& record, Deleted& body) {
  affected_.erase(body.queue);
  doubtful_.erase(body.queue);
  return find(body.queue) == nullptr ? drop(body.queue) : write(record);
}

Status Salvage::fill_gap(const Queue& queue, MessageId end) {
  const QueueId id = queue.id;
  const MessageId begin = queue.next;
  for (MessageId next = begin; next < end;) {
    const std::uint64_t count = std::min<std::uint64_t>(end - next, kFrameMessagesMax);
    auto nothing = Payload::of(std::vector<std::string_view>(count));
    if (!nothing) return nothing.error();
    if (Status written = write(Published{id, next, {}, {}, {}, std::move(*nothing)}); !written) {
      return written;
    }
    if (Status written = write(Settled{id, Outcome::kDiscarded, {{next, count}}}); !written) {
      return written;
    }
    next += count;
  }
  affected_[id].lost.push_back({begin, end - begin});
  return {};
}

Status Salvage::fit(Record& record, Published& body) {
  const Queue* queue = find(body.queue);
  if (queue == nullptr) {
    affected_[body.queue].messages_unknown += body.payload->count();
    return drop(body.queue);
  }
  // No more can be missing than the lost records had room for.
  const bool behind = body.first < queue->next;
  if (behind || (body.first - queue->next) / kFrameMessagesMax > records_missing_) {
    return drop(body.queue);
  }
  if (body.first > queue->next) {
    if (Status filled = fill_gap(*queue, body.first); !filled) return filled;
  }
  return write(record);
}

Status Salvage::fit(Record& record, Carried& body) {
  const Queue* queue = find(body.queue);
  const auto frame = queue == nullptr ? std::map<MessageId, Frame>::const_iterator{}
                                      : queue->frames.find(body.first);
  if (queue == nullptr || frame == queue->frames.end() ||
      frame->second.count != body.payload->count()) {
    return drop(body.queue);
  }
  without_payload_.erase({body.queue, body.first});
  return write(record);
}

// A lane delivers one message at a time, in order. So those before one that was delivered had had
// their turn, unless they have been heard of since the hole.
Status Salvage::clear_the_lanes(const Queue& queue, const Ranges& ranges) {
  const auto lanes = doubtful_.find(queue.id);
  if (lanes == doubtful_.end()) return {};
  Ranges over;
  for (const Range& range : ranges) {
    for (MessageId id = range.first; id < range.end(); ++id) {
      const std::string& name = queue.frame_of(id)->options_of(id).lane;
      const auto lane = lanes->second.find(name);
      if (name.empty() || lane == lanes->second.end()) continue;
      std::set<MessageId>& waiting = lane->second;
      while (!waiting.empty() && *waiting.begin() < id) {
        over.push_back({*waiting.begin(), 1});
        waiting.erase(waiting.begin());
      }
    }
  }
  const Ranges there = live(queue, over);
  if (there.empty()) return {};
  for (const Range& range : there) {
    for (MessageId id = range.first; id < range.end(); ++id) {
      affected_[queue.id].turn_over.insert(id);
    }
  }
  return write(Died{queue.id, std::string(kTurnOver), there});
}

void Salvage::note_proof(const Queue& queue, const Ranges& ranges) {
  const auto lanes = doubtful_.find(queue.id);
  const auto affected = affected_.find(queue.id);
  for (const Range& range : ranges) {
    for (MessageId id = range.first; id < range.end(); ++id) {
      if (affected != affected_.end()) affected->second.turn_over.erase(id);
      if (lanes == doubtful_.end()) continue;
      const auto lane = lanes->second.find(queue.frame_of(id)->options_of(id).lane);
      if (lane != lanes->second.end()) lane->second.erase(id);
    }
  }
}

template <typename OutcomeBody>
Status Salvage::fit_outcome(Record& record, OutcomeBody& body) {
  const Queue* queue = find(body.queue);
  if (queue == nullptr || overlap(body.ranges)) return drop(body.queue);
  Ranges there = live(*queue, body.ranges);
  if (there.empty()) return drop(body.queue);
  body.ranges = std::move(there);
  bool delivered = true;
  if constexpr (std::is_same_v<OutcomeBody, Settled>) {
    delivered = body.outcome == Outcome::kAcked;
  }
  note_proof(*queue, body.ranges);
  if (delivered) {
    // Dead letters aren't: somebody had revived them.
    if (const Ranges revived = dead(*queue, body.ranges); !revived.empty()) {
      if (Status written = write(Revived{queue->id, revived}); !written) return written;
    }
    if (Status cleared = clear_the_lanes(*queue, body.ranges); !cleared) return cleared;
  }
  return write(record);
}

Status Salvage::fit(Record& record, Settled& body) {
  return fit_outcome(record, body);
}

Status Salvage::fit(Record& record, Returned& body) {
  return fit_outcome(record, body);
}

Status Salvage::fit(Record& record, Died& body) {
  return fit_outcome(record, body);
}

// Of those whose death is lost, the same comes: they wait.
Status Salvage::fit(Record& record, Revived& body) {
  const Queue* queue = find(body.queue);
  if (queue == nullptr || overlap(body.ranges)) return drop(body.queue);
  note_proof(*queue, live(*queue, body.ranges));
  body.ranges = dead(*queue, body.ranges);
  return body.ranges.empty() ? drop(body.queue) : write(record);
}

Status Salvage::finish() {
  for (const auto& [id, first] : without_payload_) {
    const Queue* queue = find(id);
    if (queue == nullptr) continue;
    const auto frame = queue->frames.find(first);
    if (frame == queue->frames.end()) continue;
    const Ranges lost = live(*queue, {{first, frame->second.count}});
    for (const Range& range : lost) affected_[id].lost.push_back(range);
    if (Status settled = write(Settled{id, Outcome::kDiscarded, lost}); !settled) return settled;
  }
  // Newer than any that may be lost, so that no lease of old is taken for a new one.
  return write(Started{ledger_->epoch() + 1 + records_missing_});
}

std::uint64_t Salvage::doubtful(const Queue& queue) const {
  std::uint64_t count = 0;
  const auto lanes = doubtful_.find(queue.id);
  if (lanes == doubtful_.end()) return 0;
  for (const auto& [lane, messages] : lanes->second) {
    for (const MessageId id : messages) count += count_of(live(queue, {{id, 1}}));
  }
  return count;
}

void Salvage::tell(std::ostream& out, const journal::SalvageOptions& options,
                   const journal::SalvageCounts& counts) const {
  std::uint64_t dropped = 0;
  for (const auto& [id, affected] : affected_) {
    dropped += affected.records_dropped;
    if (find(id) != nullptr) continue;
    out << "queue number " << id.value << ": its creation is lost, and with it "
        << affected.messages_unknown << " messages whose queue nobody can name\n";
  }
  std::uint64_t again = 0;
  for (const auto& [id, queue] : ledger_->queues()) {
    const std::string name = "queue '" + queue.name + "' of " + queue.tenant + ": ";
    const auto at = affected_.find(id);
    if (at != affected_.end() && !at->second.lost.empty()) {
      out << name << count_of(at->second.lost) << " messages are lost: " << text_of(at->second.lost)
          << "\n";
    }
    if (at != affected_.end() && !at->second.turn_over.empty()) {
      Ranges over;
      for (const MessageId message : at->second.turn_over) append(over, message);
      out << name << count_of(over)
          << " are dead letters now, since what became of them is lost: " << text_of(over) << "\n";
    }
    const std::uint64_t doubt = doubtful(queue);
    again += doubt;
    if (doubt > 0) {
      out << name << doubt << " messages may be delivered though they were settled before\n";
    }
  }
  const Totals totals = ledger_->totals();
  out << (options.dry_run ? "would keep " : "kept ") << counts.kept << " records, of "
      << counts.read << " that can be read; " << counts.lost << " are lost, " << dropped
      << " more make no sense without them\n"
      << "queues: " << ledger_->queues().size() << " with " << totals.messages
      << " messages, of which " << totals.dead << " are dead letters; " << again
      << " may be delivered a second time\n";
  if (counts.lost > 0) {
    out << "messages that were published within a lost range after the last one that is there "
           "leave no trace; settings and deletions of that time are undone\n";
  }
}

Status salvage(journal::FileSystem& file_system, const journal::SalvageOptions& options,
               std::ostream& out) {
  Salvage repair;
  return journal::salvage(file_system, options, repair, out);
}

}  // namespace waystation::queue
