#include "queue/grpc/wire.h"

#include <algorithm>

#include "base/sha256.h"
#include "base/utf8.h"
#include "queue/bytes.h"

namespace waystation::queue {
namespace {

constexpr std::size_t kLaneBytesMax = 256;
constexpr std::size_t kKeyBytesMax = 256;
constexpr std::size_t kReasonBytesMax = 1024;
constexpr TimeMs kTimeMsMax = 365ll * 24 * 3600 * 1000;

// A piece of a delivery smaller than this is copied: less work than holding it.
constexpr std::size_t kCopyBytesMax = 8u << 10;

Error invalid(std::string message, std::string param) {
  return Error{Code::kInvalidArgument, std::move(message), std::move(param)};
}

Result<MessageOptions> parse_options(const v1::MessageOptions& from, TimeMs now_ms) {
  MessageOptions options;
  if (from.lane().size() > kLaneBytesMax) return invalid("a lane has at most 256 bytes", "lane");
  options.lane = from.lane();
  switch (from.priority()) {
    case v1::PRIORITY_LOW:
      options.priority = Priority::kLow;
      break;
    case v1::PRIORITY_NORMAL:
      break;
    case v1::PRIORITY_HIGH:
      options.priority = Priority::kHigh;
      break;
    default:
      return invalid("there is no such priority", "priority");
  }
  const auto out_of_range = [](TimeMs ms) { return ms < 0 || ms > kTimeMsMax; };
  if (out_of_range(from.delay_ms())) return invalid("delay_ms must be 0 to a year", "delay_ms");
  if (out_of_range(from.ttl_ms())) return invalid("ttl_ms must be 0 to a year", "ttl_ms");
  if (from.deadline_ms() < 0) return invalid("deadline_ms must not be negative", "deadline_ms");
  if (from.delay_ms() > 0) options.not_before_ms = now_ms + from.delay_ms();
  options.deadline_ms = from.deadline_ms();
  if (from.ttl_ms() > 0) options.deadline_ms = now_ms + from.ttl_ms();
  return options;
}

// Where the payloads begin; the size when there are none. Nothing when it is no message.
std::optional<std::size_t> payloads_at(std::string_view bytes) {
  Reader reader(bytes);
  while (!reader.at_end()) {
    const std::size_t at = reader.offset();
    const std::uint64_t tag = reader.varint();
    if (tag == static_cast<std::uint64_t>(kPayloadTag)) return at;
    if ((tag & 7) == 0) {
      reader.varint();
    } else if ((tag & 7) == 2) {
      reader.text();
    } else {
      return std::nullopt;  // no field of ours: protobuf may know better
    }
  }
  return reader.good() ? std::optional(bytes.size()) : std::nullopt;
}

// The frame without its payloads, and these.
Result<PayloadPtr> split(const grpc::ByteBuffer& buffer, v1::PublishFrame& frame) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok() || slices.empty()) return invalid("an empty frame", "payload");
  const auto view = [](const grpc::Slice& slice) {
    return std::string_view(reinterpret_cast<const char*>(slice.begin()), slice.size());
  };
  const auto head = payloads_at(view(slices[0]));
  if (head && *head < slices[0].size()) {
    std::string payloads;
    payloads.reserve(buffer.Length());
    payloads += view(slices[0]).substr(*head);
    for (std::size_t i = 1; i < slices.size(); ++i) payloads += view(slices[i]);
    if (frame.ParseFromArray(slices[0].begin(), static_cast<int>(*head))) {
      auto payload = Payload::parse(std::move(payloads));
      if (payload || payload.error().message.find("repeated bytes") == std::string::npos) {
        return payload;
      }
    }
  }
  // In another order than usual, or with a long head.
  const std::string bytes = bytes_of(buffer);
  if (!frame.ParseFromString(bytes)) return invalid("the frame is no PublishFrame", "frame");
  return Payload::of({frame.payload().begin(), frame.payload().end()});
}

}  // namespace

