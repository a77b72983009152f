// What the ledger keeps and tells: queues, their frames, leases, receipts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "queue/record.h"
#include "queue/schedule.h"

namespace waystation::queue {

// Bounds on what may be accepted. They bind commands, never `apply`.
struct Limits {
  std::uint64_t queue_messages_max = 1'000'000;  // of one queue, dead ones too
  std::uint64_t queue_bytes_max = 2ull << 30;
  std::uint64_t messages_max = 4'000'000;  // of all queues
  std::uint64_t bytes_max = 8ull << 30;
  std::size_t queues_max = 10'000;
  std::size_t tenant_queues_max = 1'000;
  std::size_t keys_max = 1'000'000;      // of all queues
  TimeMs key_ttl_ms = 24 * 3600 * 1000;  // how long an idempotency key binds
  // Payloads in memory; others are read back. What is left of the double is for queues that have
  // little there, so that one that nobody drains doesn't slow the others down.
  std::uint64_t memory_bytes_max = 256ull << 20;
  std::uint64_t queue_memory_bytes_min = 16ull << 20;
};

using ConsumerId = StrongId<struct ConsumerIdTag>;

// Messages that were published together, as a publisher gives them.
struct Publication {
  PayloadPtr payload;
  std::vector<MessageOptions> options = {};  // none, one for all, or one each
  std::string key = {};
  std::string fingerprint = {};
  std::string record = {};  // encode_published() of all this; made when it is empty
};

struct Receipt {
  MessageId first = 0;
  std::uint64_t count = 0;
  bool duplicate = false;  // the earlier ones of the same key
};

struct TakeLimits {
  std::uint64_t messages = 1;
  std::uint64_t bytes = 1u << 20;  // one message is taken even when it has more
};

// Messages of one frame that are delivered for the same time.
struct Piece {
  MessageId first = 0;
  std::uint32_t count = 0;
  std::uint32_t attempt = 1;
  std::uint32_t at = 0;  // in the payload
  TimeMs published_ms = 0;
  PayloadPtr payload;
};

struct Taken {
  std::uint64_t lease = 0;  // 0: nothing
  TimeMs until_ms = 0;
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  std::vector<Piece> pieces;
  bool cold = false;  // the next ones must be read from the journal first
};

// A lease, and who asks: only its own tenant's queue of this name.
struct LeaseKey {
  QueueId queue;
  std::uint64_t lease = 0;
};

// Where the payloads of a frame are.
struct Cold {
  QueueId queue;
  MessageId first = 0;
  LogIndex record;
  std::uint64_t bytes = 0;
};

struct DeadEntry {
  MessageId id = 0;
  std::string reason;
  std::string lane;
  std::uint32_t attempts = 0;
  TimeMs published_ms = 0;
  TimeMs died_ms = 0;
  LogIndex record;  // holds its payload
  std::uint32_t at = 0;
};

struct QueueInfo {
  std::string name;
  Settings settings;
  std::uint64_t waiting = 0;  // for a consumer, for their time, or for their lane
  std::uint64_t leased = 0;
  std::uint64_t dead = 0;
  std::uint64_t bytes = 0;
  MessageId published = 0;  // messages ever
  TimeMs oldest_ms = 0;     // when the oldest that is neither settled nor dead was published
};

struct Totals {
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  std::uint64_t leased = 0;
  std::uint64_t dead = 0;
  std::uint64_t memory_bytes = 0;  // of payloads
  std::uint64_t keys = 0;
};

// Messages that were published together. What is usual costs nothing per message.
struct Frame {
  MessageId first = 0;
  std::uint32_t count = 0;
  std::uint32_t live = 0;  // not settled
  LogIndex record;         // where its payloads are
  std::uint64_t bytes = 0;
  TimeMs published_ms = 0;
  PayloadPtr payload;                        // null: to be read from the journal
  std::vector<MessageOptions> options = {};  // none, one for all, or one each
  std::vector<std::uint8_t> settled = {};    // each; none: no message is
  std::vector<std::uint8_t> failures = {};   // each: attempts that failed; none: no message's did

  MessageId end() const { return first + count; }
  bool is_plain() const {
    return options.empty() || (options.size() == 1 && options[0].lane.empty() &&
                               options[0].not_before_ms == 0 && options[0].deadline_ms == 0);
  }
  const MessageOptions& options_of(MessageId id) const {
    static const MessageOptions kUsual;
    if (options.empty()) return kUsual;
    return options.size() == 1 ? options[0] : options[id - first];
  }
  bool is_settled(MessageId id) const { return !settled.empty() && settled[id - first] != 0; }
  std::uint32_t failures_of(MessageId id) const {
    return failures.empty() ? 0 : failures[id - first];
  }
};

struct DeadLetter {
  std::string reason;
  TimeMs died_ms = 0;
  bool blocks = false;  // its lane
};

struct BoundKey {
  std::string fingerprint;
  MessageId first = 0;
  std::uint64_t count = 0;
  TimeMs time_ms = 0;
};

struct Queue {
  QueueId id;
  std::string tenant;
  std::string name;
  Settings settings;
  MessageId next = 1;
  std::uint64_t live = 0;  // not settled
  std::uint64_t bytes = 0;
  std::map<MessageId, Frame> frames;  // by first
  std::map<MessageId, DeadLetter> dead;
  std::map<MessageId, TimeMs> not_before;  // of those that a consumer gave back for later
  std::map<std::string, BoundKey> keys;
  std::deque<std::pair<TimeMs, std::string>> key_order;

  // Not durable.
  std::uint64_t leased = 0;
  std::uint64_t memory_bytes = 0;  // of payloads
  Schedule schedule;

  Frame* frame_of(MessageId message) {
    auto at = frames.upper_bound(message);
    if (at == frames.begin()) return nullptr;
    --at;
    return message < at->second.end() ? &at->second : nullptr;
  }
  const Frame* frame_of(MessageId message) const {
    return const_cast<Queue*>(this)->frame_of(message);
  }
};

struct Lease {
  QueueId queue;
  ConsumerId consumer;
  TimeMs until_ms = 0;
  Ranges ranges;  // ascending, not touching, except where priorities changed the order
};

}  // namespace waystation::queue
