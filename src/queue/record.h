// The records of queues, in the journal of their own. The bytes are in docs/formats/queue.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "queue/payload.h"

namespace waystation::queue {

class Reader;
class Writer;

// One queue of one tenant; never used again for another.
using QueueId = StrongId<struct QueueIdTag>;
// Place of a message in its queue: 1, 2, 3 … in order of publication, without gaps.
using MessageId = std::uint64_t;

struct Range {
  MessageId first = 0;
  std::uint64_t count = 0;
  MessageId end() const { return first + count; }
  bool operator==(const Range&) const = default;
};
using Ranges = std::vector<Range>;

enum class Priority : std::uint8_t { kLow, kNormal, kHigh };
inline constexpr std::size_t kPriorities = 3;

struct MessageOptions {
  std::string lane = {};  // its messages are delivered one at a time, in order; empty: none
  Priority priority = Priority::kNormal;
  TimeMs not_before_ms = 0;  // 0: at once
  TimeMs deadline_ms = 0;    // 0: never
  bool operator==(const MessageOptions&) const = default;
};

struct Settings {
  std::uint32_t attempts_max = 5;  // deliveries that may fail before a message is dead
  TimeMs lease_ms = 30'000;        // when a consumer doesn't say
  bool dead_blocks = false;        // a dead message holds its lane until somebody decides
  bool operator==(const Settings&) const = default;
};

// ---- The records --------------------------------------------------------------------------------

struct Started {  // a server; leases of earlier ones are void
  std::uint64_t epoch = 0;
};
struct Created {
  QueueId queue;
  std::string tenant;
  std::string name;
};
struct Configured {
  QueueId queue;
  Settings settings;
};
struct Deleted {  // the queue and everything in it
  QueueId queue;
};
struct Published {
  QueueId queue;
  MessageId first = 0;
  std::string key = {};                      // of idempotency; empty: none
  std::string fingerprint = {};              // of what was published with the key
  std::vector<MessageOptions> options = {};  // none, one for all, or one each
  PayloadPtr payload;
};
struct Carried {  // the same payloads again, so that an old segment can go
  QueueId queue;
  MessageId first = 0;
  PayloadPtr payload;
};
enum class Outcome : std::uint8_t { kAcked, kExpired, kDiscarded };
struct Settled {  // these are done for ever
  QueueId queue;
  Outcome outcome = Outcome::kAcked;
  Ranges ranges;
};
struct Returned {  // a lease of these ended without an outcome
  QueueId queue;
  bool counts = true;  // as a failed attempt
  TimeMs not_before_ms = 0;
  Ranges ranges;
};
struct Died {  // their attempts are used up, or a consumer said so
  QueueId queue;
  std::string reason;
  Ranges ranges;
};
struct Revived {  // dead ones are to be delivered again, as if for the first time
  QueueId queue;
  Ranges ranges;
};
using Body = std::variant<Started, Created, Configured, Deleted, Published, Carried, Settled,
                          Returned, Died, Revived>;

struct Record {
  TimeMs time_ms = 0;
  Body body;
};

std::string encode(const Record& record);
// kCorruption when it isn't a record.
Result<Record> decode(std::string_view bytes);

// A Published record is made before its place is known, outside of any lock; these fill it in.
std::string encode_published(std::string_view key, std::string_view fingerprint,
                             const std::vector<MessageOptions>& options, const Payload& payload);
void place_published(std::string& record, QueueId queue, MessageId first, TimeMs time_ms);

void write_options(Writer& writer, const std::vector<MessageOptions>& options);
std::vector<MessageOptions> read_options(Reader& reader);
void write_settings(Writer& writer, const Settings& settings);
Settings read_settings(Reader& reader);

}  // namespace waystation::queue
