// The durable state as bytes and back, and what may be asked of it.
#include <algorithm>
#include <iterator>

#include "base/utf8.h"
#include "queue/bytes.h"
#include "queue/ledger.h"

namespace waystation::queue {
namespace {

constexpr std::uint8_t kSnapshotVersion = 1;

std::string_view bytes_of(const std::vector<std::uint8_t>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size()};
}

std::vector<std::uint8_t> each_of(Reader& reader, std::uint32_t count) {
  const std::string_view bytes = reader.text();
  if (!bytes.empty() && bytes.size() != count) reader.fail();
  return {bytes.begin(), bytes.end()};
}

void write_frame(Writer& writer, const Frame& frame) {
  writer.varint(frame.first);
  writer.varint(frame.count);
  writer.varint(frame.record.value);
  writer.varint(frame.bytes);
  writer.varint(static_cast<std::uint64_t>(frame.published_ms));
  write_options(writer, frame.options);
  writer.text(bytes_of(frame.settled));
  writer.text(bytes_of(frame.failures));
}

// A frame that the ledger can have made, of messages from `least` to before `end`.
Frame read_frame(Reader& reader, MessageId least, MessageId end) {
  Frame frame;
  frame.first = reader.varint();
  const std::uint64_t count = reader.varint();
  frame.record.value = reader.varint();
  frame.bytes = reader.varint();
  frame.published_ms = reader.time();
  frame.options = read_options(reader);
  if (frame.first < least || frame.first >= end || count == 0 || count > kFrameMessagesMax ||
      count > end - frame.first || frame.record.value == 0 || frame.bytes > kFrameBytesMax) {
    reader.fail();
    return frame;
  }
  frame.count = static_cast<std::uint32_t>(count);
  frame.settled = each_of(reader, frame.count);
  frame.failures = each_of(reader, frame.count);
  if (frame.options.size() > 1 && frame.options.size() != frame.count) reader.fail();
  if (std::ranges::any_of(frame.settled, [](std::uint8_t flag) { return flag > 1; })) reader.fail();
  frame.live = frame.count - static_cast<std::uint32_t>(
                                 std::count(frame.settled.begin(), frame.settled.end(), 1));
  if (frame.live == 0) reader.fail();
  return frame;
}

}  // namespace

void Ledger::write_queue(Writer& writer, const Queue& queue) const {
  writer.varint(queue.id.value);
  writer.text(queue.tenant);
  writer.text(queue.name);
  write_settings(writer, queue.settings);
  writer.varint(queue.next);
  writer.varint(queue.frames.size());
  for (const auto& [first, frame] : queue.frames) write_frame(writer, frame);
  writer.varint(queue.dead.size());
  for (const auto& [id, letter] : queue.dead) {
    writer.varint(id);
    writer.text(letter.reason);
    writer.varint(static_cast<std::uint64_t>(letter.died_ms));
    writer.u8(letter.blocks ? 1 : 0);
  }
  writer.varint(queue.not_before.size());
  for (const auto& [id, time_ms] : queue.not_before) {
    writer.varint(id);
    writer.varint(static_cast<std::uint64_t>(time_ms));
  }
  // Past their time they bind no more, and who forgot them when is of no account; nor does one that
  // was bound again since.
  const auto binds = [&](const auto& each) {
    return each.first + limits_.key_ttl_ms > last_time_ms_ &&
           queue.keys.at(each.second).time_ms == each.first;
  };
  writer.varint(static_cast<std::uint64_t>(
      std::count_if(queue.key_order.begin(), queue.key_order.end(), binds)));
  for (const auto& each : queue.key_order) {
    if (!binds(each)) continue;
    const BoundKey& bound = queue.keys.at(each.second);
    writer.text(each.second);
    writer.text(bound.fingerprint);
    writer.varint(bound.first);
    writer.varint(bound.count);
    writer.varint(static_cast<std::uint64_t>(bound.time_ms));
  }
}