Result<ParsedFrame> parse_frame(const grpc::ByteBuffer& buffer, TimeMs now_ms,
                                std::uint64_t& number) {
  v1::PublishFrame frame;
  auto payload = split(buffer, frame);
  number = frame.number();
  if (!payload) return payload.error();
  ParsedFrame parsed;
  parsed.number = frame.number();
  parsed.queue = std::move(*frame.mutable_queue());
  Publication& publication = parsed.publication;
  publication.payload = std::move(*payload);
  const auto options_count = static_cast<std::size_t>(frame.options_size());
  if (options_count != 0 && options_count != publication.payload->count()) {
    return invalid("options must be none, or one for each payload", "options");
  }
  if (frame.has_defaults() && options_count == 0) {
    auto options = parse_options(frame.defaults(), now_ms);
    if (!options) return options.error();
    publication.options.push_back(std::move(*options));
  }
  for (const v1::MessageOptions& each : frame.options()) {
    auto options = parse_options(each, now_ms);
    if (!options) return options.error();
    publication.options.push_back(std::move(*options));
  }
  if (frame.idempotency_key().size() > kKeyBytesMax) {
    return invalid("an idempotency key has at most 256 bytes", "idempotency_key");
  }
  if (!frame.idempotency_key().empty()) {
    publication.key = frame.idempotency_key();
    v1::PublishFrame said;
    *said.mutable_defaults() = frame.defaults();
    *said.mutable_options() = frame.options();
    publication.fingerprint =
        sha256(said.SerializeAsString() + std::string(publication.payload->bytes()));
  }
  return parsed;
}

Result<Settle> parse_settle(const v1::Settle& from) {
  Settle settle;
  switch (from.outcome()) {
    case v1::OUTCOME_ACK:
      break;
    case v1::OUTCOME_NACK:
      settle.action = Action::kNack;
      break;
    case v1::OUTCOME_EXTEND:
      settle.action = Action::kExtend;
      break;
    case v1::OUTCOME_TERMINATE:
      settle.action = Action::kTerminate;
      break;
    default:
      return invalid("there is no such outcome", "outcome");
  }
  const bool extends = settle.action == Action::kExtend;
  if (from.ms() < (extends ? 1 : 0) || from.ms() > kTimeMsMax) {
    return invalid("ms must be 0 to a year, and more than 0 for an extension", "ms");
  }
  settle.lease = from.lease();
  settle.ms = from.ms();
  settle.reason = utf8_prefix(from.reason(), kReasonBytesMax);
  for (const v1::IdRange& range : from.ranges()) {
    settle.ranges.push_back({range.first(), range.count()});
  }
  return settle;
}

void write_error(const Error& error, v1::QueueError& out) {
  out.set_code(std::string(code_name(error.code)));
  out.set_message(error.message);
  out.set_retry_after_ms(error.retry_after_ms);
}

grpc::ByteBuffer delivery_buffer(const Taken& taken, v1::Delivery& head) {
  head.set_lease(taken.lease);
  head.set_until_ms(taken.until_ms);
  for (const Piece& piece : taken.pieces) {
    const int last = head.runs_size() - 1;
    if (last >= 0) {
      v1::Run& run = *head.mutable_runs(last);
      if (run.first() + run.count() == piece.first && run.attempt() == piece.attempt &&
          run.published_ms() == piece.published_ms) {
        run.set_count(run.count() + piece.count);
        continue;
      }
    }
    v1::Run& run = *head.add_runs();
    run.set_first(piece.first);
    run.set_count(piece.count);
    run.set_attempt(piece.attempt);
    run.set_published_ms(piece.published_ms);
  }
  std::vector<grpc::Slice> slices;
  std::string copied = head.SerializeAsString();
  for (const Piece& piece : taken.pieces) {
    const std::string_view bytes = piece.payload->bytes(piece.at, piece.count);
    if (bytes.size() < kCopyBytesMax) {
      copied += bytes;
      continue;
    }
    if (!copied.empty()) slices.emplace_back(copied);
    copied.clear();
    // The slice holds the payload until it is sent.
    slices.emplace_back(
        const_cast<char*>(bytes.data()), bytes.size(),
        [](void* held) { delete static_cast<PayloadPtr*>(held); }, new PayloadPtr(piece.payload));
  }
  if (!copied.empty()) slices.emplace_back(copied);
  return {slices.data(), slices.size()};
}

grpc::Status grpc_status(const Error& error) {
  switch (error.code) {
    case Code::kInvalidArgument:
    case Code::kTooLarge:
      return {grpc::StatusCode::INVALID_ARGUMENT, error.message};
    case Code::kUnauthenticated:
      return {grpc::StatusCode::UNAUTHENTICATED, error.message};
    case Code::kNotFound:
      return {grpc::StatusCode::NOT_FOUND, error.message};
    case Code::kQueueFull:
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, error.message};
    case Code::kUnavailable:
      return {grpc::StatusCode::UNAVAILABLE, error.message};
    default:
      return {grpc::StatusCode::INTERNAL, error.message};
  }
}

std::string bytes_of(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

grpc::ByteBuffer buffer_of(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return {&slice, 1};
}

}  // namespace waystation::queue
