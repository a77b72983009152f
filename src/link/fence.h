// A fence as a key: which attempts a session has in flight. The epoch is the session's own and is
// compared apart.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

#include "message/proto/link.pb.h"

namespace waystation::link {

struct FenceKey {
  std::string request;  // 16 raw bytes
  std::uint32_t attempt = 0;
  auto operator<=>(const FenceKey&) const = default;
};

inline FenceKey key_of(const v1::Fence& fence) { return {fence.request(), fence.attempt()}; }

inline v1::Fence fence_of(std::uint64_t epoch, const FenceKey& key) {
  v1::Fence fence;
  fence.set_epoch(epoch);
  fence.set_request(key.request);
  fence.set_attempt(key.attempt);
  return fence;
}

// How many of the three endings an output has. One ends its attempt; more is an error. (A choice that
// finishes while others go on ends nothing.)
inline int endings_of(const v1::Output& output) {
  return (output.finish_reason().empty() || output.more() ? 0 : 1) + (output.has_failure() ? 1 : 0) +
         (output.dropped() ? 1 : 0);
}

struct FenceKeyHash {
  std::size_t operator()(const FenceKey& key) const noexcept {
    return std::hash<std::string>{}(key.request) * 31 + key.attempt;
  }
};

}  // namespace waystation::link