void Ledger::read_queue(Reader& reader) {
  Queue queue;
  queue.id.value = reader.varint();
  queue.tenant = reader.text();
  queue.name = reader.text();
  queue.settings = read_settings(reader);
  queue.next = reader.varint();
  const bool is_new = !queues_.contains(queue.id) && queue.id.value < next_queue_ &&
                      !names_.contains({queue.tenant, queue.name});
  if (!is_new || queue.next == 0) reader.fail();
  MessageId least = 1;
  for (auto left = reader.varint(); left > 0 && reader.good(); --left) {
    Frame frame = read_frame(reader, least, queue.next);
    if (!reader.good()) break;
    least = frame.end();
    queue.live += frame.live;
    queue.bytes += frame.bytes;
    if (!by_record_.emplace(frame.record, std::pair{queue.id, frame.first}).second) reader.fail();
    const MessageId first = frame.first;
    queue.frames.emplace_hint(queue.frames.end(), first, std::move(frame));
  }
  // Nothing more is kept of what is settled.
  const auto is_live = [&queue](MessageId id) {
    const Frame* frame = queue.frame_of(id);
    return frame != nullptr && !frame->is_settled(id);
  };
  for (auto left = reader.varint(); left > 0 && reader.good(); --left) {
    const MessageId id = reader.varint();
    DeadLetter& letter = queue.dead[id];
    letter.reason = reader.text();
    letter.died_ms = reader.time();
    letter.blocks = reader.u8() != 0;
    if (!is_live(id)) reader.fail();
  }
  for (auto left = reader.varint(); left > 0 && reader.good(); --left) {
    const MessageId id = reader.varint();
    queue.not_before[id] = reader.time();
    if (!is_live(id)) reader.fail();
  }
  for (auto left = reader.varint(); left > 0 && reader.good(); --left) {
    std::string key(reader.text());
    const auto [at, is_first] = queue.keys.try_emplace(key);
    if (!is_first) reader.fail();
    BoundKey& bound = at->second;
    bound.fingerprint = reader.text();
    bound.first = reader.varint();
    bound.count = reader.varint();
    bound.time_ms = reader.time();
    queue.key_order.emplace_back(bound.time_ms, std::move(key));
  }
  if (!reader.good()) return;
  totals_.messages += queue.live;
  totals_.bytes += queue.bytes;
  totals_.dead += queue.dead.size();
  totals_.keys += queue.keys.size();
  names_[{queue.tenant, queue.name}] = queue.id;
  queues_[queue.id] = std::move(queue);
}

std::string Ledger::snapshot() const {
  std::string out;
  Writer writer(out);
  writer.u8(kSnapshotVersion);
  writer.varint(epoch_);
  writer.varint(next_queue_);
  writer.varint(static_cast<std::uint64_t>(last_time_ms_));
  writer.varint(queues_.size());
  for (const auto& [id, queue] : queues_) write_queue(writer, queue);
  return out;
}

Status Ledger::restore(std::string_view snapshot, LogIndex index) {
  Reader reader(snapshot);
  const std::uint8_t version = reader.u8();
  if (version != kSnapshotVersion) {
    return Error{Code::kCorruption, "the queues' checkpoint is of version " +
                                        std::to_string(version) + ", which this server can't read"};
  }
  epoch_ = reader.varint();
  next_queue_ = reader.varint();
  last_time_ms_ = reader.time();
  index_ = index;
  for (auto left = reader.varint(); left > 0 && reader.good(); --left) {
    read_queue(reader);
  }
  if (!reader.good() || !reader.at_end()) {
    return Error{Code::kCorruption, "the queues' checkpoint can't be read"};
  }
  return {};
}

// ---- Questions ----------------------------------------------------------------------------------

Queue* Ledger::queue_of(QueueId id) {
  const auto found = queues_.find(id);
  return found == queues_.end() ? nullptr : &found->second;
}
const Queue* Ledger::queue_of(QueueId id) const {
  return const_cast<Ledger*>(this)->queue_of(id);
}

