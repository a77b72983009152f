// The server's end of the link over gRPC (docs/formats/link.md).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "link/grpc/tls.h"
#include "link/transport.h"

namespace waystation::link {

struct GrpcServerOptions {
  // "unix:PATH" (its folder must be this user's own: whoever can open the socket is trusted) or
  // "host:port"; port 0 takes a free one.
  std::vector<std::string> addresses = {};
  TlsFiles tls = {};  // for the TCP addresses
  // A worker that doesn't read is disconnected when more than this waits for it.
  std::size_t queued_bytes_max = 64 << 20;
  int connections_max = 4096;
};

// Sessions run on gRPC's threads. send() and close() are for any thread at any time, also before
// start() and after stop() (they do nothing then).
class GrpcLinkServer final : public ServerTransport {
 public:
  explicit GrpcLinkServer(GrpcServerOptions options);
  ~GrpcLinkServer() override;  // stops

  // Listens; tells `events`, which must outlive this or its stop(). Once. Errors: kInvalidArgument,
  // kBusy when an address is taken, kIo.
  Status start(ServerEvents& events);
  // Ends all connections; returns when every on_disconnected was delivered. Idempotent.
  void stop();

  // The ports in use, in the order of `addresses`; 1 for unix sockets.
  const std::vector<int>& ports() const;

  void send(ConnectionId connection, v1::ServerMessage message) override;
  void close(ConnectionId connection) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace waystation::link
