#include "queue/payload.h"

#include <algorithm>

#include "queue/bytes.h"

namespace waystation::queue {

Result<PayloadPtr> Payload::parse(std::string bytes) {
  const auto bad = [](std::string message) {
    return Error{Code::kInvalidArgument, std::move(message), "payload"};
  };
  if (bytes.size() > kFrameBytesMax) {
    return bad("the messages of one call may have " + std::to_string(kFrameBytesMax) +
               " bytes together; send them in several");
  }
  auto payload = std::make_shared<Payload>();
  payload->bytes_ = std::move(bytes);
  payload->starts_.reserve(payload->bytes_.size() / 1024 + 2);
  Reader reader(payload->bytes_);
  while (!reader.at_end()) {
    payload->starts_.push_back(static_cast<std::uint32_t>(reader.offset()));
    if (reader.u8() != static_cast<std::uint8_t>(kPayloadTag)) reader.fail();
    const std::size_t size = reader.text().size();
    if (!reader.good()) return bad("the payloads are not a repeated bytes field 15");
    if (size > kMessageBytesMax) {
      return bad("a message may have " + std::to_string(kMessageBytesMax) + " bytes, not " +
                 std::to_string(size));
    }
  }
  if (payload->starts_.empty()) return bad("there is no message to publish");
  if (payload->starts_.size() > kFrameMessagesMax) {
    return bad("one call may publish " + std::to_string(kFrameMessagesMax) + " messages");
  }
  payload->starts_.push_back(static_cast<std::uint32_t>(payload->bytes_.size()));
  return PayloadPtr(std::move(payload));
}

Result<PayloadPtr> Payload::of(const std::vector<std::string_view>& messages) {
  std::string bytes;
  for (const std::string_view message : messages) append_payload(bytes, message);
  return parse(std::move(bytes));
}

std::size_t Payload::fitting(std::size_t at, std::size_t bytes_max) const {
  const std::size_t limit = starts_[at] + bytes_max;
  const auto after =
      std::upper_bound(starts_.begin() + static_cast<std::ptrdiff_t>(at) + 1, starts_.end(), limit);
  const auto fits = static_cast<std::size_t>(after - starts_.begin()) - 1 - at;
  return std::max<std::size_t>(fits, 1);
}

std::string_view Payload::message(std::size_t at) const {
  Reader reader(bytes(at, 1));
  reader.u8();
  return reader.text();
}

void append_payload(std::string& out, std::string_view message) {
  Writer writer(out);
  writer.u8(static_cast<std::uint8_t>(kPayloadTag));
  writer.text(message);
}

}  // namespace waystation::queue
