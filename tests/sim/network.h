// The wire between the server and its workers: what gRPC is in the real system. Messages of one
// session arrive in order and once, or the session is over; each takes its time, sessions overtake
// each other, and either end may hear late, or never, that the other is gone.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/result.h"
#include "link/transport.h"
#include "sim/dice.h"
#include "sim/history.h"
#include "sim/scheduler.h"

namespace waystation::sim {

// What the network asks of a server.
class ServerPort {
 public:
  virtual ~ServerPort() = default;
  virtual link::ServerEvents& events() = 0;
  // False: it can't take more at the moment (its inbox fills), so what comes has to wait.
  virtual bool has_room() const = 0;
  // Called after each event.
  virtual void poke() = 0;
};

class Network final : public link::ServerTransport {
 public:
  Network(Scheduler& scheduler, History& history, Dice dice, Micros latency_max)
      : scheduler_(scheduler), history_(history), dice_(dice), latency_max_(latency_max) {}

  // ---- The server's end
  // ----------------------------------------------------------------------------

  void server_up(ServerPort& port) { server_ = &port; }
  // `silently`: the workers don't hear of it (power cut), else soon.
  void server_down(bool silently);
  void send(link::ConnectionId connection, v1::ServerMessage message) override;
  void close(link::ConnectionId connection) override;

  // ---- A worker's end
  // ------------------------------------------------------------------------------

  struct WorkerPort {
    link::WorkerEvents* events;
    std::function<Micros()> frozen_until;  // it can't take what comes before then
    std::function<void()> poke;            // called after each event
  };
  // kUnavailable: no server is up.
  Result<std::unique_ptr<link::WorkerTransport>> connect(WorkerPort port);

  // The worker's machine is gone: the server hears nothing of it, but for its silence.
  void vanish(const link::WorkerEvents* events);

  // ---- Trouble
  // --------------------------------------------------------------------------------------

  // A random session ends; what is under way is lost.
  void cut_one();
  // Nothing passes for a while, in a random session.
  void partition_one(Micros duration);
  void calm(Micros latency_max) { latency_max_ = latency_max; }

 private:
  friend class WorkerEnd;
  // One direction of a session: first in, first out.
  struct Pipe {
    std::deque<std::pair<Micros, std::function<void()>>> under_way;  // with the time of arrival
    Micros last_arrival = 0;
    bool pumping = false;
  };
  struct Session {
    WorkerPort worker;          // events null: its end is gone
    bool open = true;           // messages may be sent
    bool server_knows = false;  // it has heard of the connection
    bool server_gone = false;   // the server that it was made with is dead
    Micros blocked_until = 0;
    Pipe to_server;
    Pipe to_worker;
  };

  void to_server(std::uint64_t id, std::function<void(link::ServerEvents&)> event);
  void to_worker(std::uint64_t id, std::function<void(link::WorkerEvents&)> event);
  void put(std::uint64_t id, Pipe Session::*pipe, std::function<void()> event);
  void pump(std::uint64_t id, Pipe Session::*pipe);
  // When the first event of the pipe can be taken; at or before now: now.
  Micros ready_at(const Session& session, Pipe Session::*pipe) const;
  // Both ends will hear of it, after what was sent before, unless they are gone.
  void end(std::uint64_t id, const std::string& reason);
  void worker_gone(std::uint64_t id);  // its end is destroyed: it hears nothing more
  std::uint64_t random_session();

  Scheduler& scheduler_;
  History& history_;
  Dice dice_;
  Micros latency_max_;
  ServerPort* server_ = nullptr;
  std::uint64_t last_session_ = 0;
  std::map<std::uint64_t, Session> sessions_;
};

}  // namespace waystation::sim
