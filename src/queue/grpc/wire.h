// Messages of message/proto/queue.proto to the station's types and back. Payloads aren't parsed:
// they are cut out of a frame, and put into a delivery, as bytes that others hold. Included by this
// folder's .cc files only, as nothing else may see gRPC's headers.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "message/proto/queue.pb.h"
#include "queue/station.h"

namespace waystation::queue {

struct ParsedFrame {
  std::string queue;
  std::uint64_t number = 0;
  Publication publication;
};

// kInvalidArgument. `number` is set as soon as it is known, for the answer to a bad frame.
Result<ParsedFrame> parse_frame(const grpc::ByteBuffer& buffer, TimeMs now_ms,
                                std::uint64_t& number);

Result<Settle> parse_settle(const v1::Settle& settle);

void write_error(const Error& error, v1::QueueError& out);

// `head`: everything but the payloads, leases and runs, which are added here.
grpc::ByteBuffer delivery_buffer(const Taken& taken, v1::Delivery& head);

grpc::Status grpc_status(const Error& error);

// One contiguous copy.
std::string bytes_of(const grpc::ByteBuffer& buffer);
grpc::ByteBuffer buffer_of(const google::protobuf::MessageLite& message);

}  // namespace waystation::queue
