#include "queue/record.h"

#include "queue/bytes.h"

namespace waystation::queue {
namespace {

// The first byte of a record is the place of its body in the variant, from 1.
constexpr std::size_t kQueueAt = 9;  // after the type and the time, as are the two below
constexpr std::size_t kFirstAt = 17;

void write_ranges(Writer& writer, const Ranges& ranges) {
  writer.varint(ranges.size());
  for (const Range& range : ranges) {
    writer.varint(range.first);
    writer.varint(range.count);
  }
}

Ranges read_ranges(Reader& reader) {
  Ranges ranges;
  for (std::uint64_t left = reader.varint(); left > 0 && reader.good(); --left) {
    Range range;
    range.first = reader.varint();
    range.count = reader.varint();
    if (range.first == 0 || range.count == 0 || range.end() < range.first) reader.fail();
    ranges.push_back(range);
  }
  return ranges;
}

void write(Writer& writer, const Started& body) {
  writer.varint(body.epoch);
}
void read(Reader& reader, Started& body) {
  body.epoch = reader.varint();
}

void write(Writer& writer, const Created& body) {
  writer.u64(body.queue.value);
  writer.text(body.tenant);
  writer.text(body.name);
}
void read(Reader& reader, Created& body) {
  body.queue.value = reader.u64();
  body.tenant = reader.text();
  body.name = reader.text();
}

void write(Writer& writer, const Configured& body) {
  writer.u64(body.queue.value);
  write_settings(writer, body.settings);
}
void read(Reader& reader, Configured& body) {
  body.queue.value = reader.u64();
  body.settings = read_settings(reader);
}

void write(Writer& writer, const Deleted& body) {
  writer.u64(body.queue.value);
}
void read(Reader& reader, Deleted& body) {
  body.queue.value = reader.u64();
}

void read_payload(Reader& reader, PayloadPtr& payload) {
  auto parsed = Payload::parse(std::string(reader.rest()));
  if (parsed) {
    payload = std::move(*parsed);
  } else {
    reader.fail();
  }
}

void write_published(Writer& writer, std::string_view key, std::string_view fingerprint,
                     const std::vector<MessageOptions>& options, const Payload& payload) {
  writer.text(key);
  writer.text(fingerprint);
  write_options(writer, options);
  writer.raw(payload.bytes());
}

void write(Writer& writer, const Published& body) {
  writer.u64(body.queue.value);
  writer.u64(body.first);
  write_published(writer, body.key, body.fingerprint, body.options, *body.payload);
}
void read(Reader& reader, Published& body) {
  body.queue.value = reader.u64();
  body.first = reader.u64();
  body.key = reader.text();
  body.fingerprint = reader.text();
  body.options = read_options(reader);
  read_payload(reader, body.payload);
  if (body.options.size() > 1 && body.payload && body.options.size() != body.payload->count()) {
    reader.fail();
  }
}

void write(Writer& writer, const Carried& body) {
  writer.u64(body.queue.value);
  writer.u64(body.first);
  writer.raw(body.payload->bytes());
}
void read(Reader& reader, Carried& body) {
  body.queue.value = reader.u64();
  body.first = reader.u64();
  read_payload(reader, body.payload);
}

void write(Writer& writer, const Settled& body) {
  writer.u64(body.queue.value);
  writer.u8(static_cast<std::uint8_t>(body.outcome));
  write_ranges(writer, body.ranges);
}
void read(Reader& reader, Settled& body) {
  body.queue.value = reader.u64();
  body.outcome = static_cast<Outcome>(reader.u8());
  body.ranges = read_ranges(reader);
}

void write(Writer& writer, const Returned& body) {
  writer.u64(body.queue.value);
  writer.u8(body.counts ? 1 : 0);
  writer.varint(static_cast<std::uint64_t>(body.not_before_ms));
  write_ranges(writer, body.ranges);
}
void read(Reader& reader, Returned& body) {
  body.queue.value = reader.u64();
  body.counts = reader.u8() != 0;
  body.not_before_ms = reader.time();
  body.ranges = read_ranges(reader);
}

void write(Writer& writer, const Died& body) {
  writer.u64(body.queue.value);
  writer.text(body.reason);
  write_ranges(writer, body.ranges);
}
void read(Reader& reader, Died& body) {
  body.queue.value = reader.u64();
  body.reason = reader.text();
  body.ranges = read_ranges(reader);
}

void write(Writer& writer, const Revived& body) {
  writer.u64(body.queue.value);
  write_ranges(writer, body.ranges);
}
void read(Reader& reader, Revived& body) {
  body.queue.value = reader.u64();
  body.ranges = read_ranges(reader);
}

template <std::size_t I = 0>
bool read_body(std::size_t type, Reader& reader, Body& body) {
  if constexpr (I == std::variant_size_v<Body>) {
    return false;
  } else {
    if (type != I) return read_body<I + 1>(type, reader, body);
    read(reader, body.emplace<I>());
    return true;
  }
}

}  // namespace

void write_options(Writer& writer, const std::vector<MessageOptions>& options) {
  writer.varint(options.size());
  for (const MessageOptions& each : options) {
    writer.text(each.lane);
    writer.u8(static_cast<std::uint8_t>(each.priority));
    writer.varint(static_cast<std::uint64_t>(each.not_before_ms));
    writer.varint(static_cast<std::uint64_t>(each.deadline_ms));
  }
}

std::vector<MessageOptions> read_options(Reader& reader) {
  std::vector<MessageOptions> options;
  for (std::uint64_t left = reader.varint(); left > 0 && reader.good(); --left) {
    MessageOptions& each = options.emplace_back();
    each.lane = reader.text();
    const std::uint8_t priority = reader.u8();
    if (priority >= kPriorities) reader.fail();
    each.priority = static_cast<Priority>(priority % kPriorities);
    each.not_before_ms = reader.time();
    each.deadline_ms = static_cast<TimeMs>(reader.varint());  // as far away as it was given
  }
  return options;
}

void write_settings(Writer& writer, const Settings& settings) {
  writer.varint(settings.attempts_max);
  writer.varint(static_cast<std::uint64_t>(settings.lease_ms));
  writer.u8(settings.dead_blocks ? 1 : 0);
}

Settings read_settings(Reader& reader) {
  Settings settings;
  settings.attempts_max = static_cast<std::uint32_t>(reader.varint());
  settings.lease_ms = reader.time();
  settings.dead_blocks = reader.u8() != 0;
  return settings;
}

std::string encode(const Record& record) {
  std::string out;
  Writer writer(out);
  writer.u8(static_cast<std::uint8_t>(record.body.index() + 1));
  writer.u64(static_cast<std::uint64_t>(record.time_ms));
  std::visit([&](const auto& body) { write(writer, body); }, record.body);
  return out;
}

std::string encode_published(std::string_view key, std::string_view fingerprint,
                             const std::vector<MessageOptions>& options, const Payload& payload) {
  std::string out;
  out.reserve(payload.bytes().size() + key.size() + fingerprint.size() + 64);
  Writer writer(out);
  writer.u8(static_cast<std::uint8_t>(Body(Published{}).index() + 1));
  for (int i = 0; i < 3; ++i) writer.u64(0);
  write_published(writer, key, fingerprint, options, payload);
  return out;
}

void place_published(std::string& record, QueueId queue, MessageId first, TimeMs time_ms) {
  Writer::put_u64(record, 1, static_cast<std::uint64_t>(time_ms));
  Writer::put_u64(record, kQueueAt, queue.value);
  Writer::put_u64(record, kFirstAt, first);
}

Result<Record> decode(std::string_view bytes) {
  Reader reader(bytes);
  Record record;
  const std::size_t type = reader.u8();
  record.time_ms = reader.time(reader.u64());
  const bool known = type > 0 && read_body(type - 1, reader, record.body);
  if (!known || !reader.good() || !reader.at_end()) {
    return Error{Code::kCorruption, "a record of the queues' journal can't be read (type " +
                                        std::to_string(type) + "); it may be of a newer version"};
  }
  return record;
}

}  // namespace waystation::queue
