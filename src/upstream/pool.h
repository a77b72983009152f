// All upstreams of a server, as one transport of the link: to the broker each of them is a worker.
//
//   thread        does
//   io (one, or PoolOptions::threads)   everything of its upstreams: HTTP, sessions, timeouts
//
// send() and close() hand over to that thread; what upstreams answer is told to the ServerEvents on
// it, several outputs in one message when they came together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/meter.h"
#include "base/result.h"
#include "link/transport.h"
#include "upstream/options.h"

namespace waystation::upstream {

struct PoolOptions {
  std::vector<Options> upstreams;
  std::string version = "dev";  // for the User-Agent
  int threads = 1;              // upstreams are shared out over them
  std::string instance = {};    // this server's id, as in front::Options
};

class Pool final : public link::ServerTransport {
 public:
  ~Pool() override;  // stops

  // Tells `events` (which must outlive this, or its stop()) of every upstream that is ready. Once.
  void start(link::ServerEvents& events);
  // Aborts what runs; returns when no more events will come. Idempotent.
  void stop();

  void send(link::ConnectionId connection, v1::ServerMessage message) override;
  void close(link::ConnectionId connection) override;

 private:
  friend Result<std::unique_ptr<Pool>> make_pool(PoolOptions options, const Clock& clock,
                                                 Meter& meter);
  class Loop;
  Pool();
  Loop* loop_of(link::ConnectionId connection);

  std::vector<std::unique_ptr<Loop>> loops_;
};

// `clock` and `meter` outlive the pool. Errors: kInvalidArgument with `param`, kIo: what can't work
// in an upstream's options. No connection is made before start().
Result<std::unique_ptr<Pool>> make_pool(PoolOptions options, const Clock& clock, Meter& meter);

}  // namespace waystation::upstream
