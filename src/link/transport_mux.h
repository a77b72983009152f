// Several transports as one, for a broker that has workers of several kinds.
//
//   TransportMux mux(broker);
//   link::ServerEvents& for_grpc = mux.add(grpc);     // each transport tells its own events
//   link::ServerEvents& for_pool = mux.add(pool);
//   broker.start(journal, mux);
//   grpc.start(for_grpc); pool.start(for_pool);
//
// A connection's id carries its transport in the highest 16 bits; below them it is the transport's
// own, which must stay under 2^48.
#pragma once

#include <memory>
#include <vector>

#include "link/transport.h"

namespace waystation::link {

// add() before anything is sent or told, from one thread; the rest from any. Adds no lock and no
// hop.
class TransportMux final : public ServerTransport {
 public:
  // `events` outlives it.
  explicit TransportMux(ServerEvents& events);
  ~TransportMux() override;

  // What `transport` is to be started with; lives as long as the mux, which must outlive the
  // transport's events. `transport` must outlive whoever sends.
  ServerEvents& add(ServerTransport& transport);

  void send(ConnectionId connection, v1::ServerMessage message) override;
  void close(ConnectionId connection) override;

 private:
  class Port;
  ServerEvents& events_;
  std::vector<std::unique_ptr<Port>> ports_;
};

}  // namespace waystation::link
