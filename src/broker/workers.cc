// Workers: their sessions, what they bring, and what they get.
#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "broker/broker.h"

namespace waystation::broker {

// These three run on the transport's threads; a full inbox makes the transport wait.
void Broker::on_connected(link::ConnectionId connection, link::Peer peer) {
  inbox_.send([this, connection, peer = std::move(peer)]() mutable {
    do_connected(connection, std::move(peer));
  });
}

void Broker::on_message(link::ConnectionId connection, v1::WorkerMessage message) {
  Task task = [this, connection, message = std::move(message)]() mutable {
    do_message(connection, std::move(message));
  };
  gather();
  const bool left = leave(task);
  help();
  if (!left) inbox_.send(std::move(task));
}

void Broker::on_disconnected(link::ConnectionId connection, std::string reason) {
  inbox_.send([this, connection, reason = std::move(reason)] { lose(connection, reason); });
}

void Broker::do_connected(link::ConnectionId connection, link::Peer peer) {
  if (gate_.failed()) {
    transport_->close(connection);
    return;
  }
  sessions_.try_emplace(connection, connection, std::move(peer), config_.link, steady_ms());
}

void Broker::do_message(link::ConnectionId connection, v1::WorkerMessage message) {
  const auto at = sessions_.find(connection);
  if (at == sessions_.end()) return;  // lost already; its late outputs are nobody's
  link::ServerSession& session = at->second;
  auto heard = session.on_message(std::move(message), steady_ms());
  if (!heard) {
    WS_LOG(warn, "worker refused peer={} reason=\"{}\"", session.peer().address,
           heard.error().message);
    transport_->send(connection, session.refused(heard.error()));
    transport_->close(connection);
    lose(connection, heard.error().message);
    return;
  }
  if (const auto* hello = std::get_if<link::HelloHeard>(&*heard)) {
    do_hello(session, hello->hello);
  } else if (auto* step = std::get_if<link::StepHeard>(&*heard)) {
    do_step(session, std::move(*step));
  } else if (const auto* leaving = std::get_if<link::LeavingHeard>(&*heard)) {
    WS_LOG(info, "worker leaving worker={} reason=\"{}\"", session.hello().worker_name(),
           leaving->reason);
    if (session.joined()) dispatcher_.set_leaving(session.worker());
    update_health();
  }
}

// A worker joins once this epoch is durable (I4): what it is given carries that epoch.
void Broker::do_hello(link::ServerSession& session, const v1::Hello& hello) {
  const link::ConnectionId connection = session.connection();
  const WorkerId worker{next_worker_++};
  when_durable([this, connection, worker, hello](const Error* lost) {
    const auto at = sessions_.find(connection);
    if (lost != nullptr || at == sessions_.end()) return;
    transport_->send(connection, at->second.welcome(ledger_->epoch(), worker));
    connections_[worker] = connection;
    dispatch::Offer offer{.slots = hello.slots(), .weight = hello.weight(), .rank = hello.rank()};
    for (const v1::ModelInfo& model : hello.models()) {
      offer.services.push_back({model.id(), model.fingerprint(), model.prefills()});
      Known& known = models_[model.id()];
      known.info = model;
      ++known.workers;
      if (known.since_ms == 0) known.since_ms = now_ms();
    }
    dispatcher_.add(worker, hello.worker_name(), std::move(offer));
    if (at->second.leaving()) dispatcher_.set_leaving(worker);  // it changed its mind meanwhile
    metrics_.workers.set(static_cast<double>(connections_.size()));
    WS_LOG(info, "worker joined worker={} id={} pid={} slots={} model={}", hello.worker_name(),
           worker.value, hello.pid(), hello.slots(), hello.models(0).id());
    update_health();
  });
}

void Broker::do_step(link::ServerSession& session, link::StepHeard step) {
  const WorkerId worker = session.worker();
  const TimeMs now = now_ms();
  std::size_t fenced = step.fenced.size();
  for (const v1::Output& output : step.outputs) {
    if (!ledger_->output(worker, output, now, proposal_)) ++fenced;
    if (link::endings_of(output) > 0) dispatcher_.release(worker);
  }
  absorb();
  if (fenced > 0) metrics_.fenced.add(static_cast<double>(fenced));
}

void Broker::lose(link::ConnectionId connection, const std::string& reason) {
  const auto at = sessions_.find(connection);
  if (at == sessions_.end()) return;
  if (at->second.joined()) {
    const WorkerId worker = at->second.worker();
    const v1::Hello& hello = at->second.hello();
    WS_LOG(warn, "worker lost worker={} id={} in_flight={} reason=\"{}\"", hello.worker_name(),
           worker.value, at->second.in_flight_count(), reason);
    for (const v1::ModelInfo& model : hello.models()) --models_[model.id()].workers;
    dispatcher_.remove(worker);
    connections_.erase(worker);
    metrics_.workers.set(static_cast<double>(connections_.size()));
    if (!gate_.failed()) take_back_unsent(at->second);
    if (!gate_.failed() && at->second.leaving()) {
      ledger_->worker_left(worker, now_ms(), proposal_);
    } else if (!gate_.failed()) {
      ledger_->worker_lost(worker, hello.worker_name() + " was lost: " + reason, now_ms(),
                           proposal_);
    }
  }
  sessions_.erase(at);
  if (!gate_.failed()) absorb();
  update_health();
}

// What was leased to a worker that is gone, but still waited to be sent, is none of its doing.
void Broker::take_back_unsent(const link::ServerSession& session) {
  std::unordered_set<link::FenceKey, link::FenceKeyHash> sent;
  for (const v1::Fence& fence : session.in_flight()) sent.insert(link::key_of(fence));
  for (const v1::Fence& fence : ledger_->running_on(session.worker())) {
    if (sent.contains(link::key_of(fence))) continue;
    ledger_->take_back(session.worker(), fence, "its worker was gone before it was sent", now_ms(),
                       proposal_);
  }
}

// Heartbeats out, leases that ran out.
void Broker::tend_sessions() {
  const TimeMs now = steady_ms();
  // Away for so long (a machine that slept, or had no time for us), we have to read first.
  const bool was_away = tended_ms_ != 0 && now - tended_ms_ > config_.link.lease_ms / 2;
  tended_ms_ = now;
  std::vector<link::ConnectionId> expired;
  for (auto& [connection, session] : sessions_) {
    if (was_away) session.excuse(now);
    if (session.expires_at_ms() <= now) {
      expired.push_back(connection);
    } else if (auto beat = session.heartbeat(now)) {
      transport_->send(connection, std::move(*beat));
    }
  }
  for (const link::ConnectionId connection : expired) {
    transport_->close(connection);
    const link::ServerSession& session = sessions_.at(connection);
    if (session.joined() && session.peer().local && deps_.worker_stuck) {
      deps_.worker_stuck(session.hello().pid());
    }
    lose(connection, "no sign of life for " + std::to_string(config_.link.lease_ms) + " ms");
  }
}

// By which model a request is run now. While nobody serves its own one, the first of its fallbacks
// that is served and does the task takes its place.
std::optional<std::string> Broker::model_for(const ledger::Request& request) const {
  if (dispatcher_.serves(request.model)) return request.model;
  const auto fallback = config_.fallbacks.find(request.model);
  if (fallback == config_.fallbacks.end()) return std::nullopt;
  const auto served = std::find_if(
      fallback->second.begin(), fallback->second.end(), [&](const std::string& other) {
        return dispatcher_.serves(other) && does_task(other, request.envelope->type());
      });
  return served == fallback->second.end() ? std::nullopt : std::optional(*served);
}

// Somebody could take a request for this model now, if it is of the right kind.
bool Broker::has_credit(const std::string& model) const {
  if (dispatcher_.serves(model)) return dispatcher_.has_credit(model);
  const auto fallback = config_.fallbacks.find(model);
  return fallback != config_.fallbacks.end() &&
         std::any_of(fallback->second.begin(), fallback->second.end(),
                     [&](const std::string& other) { return dispatcher_.has_credit(other); });
}

std::optional<WorkerId> Broker::pick_for(const ledger::Request& request, const std::string& model) {
  dispatch::Need need{.model = model,
                      .lane = request.conversation.empty() ? "" : request.lane,
                      .alone = request.suspect,
                      .begun = request.begun(),
                      .fingerprint = request.holds_ids() ? request.token_fingerprint : ""};
  if (!request.attempts.empty() && request.attempts.back().outcome() == "engine_error") {
    need.avoid = request.attempts.back().worker_name();
  }
  if (need.lane.empty() && dispatcher_.has_choice(model)) {
    need.prefix = dispatch::prefix_chain(request.envelope->tenant() + '\n' + model,
                                         request.envelope->data());
  }
  return dispatcher_.pick(need);
}

// Gives ready heads of lanes to workers with credit.
void Broker::dispatch() {
  if (gate_.failed() || draining_) return;
  dispatcher_.begin_round();
  struct Pick {
    RequestId id;
    WorkerId worker;
    std::string model;
  };
  std::vector<Pick> picks;
  for (const std::string& model : ledger_->order().models()) {
    if (!has_credit(model)) continue;
    ledger_->order().visit(model, [&](RequestId id) {
      const ledger::Request& request = *ledger_->find(id);
      auto runs = model_for(request);
      if (!runs) return true;  // nobody does its task; others of this model may want another one
      const auto found = pick_for(request, *runs);
      if (found) picks.push_back({id, *found, std::move(*runs)});
      // Others need not wait for a suspect's empty worker, or for one that can go on from an
      // answer.
      return found || request.suspect || request.begun();
    });
  }
  const TimeMs now = now_ms();
  for (const Pick& pick : picks) {
    const link::ServerSession* session = session_of(pick.worker);
    CHECK(session != nullptr);
    ledger::Runner runner{.worker = pick.worker, .worker_name = session->hello().worker_name()};
    for (const v1::ModelInfo& model : session->hello().models()) {
      if (model.id() == pick.model) runner.fingerprint = model.fingerprint();
    }
    if (pick.model != ledger_->find(pick.id)->model) runner.model = pick.model;
    ledger_->lease(pick.id, runner, now, proposal_);
  }
  if (!picks.empty()) absorb();
}

link::ServerSession* Broker::session_of(WorkerId worker) {
  const auto connection = connections_.find(worker);
  if (connection == connections_.end()) return nullptr;
  const auto at = sessions_.find(connection->second);
  return at == sessions_.end() ? nullptr : &at->second;
}

// From a lease to the worker: put together what depends on earlier turns, wait for the disk where
// running twice would do harm, send.
void Broker::start_work(ledger::StartWork work) {
  const auto id = RequestId::from_bytes(work.assign.fence().request());
  if (ledger_->find(*id)->compose) {
    compose(std::move(work));
  } else {
    send_durably(std::move(work));
  }
}

void Broker::compose(ledger::StartWork work) {
  if (deps_.composer == nullptr) {
    composed(std::move(work),
             Error{Code::kInvalidArgument, "this server doesn't keep the turns of conversations"});
    return;
  }
  v1::Envelope envelope = work.assign.envelope();
  deps_.composer->compose(std::move(envelope),
                          [this, work = std::move(work)](Result<std::string> data) {
                            inbox_.send_reserved([this, work, data = std::move(data)]() mutable {
                              composed(std::move(work), std::move(data));
                            });
                          });
}

void Broker::composed(ledger::StartWork work, Result<std::string> data) {
  if (gate_.failed()) return;
  if (data) {
    work.assign.mutable_envelope()->set_data(std::move(*data));
    send_durably(std::move(work));
    return;
  }
  v1::Output output;
  *output.mutable_fence() = work.assign.fence();
  v1::Failure& failure = *output.mutable_failure();
  failure.set_code(std::string(code_name(data.error().code)));
  failure.set_message(data.error().message);
  failure.set_param(data.error().param);
  failure.set_retry_after_ms(static_cast<std::uint32_t>(std::max(data.error().retry_after_ms, 0)));
  ledger_->output(work.worker, output, now_ms(), proposal_);
  dispatcher_.release(work.worker);
  absorb();
}

// Local engines may begin before the lease is durable: what they make becomes visible only through
// later records of the same log, and running them twice does no harm.
void Broker::send_durably(ledger::StartWork work) {
  const link::ServerSession* session = session_of(work.worker);
  if (session == nullptr || !session->hello().wait_durable()) {
    send_work(std::move(work));
    return;
  }
  when_durable([this, work = std::move(work)](const Error* lost) mutable {
    if (lost == nullptr) send_work(std::move(work));
  });
}

void Broker::send_work(ledger::StartWork work) {
  link::ServerSession* session = session_of(work.worker);
  if (session == nullptr) return;  // lost meanwhile, and the request is in its lane again
  if (!ledger_->is_current(work.worker, work.assign.fence())) {
    dispatcher_.release(work.worker);  // cancelled or expired meanwhile
    return;
  }
  if (session->leaving()) {
    ledger_->take_back(work.worker, work.assign.fence(), "its worker takes no new work any more",
                       now_ms(), proposal_);
    dispatcher_.release(work.worker);
    absorb();
    return;
  }
  CHECK(session->credit() > 0);
  const link::ConnectionId connection = session->connection();
  transport_->send(connection, session->assign(std::move(work.assign)));
}

void Broker::stop_work(const ledger::StopWork& work) {
  link::ServerSession* session = session_of(work.worker);
  if (session == nullptr) return;
  if (auto cancel = session->cancel(work.fence)) {
    transport_->send(session->connection(), std::move(*cancel));
  }
}

}  // namespace waystation::broker