Result<QueueId> Ledger::find(const std::string& tenant, const std::string& name) const {
  const auto found = names_.find({tenant, name});
  if (found != names_.end()) return found->second;
  return Error{Code::kNotFound, "there is no queue '" + utf8_prefix(name, 128) + "'", "name"};
}

QueueInfo Ledger::info(QueueId id) const {
  const Queue& queue = *queue_of(id);
  QueueInfo info;
  info.name = queue.name;
  info.settings = queue.settings;
  info.leased = queue.leased;
  info.dead = queue.dead.size();
  info.waiting = queue.live - info.leased - info.dead;
  info.bytes = queue.bytes;
  info.published = queue.next - 1;
  for (const auto& [first, frame] : queue.frames) {
    const auto dead =
        std::distance(queue.dead.lower_bound(first), queue.dead.lower_bound(frame.end()));
    if (static_cast<std::ptrdiff_t>(frame.live) == dead) continue;
    info.oldest_ms = frame.published_ms;
    break;
  }
  return info;
}

std::vector<QueueInfo> Ledger::list(const std::string& tenant) const {
  std::vector<QueueInfo> infos;
  for (auto at = names_.lower_bound({tenant, ""}); at != names_.end() && at->first.first == tenant;
       ++at) {
    infos.push_back(info(at->second));
  }
  return infos;
}

std::vector<DeadEntry> Ledger::dead_letters(QueueId id, MessageId after,
                                            std::size_t count_max) const {
  const Queue& queue = *queue_of(id);
  std::vector<DeadEntry> entries;
  for (auto at = queue.dead.upper_bound(after);
       at != queue.dead.end() && entries.size() < count_max; ++at) {
    const Frame& frame = *queue.frame_of(at->first);
    entries.push_back({at->first, at->second.reason, frame.options_of(at->first).lane,
                       frame.failures_of(at->first), frame.published_ms, at->second.died_ms,
                       frame.record, static_cast<std::uint32_t>(at->first - frame.first)});
  }
  return entries;
}

Totals Ledger::totals() const {
  return totals_;
}

std::vector<Cold> Ledger::cold(QueueId id, std::uint64_t bytes_max) const {
  std::vector<Cold> wanted;
  const Queue* queue = queue_of(id);
  const auto front = queue == nullptr ? std::nullopt : queue->schedule.front();
  if (!front) return wanted;
  std::uint64_t bytes = 0;
  for (auto at = queue->frames.find(queue->frame_of(front->range.first)->first);
       at != queue->frames.end() && !at->second.payload && (bytes < bytes_max || wanted.empty());
       ++at) {
    wanted.push_back({id, at->first, at->second.record, at->second.bytes});
    bytes += at->second.bytes;
  }
  return wanted;
}

void Ledger::warm(QueueId id, MessageId first, PayloadPtr payload) {
  Queue* queue = queue_of(id);
  Frame* frame = queue == nullptr ? nullptr : queue->frame_of(first);
  if (frame == nullptr || frame->payload || frame->count != payload->count()) return;
  frame->payload = std::move(payload);
  queue->memory_bytes += frame->bytes;
  totals_.memory_bytes += frame->bytes;
}

std::vector<Cold> Ledger::stored_below(LogIndex index, std::uint64_t bytes_max) const {
  std::vector<Cold> found;
  std::uint64_t bytes = 0;
  for (const auto& [record, place] : by_record_) {
    if (record >= index || (bytes >= bytes_max && !found.empty())) break;
    const Frame& frame = *queue_of(place.first)->frame_of(place.second);
    found.push_back({place.first, place.second, record, frame.bytes});
    bytes += frame.bytes;
  }
  return found;
}

LogIndex Ledger::oldest_needed() const {
  return by_record_.empty() ? LogIndex{} : by_record_.begin()->first;
}

}  // namespace waystation::queue
