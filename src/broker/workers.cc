// Workers: their sessions, what they bring, and what they get.
#include <algorithm>
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
  inbox_.send([this, connection, message = std::move(message)]() mutable {
    do_message(connection, std::move(message));
  });
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
    std::vector<std::string> names;
    for (const v1::ModelInfo& model : hello.models()) {
      names.push_back(model.id());
      Known& known = models_[model.id()];
      known.info = model;
      ++known.workers;
      if (known.since_ms == 0) known.since_ms = now_ms();
    }
    dispatcher_.add(worker, names, hello.slots());
    if (at->second.leaving()) dispatcher_.set_leaving(worker);  // it changed its mind meanwhile
    metrics_.workers.set(static_cast<double>(connections_.size()));
    WS_LOG(info, "worker joined worker={} id={} pid={} slots={} model={}", hello.worker_name(),
           worker.value, hello.pid(), hello.slots(), names.front());
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

// Heartbeats out, leases that ran out.
void Broker::tend_sessions() {
  const TimeMs now = steady_ms();
  std::vector<link::ConnectionId> expired;
  for (auto& [connection, session] : sessions_) {
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

// Gives ready heads of lanes to workers with credit.
void Broker::dispatch() {
  if (gate_.failed() || draining_) return;
  dispatcher_.begin_round();
  std::vector<std::pair<RequestId, WorkerId>> picks;
  for (const std::string& model : ledger_->order().models()) {
    if (!dispatcher_.has_credit(model)) continue;
    ledger_->order().visit(model, [&](RequestId id) {
      const ledger::Request& request = *ledger_->find(id);
      const auto worker = dispatcher_.pick(model, request.conversation.empty() ? "" : request.lane,
                                           request.suspect());
      if (worker) picks.emplace_back(id, *worker);
      return worker || request.suspect();  // others need not wait for a suspect's empty worker
    });
  }
  const TimeMs now = now_ms();
  for (const auto& [id, worker] : picks) {
    const link::ServerSession* session = session_of(worker);
    CHECK(session != nullptr);
    ledger_->lease(id, worker, session->hello().worker_name(), now, proposal_);
  }
  if (!picks.empty()) absorb();
}

link::ServerSession* Broker::session_of(WorkerId worker) {
  const auto connection = connections_.find(worker);
  if (connection == connections_.end()) return nullptr;
  const auto at = sessions_.find(connection->second);
  return at == sessions_.end() ? nullptr : &at->second;
}

// Local engines may begin before the lease is durable: what they make becomes visible only through
// later records of the same log, and running them twice does no harm.
void Broker::start_work(ledger::StartWork work) {
  link::ServerSession* session = session_of(work.worker);
  CHECK(session != nullptr && session->credit() > 0);
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
