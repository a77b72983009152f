// The server's side of one worker's session: the rules of docs/formats/link.md and nothing else.
// Pure: no threads, no clock, no network. Owned and called by the broker's thread.
//
//   ServerSession session(connection, peer, config, now_ms);
//   auto heard = session.on_message(message, now_ms);
//   if (!heard) { send(session.refused(heard.error())); close; }   // whatever the worker sent
//   HelloHeard  -> send(*session.welcome(epoch, worker));
//   StepHeard   -> the outputs go on to the ledger, which still judges their fences
//   while (session.credit() > 0) send(session.assign(…));
//   when the connection or lease is lost: take session.in_flight() back, forget the session
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "link/fence.h"
#include "link/transport.h"
#include "message/proto/link.pb.h"

namespace waystation::link {

inline constexpr std::uint32_t kProtocolVersion = 1;
inline constexpr std::uint32_t kSlotsMax = 65536;

struct ServerSessionConfig {
  std::string join_token;  // empty: no remote workers
  TimeMs heartbeat_ms = 1000;
  TimeMs lease_ms = 5000;
};

// What a message of a worker meant.
struct HelloHeard {  // answer with welcome(), or refused() if the server doesn't want it
  v1::Hello hello;   // without its join token
};
struct HeartbeatHeard {
  v1::Heartbeat load;
};
struct StepHeard {
  std::vector<v1::Output> outputs;  // of attempts that this session has in flight
  std::vector<v1::Fence> fenced;    // of all others: count them, they change nothing
};
struct LeavingHeard {
  std::string reason;
};
struct NothingHeard {};  // a kind of message from a newer worker

using Heard = std::variant<HelloHeard, HeartbeatHeard, StepHeard, LeavingHeard, NothingHeard>;

// Times are milliseconds of one steady clock of the caller's.
class ServerSession {
 public:
  ServerSession(ConnectionId connection, Peer peer, ServerSessionConfig config, TimeMs now_ms);

  // Takes any message whatever and moves the lease. An error (kInvalidArgument, kUnauthenticated)
  // is a broken rule: the session is over, every later message gets the same error.
  Result<Heard> on_message(v1::WorkerMessage message, TimeMs now_ms);

  // Answers a Hello; from now on there is credit. CHECKs that a Hello waits for it.
  v1::ServerMessage welcome(Epoch epoch, WorkerId worker);
  // Answers a Hello, or any broken rule. The session is over; close the connection after it.
  v1::ServerMessage refused(const Error& error);
  // Takes one credit. CHECKs that there is one and that the fence is new and of this epoch.
  v1::ServerMessage assign(v1::Assign assign);
  // Nothing if the fence isn't in flight here, or was cancelled before. The credit comes back with
  // the worker's last output of it.
  std::optional<v1::ServerMessage> cancel(const v1::Fence& fence);
  // No more credit from now on. Nothing if it was said before.
  std::optional<v1::ServerMessage> drain();
  // The caller was away, and can't tell whether the worker gave signs of life meanwhile: the lease
  // begins anew.
  void excuse(TimeMs now_ms) { expires_at_ms_ = now_ms + config_.lease_ms; }
  // A heartbeat, if one is due. Call it at least every heartbeat_ms.
  std::optional<v1::ServerMessage> heartbeat(TimeMs now_ms);

  bool joined() const { return state_ == State::kJoined; }
  // Said Leaving, or was told to drain: takes no new work.
  bool leaving() const { return leaving_; }
  // Requests that may be assigned now; 0 unless joined and not leaving.
  std::uint32_t credit() const;
  std::vector<v1::Fence> in_flight() const;
  std::size_t in_flight_count() const { return in_flight_.size(); }
  // Without a message until then (or a Hello, before it joined) the worker is lost.
  TimeMs expires_at_ms() const { return expires_at_ms_; }

  ConnectionId connection() const { return connection_; }
  const Peer& peer() const { return peer_; }
  // Valid from HelloHeard on; without the join token.
  const v1::Hello& hello() const { return hello_; }
  WorkerId worker() const { return worker_; }

 private:
  enum class State { kConnected, kHelloHeard, kJoined, kOver };
  struct InFlight {
    bool started = false;
    bool cancel_sent = false;
  };

  Result<Heard> judge(v1::WorkerMessage message);
  Result<Heard> on_hello(v1::Hello hello);
  Result<Heard> on_step(v1::Step step);

  const ConnectionId connection_;
  const Peer peer_;
  const ServerSessionConfig config_;
  State state_ = State::kConnected;
  bool leaving_ = false;
  bool drain_sent_ = false;
  TimeMs expires_at_ms_;
  TimeMs next_heartbeat_ms_;
  std::uint64_t epoch_ = 0;
  WorkerId worker_;
  v1::Hello hello_;
  Error broken_;
  std::unordered_map<FenceKey, InFlight, FenceKeyHash> in_flight_;
};

}  // namespace waystation::link
