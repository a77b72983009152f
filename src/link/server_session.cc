#include "link/server_session.h"

#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/check.h"

namespace waystation::link {
namespace {

constexpr std::size_t kNameBytesMax = 128;
constexpr std::size_t kModelIdBytesMax = 256;
constexpr int kModelsMax = 64;

Error broken(std::string message, std::string param = {}) {
  return Error{Code::kInvalidArgument, std::move(message), std::move(param)};
}

// Takes the same time wherever the two differ, so that a token can't be guessed byte by byte.
bool equal_in_constant_time(std::string_view given, std::string_view expected) {
  unsigned difference = given.size() == expected.size() ? 0 : 1;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const char c = i < given.size() ? given[i] : '\0';
    difference |= static_cast<unsigned char>(c) ^ static_cast<unsigned char>(expected[i]);
  }
  return difference == 0;
}

Status check_models(const v1::Hello& hello) {
  if (hello.models_size() == 0) {
    return broken("the worker offers no model: start it with at least one", "models");
  }
  if (hello.models_size() > kModelsMax) {
    return broken("the worker offers " + std::to_string(hello.models_size()) +
                      " models, the limit is " + std::to_string(kModelsMax),
                  "models");
  }
  std::unordered_set<std::string_view> seen;
  for (const v1::ModelInfo& model : hello.models()) {
    if (model.id().empty() || model.id().size() > kModelIdBytesMax) {
      return broken("a model's id must have 1 to 256 bytes", "models.id");
    }
    if (!seen.insert(model.id()).second) {
      return broken("the worker offers the model '" + model.id() + "' twice", "models.id");
    }
  }
  return {};
}

Status check_token(const v1::Hello& hello, const Peer& peer, const std::string& join_token) {
  if (peer.local) return {};
  if (join_token.empty()) {
    return Error{Code::kUnauthenticated,
                 "this server takes no remote workers: start it with a join token"};
  }
  if (!equal_in_constant_time(hello.join_token(), join_token)) {
    return Error{Code::kUnauthenticated,
                 "the join token is not this server's: give the worker the server's join token"};
  }
  return {};
}

}  // namespace

ServerSession::ServerSession(ConnectionId connection, Peer peer, ServerSessionConfig config,
                             TimeMs now_ms)
    : connection_(connection),
      peer_(std::move(peer)),
      config_(std::move(config)),
      expires_at_ms_(now_ms + config_.lease_ms),
      next_heartbeat_ms_(now_ms + config_.heartbeat_ms) {}

Result<Heard> ServerSession::on_message(v1::WorkerMessage message, TimeMs now_ms) {
  if (state_ == State::kOver) return broken_;
  Result<Heard> heard = judge(std::move(message));
  if (!heard) {
    state_ = State::kOver;
    broken_ = heard.error();
    return heard;
  }
  // Until it has joined, only the Hello counts: noise doesn't keep a connection open.
  if (state_ == State::kJoined || std::holds_alternative<HelloHeard>(*heard)) {
    expires_at_ms_ = now_ms + config_.lease_ms;
  }
  return heard;
}

Result<Heard> ServerSession::judge(v1::WorkerMessage message) {
  switch (message.body_case()) {
    case v1::WorkerMessage::kHello:
      return on_hello(std::move(*message.mutable_hello()));
    case v1::WorkerMessage::kHeartbeat:
      if (state_ == State::kConnected) return broken("the first message must be Hello");
      return HeartbeatHeard{std::move(*message.mutable_heartbeat())};
    case v1::WorkerMessage::kStep:
      if (state_ != State::kJoined) return broken("a Step came before the server's Welcome");
      return on_step(std::move(*message.mutable_step()));
    case v1::WorkerMessage::kLeaving:
      if (state_ == State::kConnected) return broken("the first message must be Hello");
      leaving_ = true;
      return LeavingHeard{std::move(*message.mutable_leaving()->mutable_reason())};
    case v1::WorkerMessage::BODY_NOT_SET:
      if (state_ == State::kConnected) return broken("the first message must be Hello");
      return NothingHeard{};
  }
  return NothingHeard{};
}

Result<Heard> ServerSession::on_hello(v1::Hello hello) {
  if (state_ != State::kConnected) return broken("a second Hello in one session");
  if (hello.protocol() != kProtocolVersion) {
    return broken("worker speaks link protocol " + std::to_string(hello.protocol()) +
                      ", this server speaks " + std::to_string(kProtocolVersion) +
                      ": use a worker of the server's version",
                  "protocol");
  }
  // Before anything else is said about the worker: a stranger learns nothing but "no".
  if (Status ok = check_token(hello, peer_, config_.join_token); !ok) return ok.error();
  if (hello.worker_name().empty() || hello.worker_name().size() > kNameBytesMax) {
    return broken("the worker's name must have 1 to 128 bytes", "worker_name");
  }
  if (hello.slots() == 0 || hello.slots() > kSlotsMax) {
    return broken("the worker offers " + std::to_string(hello.slots()) +
                      " slots; it must be 1 to " + std::to_string(kSlotsMax),
                  "slots");
  }
  if (Status ok = check_models(hello); !ok) return ok.error();
  hello.clear_join_token();
  hello_ = std::move(hello);
  state_ = State::kHelloHeard;
  return HelloHeard{hello_};
}

