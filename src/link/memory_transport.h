// Both ends of the link in one process, for tests and the simulator.
//
//   MemoryLink link(MemoryLink::Delivery::kStepped);
//   link.serve(broker);
//   auto worker_end = link.connect(Peer{"unix:", true}, worker_events);
//   while (link.deliver_one()) {}            // on this thread, in the order of sending
//
// kThreaded delivers by two threads of its own, one for each direction, as a real transport does.
#pragma once

#include <cstddef>
#include <memory>

#include "link/transport.h"

namespace waystation::link {

// Any thread, but deliver_one: one thread.
class MemoryLink final : public ServerTransport {
 public:
  enum class Delivery { kStepped, kThreaded };

  explicit MemoryLink(Delivery delivery);
  // Stops. The workers' ends may be destroyed before or after.
  ~MemoryLink() override;

  // Ends the threads; returns when no more events will come, to either side. Sends do nothing then.
  void stop();

  // Whom to tell of connections; must outlive the link. Once, before connect().
  void serve(ServerEvents& events);

  // Connects a worker. `events` must outlive the returned end.
  std::unique_ptr<WorkerTransport> connect(Peer peer, WorkerEvents& events);

  void send(ConnectionId connection, v1::ServerMessage message) override;
  void close(ConnectionId connection) override;

  // A broken cable: what is under way in both directions is lost, both ends hear of it.
  void cut(ConnectionId connection, const std::string& reason = "connection cut");
  // Cuts every connection.
  void cut_all();

  // kStepped: delivers the oldest message or notice. False when there is none.
  bool deliver_one();
  // kStepped: delivers until nothing is left, what is sent meanwhile too. Gives how many.
  std::size_t deliver_all();

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace waystation::link
