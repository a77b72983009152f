// The worker's end of the link over gRPC (docs/formats/link.md).
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "link/grpc/tls.h"
#include "link/transport.h"

namespace waystation::link {

struct GrpcClientOptions {
  std::string address = {};  // "unix:PATH" or "host:port"
  TlsFiles tls = {};
  TimeMs connect_timeout_ms = 5000;
  // send() waits while more than this is unsent.
  std::size_t queued_bytes_max = 4 << 20;
};

// Connects. `events` must outlive the returned transport; its destructor closes, waits up to two
// seconds for what was sent before to be written, and returns when no more events will come.
// Errors: kInvalidArgument for a bad address, kIo for TLS files, kUnavailable when the server can't
// be reached.
Result<std::unique_ptr<WorkerTransport>> connect_grpc(const GrpcClientOptions& options,
                                                      WorkerEvents& events);

}  // namespace waystation::link
