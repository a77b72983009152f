// The payloads of the messages that were published together: one after the other in protobuf's wire
// form of `repeated bytes payload = 15` (docs/formats/queue.md). So they travel from the publisher
// to the disk and on to a consumer as they came; only their lengths are read.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace waystation::queue {

inline constexpr char kPayloadTag = 15 << 3 | 2;

inline constexpr std::size_t kFrameMessagesMax = 16'384;
inline constexpr std::size_t kMessageBytesMax = 1u << 20;
inline constexpr std::size_t kFrameBytesMax = 3u << 20;

class Payload;
using PayloadPtr = std::shared_ptr<const Payload>;

// Immutable; any thread.
class Payload {
 public:
  // kInvalidArgument: not that form, nothing in it, or above the limits.
  static Result<PayloadPtr> parse(std::string bytes);
  static Result<PayloadPtr> of(const std::vector<std::string_view>& messages);

  std::size_t count() const { return starts_.size() - 1; }
  // In wire form: all, or `count` messages from the one at `at`.
  std::string_view bytes() const { return bytes_; }
  std::string_view bytes(std::size_t at, std::size_t count) const {
    return std::string_view(bytes_).substr(starts_[at], starts_[at + count] - starts_[at]);
  }
  // How many messages from `at` on have no more than `bytes_max` bytes together; at least one.
  std::size_t fitting(std::size_t at, std::size_t bytes_max) const;
  // One message as its publisher gave it.
  std::string_view message(std::size_t at) const;

 private:
  std::string bytes_;
  std::vector<std::uint32_t> starts_;  // of each message's tag, and the end
};

// Appends a message in wire form.
void append_payload(std::string& out, std::string_view message);

}  // namespace waystation::queue
