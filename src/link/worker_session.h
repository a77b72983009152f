// The worker's side of a session: the rules of docs/formats/link.md and nothing else. Pure: no
// threads, no clock, no network. One session = one connection; a worker that reconnects makes a new
// one and drops whatever the old one had in flight.
//
//   WorkerSession session(hello, now_ms);
//   send(session.hello());
//   auto news = session.on_message(message, now_ms);    // an error ends the session
//   if (auto beat = session.heartbeat(load, now_ms)) send(*beat);
//   session.account(step); send(step);
//   if (now_ms >= session.expires_at_ms()) the server is lost
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_set>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "link/fence.h"
#include "message/proto/link.pb.h"

namespace waystation::link {

// What a message of the server meant to the worker.
struct Welcomed {
  Epoch epoch;
  WorkerId worker;
};
struct Assigned {
  v1::Assign assign;
};
struct CancelAsked {
  v1::Fence fence;  // in flight here
};
struct DrainAsked {};  // take no more, end when nothing is in flight
struct NoNews {};      // a heartbeat, a cancel that came too late, a kind from a newer server

using News = std::variant<Welcomed, Assigned, CancelAsked, DrainAsked, NoNews>;

// Times are milliseconds of one steady clock of the caller's.
class WorkerSession {
 public:
  // `lease_ms`: how long to wait for the Welcome; afterwards the server's value holds.
  WorkerSession(v1::Hello hello, TimeMs now_ms, TimeMs lease_ms = 5000);

  // The first message to send.
  v1::WorkerMessage hello() const;

  // Errors: the server's Refused, with its code (see retry_can_help), or kInvalidArgument for a
  // message that breaks a rule. Either way the session is over.
  Result<News> on_message(v1::ServerMessage message, TimeMs now_ms);

  // A heartbeat, if one is due. Nothing before the Welcome.
  std::optional<v1::WorkerMessage> heartbeat(const v1::Heartbeat& load, TimeMs now_ms);
  // The caller was away, and can't tell whether the server gave signs of life meanwhile: the lease
  // begins anew.
  void excuse(TimeMs now_ms) { expires_at_ms_ = now_ms + lease_ms_; }
  // When heartbeat() has something next, or the session expires if that is sooner.
  TimeMs next_due_ms() const;

  // Keeps the account of what is in flight: call it with every step that is sent. Outputs of fences
  // that are not in flight, and those that break a rule, are taken out of `step`.
  void account(v1::Step& step);

  // Says once that the worker takes no new work; nothing the second time or before the Welcome.
  std::optional<v1::WorkerMessage> leaving(std::string reason);
  bool is_leaving() const { return leaving_; }

  bool joined() const { return state_ == State::kJoined; }
  Epoch epoch() const { return epoch_; }
  std::size_t in_flight_count() const { return in_flight_.size(); }
  std::vector<v1::Fence> in_flight() const;
  // Without a message until then the server is lost.
  TimeMs expires_at_ms() const { return expires_at_ms_; }

 private:
  enum class State { kWaiting, kJoined, kOver };

  Result<News> judge(v1::ServerMessage message, TimeMs now_ms);
  Result<News> on_welcome(const v1::Welcome& welcome, TimeMs now_ms);
  Result<News> on_assign(v1::Assign assign);

  const v1::Hello hello_;
  State state_ = State::kWaiting;
  bool leaving_ = false;
  TimeMs lease_ms_;
  TimeMs heartbeat_ms_ = 0;
  TimeMs expires_at_ms_;
  TimeMs next_heartbeat_ms_ = 0;
  Epoch epoch_;
  Error broken_;
  std::unordered_set<FenceKey, FenceKeyHash> in_flight_;
};

// Whether a worker refused with this code should try again later (docs/formats/link.md, Refused).
inline bool retry_can_help(Code code) {
  return code == Code::kUnavailable || code == Code::kQueueFull;
}

}  // namespace waystation::link
