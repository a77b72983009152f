// Distinct types for the numbers and names that must never be mixed up.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace waystation {

// Milliseconds since the Unix epoch (wall) or since an arbitrary start (steady).
using TimeMs = std::int64_t;

// A number with a name of its own. Ordered, hashable, not convertible to another id.
template <typename Tag>
struct StrongId {
  std::uint64_t value = 0;
  auto operator<=>(const StrongId&) const = default;
};

// Position of a record in the journal; the first record ever is 1, 0 means "none".
using LogIndex = StrongId<struct LogIndexTag>;
// One start of a server. Made durable before any worker joins.
using Epoch = StrongId<struct EpochTag>;
// One connected worker, unique within an epoch.
using WorkerId = StrongId<struct WorkerIdTag>;
// Number of an event within its request, from 0 and without gaps.
using Sequence = std::uint64_t;

// A request's id: a UUIDv7 (RFC 9562), so ids sort by the time of acceptance.
struct RequestId {
  std::array<std::uint8_t, 16> bytes{};

  auto operator<=>(const RequestId&) const = default;

  // 36 lower-case characters, "0190f0c2-…".
  std::string to_string() const;
  // The 16 raw bytes, as stored in records.
  std::string to_bytes() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
  // The creation time that the id carries, wall milliseconds.
  TimeMs time_ms() const;

  static std::optional<RequestId> parse(std::string_view text);
  static std::optional<RequestId> from_bytes(std::string_view raw);
  // `entropy` supplies the random 74 bits.
  static RequestId make(TimeMs now_ms, std::uint64_t entropy_high, std::uint64_t entropy_low);
};

}  // namespace waystation

template <typename Tag>
struct std::hash<waystation::StrongId<Tag>> {
  std::size_t operator()(waystation::StrongId<Tag> id) const noexcept {
    return std::hash<std::uint64_t>{}(id.value);
  }
};

template <>
struct std::hash<waystation::RequestId> {
  std::size_t operator()(const waystation::RequestId& id) const noexcept {
    return std::hash<std::string_view>{}(
        {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()});
  }
};
