// What carries the messages of link.proto between the server and its workers. `grpc` is the real one,
// `memory` joins both sides in one process for tests.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/ids.h"
#include "message/proto/link.pb.h"

namespace waystation::link {

// One connection of a worker, unique for the life of a server process.
using ConnectionId = StrongId<struct ConnectionIdTag>;

struct Peer {
  std::string address;  // "unix:" or "ipv4:10.0.0.7:41234"
  bool local = false;   // came through the unix socket: trusted without a join token
};

// The server's end, given by whoever owns the sessions (the broker). Called on the transport's
// threads; may block for a moment when the owner's mailbox is full, which stops reading from that
// worker (back-pressure).
class ServerEvents {
 public:
  virtual ~ServerEvents() = default;
  virtual void on_connected(ConnectionId connection, Peer peer) = 0;
  virtual void on_message(ConnectionId connection, v1::WorkerMessage message) = 0;
  virtual void on_disconnected(ConnectionId connection, std::string reason) = 0;
};

// Sends to workers. Any thread; never blocks. Sending to a connection that is gone does nothing:
// on_disconnected tells.
class ServerTransport {
 public:
  virtual ~ServerTransport() = default;
  virtual void send(ConnectionId connection, v1::ServerMessage message) = 0;
  // Ends the connection once what was sent before is written; on_disconnected follows.
  virtual void close(ConnectionId connection) = 0;
};

// The worker's end. Called on the transport's thread. on_disconnected is called once, and last.
class WorkerEvents {
 public:
  virtual ~WorkerEvents() = default;
  virtual void on_message(v1::ServerMessage message) = 0;
  virtual void on_disconnected(std::string reason) = 0;
};

class WorkerTransport {
 public:
  // Closes, and returns when no more events will come. Not to be called from an event.
  virtual ~WorkerTransport() = default;
  // Any thread; bounded: blocks while too much is unsent. False once disconnected.
  virtual bool send(v1::WorkerMessage message) = 0;
  // As send, but gives the message up rather than wait: for heartbeats, which say nothing that the
  // messages waiting in front of them don't say.
  virtual bool send_if_room(v1::WorkerMessage message) { return send(std::move(message)); }
  // Ends the connection once what was sent before is written. Never blocks; on_disconnected
  // follows.
  virtual void close() = 0;
};

}  // namespace waystation::link