Result<Heard> ServerSession::on_step(v1::Step step) {
  StepHeard heard;
  heard.outputs.reserve(static_cast<std::size_t>(step.outputs_size()));
  std::vector<decltype(in_flight_)::node_type> ended;
  // Nothing of such a step is heard, so what it ended is in flight still: the worker fails with it.
  const auto break_off = [&](std::string message, std::string param) {
    for (auto& node : ended) in_flight_.insert(std::move(node));
    return broken(std::move(message), std::move(param));
  };
  for (v1::Output& output : *step.mutable_outputs()) {
    const int endings = endings_of(output);
    if (endings > 1) return break_off("an output with more than one ending", "outputs");
    const auto found = output.fence().epoch() == epoch_ ? in_flight_.find(key_of(output.fence()))
                                                        : in_flight_.end();
    if (found == in_flight_.end()) {
      heard.fenced.push_back(output.fence());
      continue;
    }
    const bool first = !found->second.started;
    const bool refused = output.has_failure() || output.dropped();
    if (!first && output.started()) {
      return break_off("an attempt started twice", "outputs.started");
    }
    if (first && !output.started() && !refused) {
      return break_off("the first output of an attempt must say started", "outputs.started");
    }
    found->second.started = true;
    if (endings == 1) ended.push_back(in_flight_.extract(found));
    heard.outputs.push_back(std::move(output));
  }
  return heard;
}

v1::ServerMessage ServerSession::welcome(Epoch epoch, WorkerId worker) {
  CHECK(state_ == State::kHelloHeard);
  state_ = State::kJoined;
  epoch_ = epoch.value;
  worker_ = worker;
  v1::ServerMessage message;
  v1::Welcome& welcome = *message.mutable_welcome();
  welcome.set_epoch(epoch.value);
  welcome.set_worker(worker.value);
  welcome.set_heartbeat_ms(static_cast<std::uint32_t>(config_.heartbeat_ms));
  welcome.set_lease_ms(static_cast<std::uint32_t>(config_.lease_ms));
  return message;
}

v1::ServerMessage ServerSession::refused(const Error& error) {
  if (state_ != State::kOver) {
    state_ = State::kOver;
    broken_ = error;
  }
  v1::ServerMessage message;
  message.mutable_refused()->set_code(std::string(code_name(error.code)));
  message.mutable_refused()->set_message(error.message);
  return message;
}

v1::ServerMessage ServerSession::assign(v1::Assign assign) {
  CHECK(credit() > 0);
  CHECK(assign.fence().epoch() == epoch_);
  CHECK(in_flight_.try_emplace(key_of(assign.fence())).second);
  v1::ServerMessage message;
  *message.mutable_assign() = std::move(assign);
  return message;
}

std::optional<v1::ServerMessage> ServerSession::cancel(const v1::Fence& fence) {
  if (state_ != State::kJoined || fence.epoch() != epoch_) return std::nullopt;
  const auto found = in_flight_.find(key_of(fence));
  if (found == in_flight_.end() || found->second.cancel_sent) return std::nullopt;
  found->second.cancel_sent = true;
  v1::ServerMessage message;
  *message.mutable_cancel()->mutable_fence() = fence;
  return message;
}

std::optional<v1::ServerMessage> ServerSession::drain() {
  leaving_ = true;
  if (state_ != State::kJoined || drain_sent_) return std::nullopt;
  drain_sent_ = true;
  v1::ServerMessage message;
  message.mutable_drain();
  return message;
}

std::optional<v1::ServerMessage> ServerSession::heartbeat(TimeMs now_ms) {
  if (state_ != State::kJoined || now_ms < next_heartbeat_ms_) return std::nullopt;
  next_heartbeat_ms_ = now_ms + config_.heartbeat_ms;
  v1::ServerMessage message;
  message.mutable_heartbeat();
  return message;
}

std::uint32_t ServerSession::credit() const {
  if (state_ != State::kJoined || leaving_) return 0;
  return hello_.slots() - static_cast<std::uint32_t>(in_flight_.size());
}

std::vector<v1::Fence> ServerSession::in_flight() const {
  std::vector<v1::Fence> fences;
  fences.reserve(in_flight_.size());
  for (const auto& [key, state] : in_flight_) fences.push_back(fence_of(epoch_, key));
  return fences;
}

}  // namespace waystation::link
