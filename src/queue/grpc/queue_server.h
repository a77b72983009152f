// The queues over gRPC (message/proto/queue.proto).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "guard/keys.h"
#include "link/grpc/tls.h"
#include "queue/station.h"

namespace waystation::queue {

struct QueueServerOptions {
  std::vector<std::string> addresses = {};  // "host:port" or "unix:PATH"; port 0 takes a free one
  link::TlsFiles tls = {};                  // for the TCP addresses
  std::size_t calls_max = 4096;
};

// Calls run on gRPC's threads.
class QueueServer {
 public:
  // `keys`: null = every caller is the tenant "default". All of them outlive the server.
  QueueServer(QueueServerOptions options, Station& station, const guard::KeyFile* keys,
              const Clock& clock);
  ~QueueServer();  // stops

  // Listens. Once. kInvalidArgument, kBusy when an address is taken, kIo.
  Status start();
  // Ends all calls. Idempotent.
  void stop();
  // In the order of the addresses.
  const std::vector<int>& ports() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace waystation::queue
