#include "queue/schedule.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace waystation::queue {

void Schedule::Runs::insert(Range range) {
  auto next = runs_.lower_bound(range.first);
  if (next != runs_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == range.first) {
      before->second += range.count;
      if (next != runs_.end() && next->first == before->first + before->second) {
        before->second += next->second;
        runs_.erase(next);
      }
      return;
    }
  }
  if (next != runs_.end() && next->first == range.end()) {
    range.count += next->second;
    next = runs_.erase(next);
  }
  runs_.emplace_hint(next, range.first, range.count);
}

bool Schedule::Runs::erase(MessageId id) {
  auto after = runs_.upper_bound(id);
  if (after == runs_.begin()) return false;
  const auto at = std::prev(after);
  const MessageId end = at->first + at->second;
  if (id >= end) return false;
  if (id + 1 < end) runs_.emplace_hint(after, id + 1, end - id - 1);
  if (id == at->first) {
    runs_.erase(at);
  } else {
    at->second = id - at->first;
  }
  return true;
}

void Schedule::Runs::take(std::uint64_t count) {
  const auto [first, size] = *runs_.begin();
  CHECK(count <= size);
  runs_.erase(runs_.begin());
  if (count < size) runs_.emplace_hint(runs_.begin(), first + count, size - count);
}

void Schedule::add(MessageId id, const MessageOptions& options, TimeMs not_before_ms) {
  if (options.deadline_ms != 0) deadlines_.emplace(options.deadline_ms, id);
  const Waiting how{options.priority, not_before_ms};
  if (options.lane.empty()) return place(id, how);
  Lane& lane = lanes_[options.lane];
  if (lane.current == id) return place(id, how);
  lane.waiting.emplace(id, how);
  if (lane.current == 0) promote(lane);
}

void Schedule::done(MessageId id, const MessageOptions& options) {
  if (options.lane.empty()) return;
  const auto at = lanes_.find(options.lane);
  if (at == lanes_.end() || at->second.current != id) return;
  at->second.current = 0;
  if (at->second.waiting.empty()) {
    lanes_.erase(at);
  } else {
    promote(at->second);
  }
}

void Schedule::block(MessageId id, const MessageOptions& options) {
  if (!options.lane.empty()) lanes_[options.lane].current = id;
}

void Schedule::remove(MessageId id, const MessageOptions& options) {
  stop_clock(id, options);
  const auto delay = delays_.find(id);
  if (delay != delays_.end()) {
    delayed_.erase({delay->second.not_before_ms, id});
    delays_.erase(delay);
  } else {
    ready_[index(options.priority)].erase(id);
  }
  if (options.lane.empty()) return;
  const auto lane = lanes_.find(options.lane);
  if (lane != lanes_.end()) lane->second.waiting.erase(id);
  done(id, options);
}

std::optional<Schedule::Front> Schedule::front() const {
  std::optional<Front> best;
  std::int64_t best_place = 0;
  for (std::size_t level = 0; level < kPriorities; ++level) {
    if (ready_[level].empty()) continue;
    const Range range = ready_[level].front();
    const std::int64_t place = static_cast<std::int64_t>(range.first) -
                               static_cast<std::int64_t>(level) * kMessagesPerStep;
    if (best && place >= best_place) continue;
    best = Front{range, static_cast<Priority>(level)};
    best_place = place;
  }
  return best;
}

void Schedule::take(const Front& front, std::uint64_t count) {
  ready_[index(front.priority)].take(count);
}

bool Schedule::tick(TimeMs now_ms) {
  bool some = false;
  while (!delayed_.empty() && delayed_.begin()->first <= now_ms) {
    const MessageId id = delayed_.begin()->second;
    delayed_.erase(delayed_.begin());
    const auto delay = delays_.find(id);
    ready_[index(delay->second.priority)].insert({id, 1});
    delays_.erase(delay);
    some = true;
  }
  return some;
}

void Schedule::expired(TimeMs now_ms, std::vector<MessageId>& out) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_ms) {
    out.push_back(deadlines_.begin()->second);
    deadlines_.erase(deadlines_.begin());
  }
}

TimeMs Schedule::next_ms() const {
  TimeMs next = 0;
  if (!delayed_.empty()) next = delayed_.begin()->first;
  if (!deadlines_.empty() && (next == 0 || deadlines_.begin()->first < next)) {
    next = deadlines_.begin()->first;
  }
  return next;
}

void Schedule::place(MessageId id, const Waiting& how) {
  if (how.not_before_ms == 0) {
    ready_[index(how.priority)].insert({id, 1});
    return;
  }
  delayed_.emplace(how.not_before_ms, id);
  delays_.emplace(id, how);
}

void Schedule::promote(Lane& lane) {
  const auto first = lane.waiting.begin();
  lane.current = first->first;
  place(first->first, first->second);
  lane.waiting.erase(first);
}

}  // namespace waystation::queue
