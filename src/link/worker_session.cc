#include "link/worker_session.h"

#include <algorithm>
#include <utility>

namespace waystation::link {
namespace {

constexpr std::size_t kRequestIdBytes = 16;

Error broken(std::string message) {
  return Error{Code::kInvalidArgument, "the server broke the link protocol: " + std::move(message)};
}

}  // namespace

WorkerSession::WorkerSession(v1::Hello hello, TimeMs now_ms, TimeMs lease_ms)
    : hello_(std::move(hello)), lease_ms_(lease_ms), expires_at_ms_(now_ms + lease_ms) {}

v1::WorkerMessage WorkerSession::hello() const {
  v1::WorkerMessage message;
  *message.mutable_hello() = hello_;
  return message;
}

Result<News> WorkerSession::on_message(v1::ServerMessage message, TimeMs now_ms) {
  if (state_ == State::kOver) return broken_;
  Result<News> news = judge(std::move(message), now_ms);
  if (!news) {
    state_ = State::kOver;
    broken_ = news.error();
    return news;
  }
  expires_at_ms_ = now_ms + lease_ms_;
  return news;
}

Result<News> WorkerSession::judge(v1::ServerMessage message, TimeMs now_ms) {
  if (message.body_case() == v1::ServerMessage::kRefused) {
    return Error{code_from_name(message.refused().code()), message.refused().message()};
  }
  if (message.body_case() == v1::ServerMessage::kWelcome) {
    return on_welcome(message.welcome(), now_ms);
  }
  if (state_ != State::kJoined) return broken("its first message is not Welcome");
  switch (message.body_case()) {
    case v1::ServerMessage::kAssign:
      return on_assign(std::move(*message.mutable_assign()));
    case v1::ServerMessage::kCancel: {
      const v1::Fence& fence = message.cancel().fence();
      if (fence.epoch() != epoch_.value || !in_flight_.contains(key_of(fence))) return NoNews{};
      return CancelAsked{fence};
    }
    case v1::ServerMessage::kDrain:
      leaving_ = true;
      return DrainAsked{};
    default:
      return NoNews{};
  }
}

Result<News> WorkerSession::on_welcome(const v1::Welcome& welcome, TimeMs now_ms) {
  if (state_ != State::kWaiting) return broken("a second Welcome");
  if (welcome.heartbeat_ms() == 0 || welcome.lease_ms() <= welcome.heartbeat_ms()) {
    return broken("heartbeat_ms must be above 0 and below lease_ms");
  }
  state_ = State::kJoined;
  epoch_ = Epoch{welcome.epoch()};
  heartbeat_ms_ = welcome.heartbeat_ms();
  lease_ms_ = welcome.lease_ms();
  next_heartbeat_ms_ = now_ms + heartbeat_ms_;
  return Welcomed{epoch_, WorkerId{welcome.worker()}};
}

Result<News> WorkerSession::on_assign(v1::Assign assign) {
  if (assign.fence().epoch() != epoch_.value) return broken("an Assign of another epoch");
  if (assign.fence().request().size() != kRequestIdBytes) {
    return broken("a request id not of 16 bytes");
  }
  if (in_flight_.size() >= hello_.slots()) return broken("an Assign beyond the worker's slots");
  if (!in_flight_.insert(key_of(assign.fence())).second) return broken("an attempt assigned twice");
  return Assigned{std::move(assign)};
}

std::optional<v1::WorkerMessage> WorkerSession::heartbeat(const v1::Heartbeat& load,
                                                          TimeMs now_ms) {
  if (state_ != State::kJoined || now_ms < next_heartbeat_ms_) return std::nullopt;
  next_heartbeat_ms_ = now_ms + heartbeat_ms_;
  v1::WorkerMessage message;
  *message.mutable_heartbeat() = load;
  return message;
}

TimeMs WorkerSession::next_due_ms() const {
  if (state_ != State::kJoined) return expires_at_ms_;
  return std::min(next_heartbeat_ms_, expires_at_ms_);
}

void WorkerSession::account(v1::Step& step) {
  auto& outputs = *step.mutable_outputs();
  int kept = 0;
  for (int i = 0; i < outputs.size(); ++i) {
    const v1::Output& output = outputs[i];
    const int endings = endings_of(output);
    const auto found = state_ == State::kJoined && output.fence().epoch() == epoch_.value
                           ? in_flight_.find(key_of(output.fence()))
                           : in_flight_.end();
    if (found == in_flight_.end() || endings > 1) continue;
    if (endings == 1) in_flight_.erase(found);
    if (kept != i) outputs.SwapElements(kept, i);
    ++kept;
  }
  outputs.DeleteSubrange(kept, outputs.size() - kept);
}

std::optional<v1::WorkerMessage> WorkerSession::leaving(std::string reason) {
  if (state_ != State::kJoined || leaving_) return std::nullopt;
  leaving_ = true;
  v1::WorkerMessage message;
  message.mutable_leaving()->set_reason(std::move(reason));
  return message;
}

std::vector<v1::Fence> WorkerSession::in_flight() const {
  std::vector<v1::Fence> fences;
  fences.reserve(in_flight_.size());
  for (const FenceKey& key : in_flight_) fences.push_back(fence_of(epoch_.value, key));
  return fences;
}

}  // namespace waystation::link
