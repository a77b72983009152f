// Which messages of a queue may be delivered, and which of them first. Made of the queue's durable
// state when a server starts, kept in step afterwards, never stored.
//
//                    ┌──────────── add ─────────────┐
//   add ─▶ waiting in its lane ─▶ delayed ─▶ ready ─▶ take ─▶ (a consumer has it) ─▶ done
//              (lanes only)       (if so)                          │
//                                    ▲─────────── add ─────────────┘
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "queue/record.h"

namespace waystation::queue {

// A step of priority is worth this many messages of the queue, so that one of low priority waits
// long, but not for ever.
inline constexpr std::int64_t kMessagesPerStep = 1'000'000;

// Owned and called by the ledger. Deterministic.
class Schedule {
 public:
  // Messages without a lane, a delay or a deadline.
  void add(Range range, Priority priority) { ready_[index(priority)].insert(range); }
  // Any message: a new one, or one that came back. In a lane it takes its place by its number, or
  // the turn that it has already.
  void add(MessageId id, const MessageOptions& options, TimeMs not_before_ms);
  // It is finished: the next of its lane may go.
  void done(MessageId id, const MessageOptions& options);
  // Dead, and nothing of its lane goes before somebody decides about it. done() or add() ends that.
  void block(MessageId id, const MessageOptions& options);
  // One that nobody has: takes it out, wherever it stands.
  void remove(MessageId id, const MessageOptions& options);

  struct Front {
    Range range;  // without gaps, all of one priority
    Priority priority = Priority::kNormal;
  };
  std::optional<Front> front() const;
  // A consumer gets the first `count` of the front.
  void take(const Front& front, std::uint64_t count);
  // Before take(), for messages with a deadline: a lease outlives it.
  void stop_clock(MessageId id, const MessageOptions& options) {
    if (options.deadline_ms != 0) deadlines_.erase({options.deadline_ms, id});
  }

  // Delayed ones become ready. True when some did.
  bool tick(TimeMs now_ms);
  // Those past their deadline that nobody has; each is told once.
  void expired(TimeMs now_ms, std::vector<MessageId>& out);
  // When tick() or expired() has something to do; 0: never.
  TimeMs next_ms() const;

 private:
  // Numbers as runs without gaps.
  class Runs {
   public:
    void insert(Range range);
    bool erase(MessageId id);
    bool empty() const { return runs_.empty(); }
    Range front() const { return {runs_.begin()->first, runs_.begin()->second}; }
    void take(std::uint64_t count);

   private:
    std::map<MessageId, std::uint64_t> runs_;  // first → count
  };
  struct Waiting {
    Priority priority = Priority::kNormal;
    TimeMs not_before_ms = 0;
  };
  struct Lane {
    MessageId current = 0;  // ready, delayed, at a consumer, or dead and blocking; 0: none
    std::map<MessageId, Waiting> waiting;
  };

  static std::size_t index(Priority priority) { return static_cast<std::size_t>(priority); }
  void place(MessageId id, const Waiting& how);
  void promote(Lane& lane);

  std::array<Runs, kPriorities> ready_;
  std::unordered_map<std::string, Lane> lanes_;
  std::set<std::pair<TimeMs, MessageId>> delayed_;
  std::unordered_map<MessageId, Waiting> delays_;  // of the delayed ones
  std::set<std::pair<TimeMs, MessageId>> deadlines_;
};

}  // namespace waystation::queue
