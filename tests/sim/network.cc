#include "sim/network.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace waystation::sim {

class WorkerEnd final : public link::WorkerTransport {
 public:
  WorkerEnd(Network& network, std::uint64_t id) : network_(network), id_(id) {}
  ~WorkerEnd() override { network_.worker_gone(id_); }

  bool send(v1::WorkerMessage message) override {
    const auto at = network_.sessions_.find(id_);
    if (at == network_.sessions_.end() || !at->second.open) return false;
    if (at->second.server_gone) {
      // Nobody is there to take it; once another server is, it says so.
      if (network_.server_ != nullptr) network_.end(id_, "connection reset");
      return true;
    }
    network_.to_server(id_, [id = id_, message = std::move(message)](link::ServerEvents& server) {
      server.on_message(link::ConnectionId{id}, message);
    });
    return true;
  }
  void close() override { network_.end(id_, "worker closed"); }

 private:
  Network& network_;
  const std::uint64_t id_;
};

Result<std::unique_ptr<link::WorkerTransport>> Network::connect(WorkerPort port) {
  if (server_ == nullptr) return Error{Code::kUnavailable, "no server is up"};
  const std::uint64_t id = ++last_session_;
  sessions_[id].worker = std::move(port);
  to_server(id, [this, id](link::ServerEvents& server) {
    sessions_.at(id).server_knows = true;
    server.on_connected(link::ConnectionId{id}, link::Peer{"unix:", true});
  });
  return std::make_unique<WorkerEnd>(*this, id);
}

void Network::to_server(std::uint64_t id, std::function<void(link::ServerEvents&)> event) {
  put(id, &Session::to_server, [this, event = std::move(event)] {
    event(server_->events());
    server_->poke();
  });
}

void Network::to_worker(std::uint64_t id, std::function<void(link::WorkerEvents&)> event) {
  put(id, &Session::to_worker, [this, id, event = std::move(event)] {
    const WorkerPort worker = sessions_.at(id).worker;  // a copy: the event may end the session
    if (worker.events == nullptr) return;
    event(*worker.events);
    worker.poke();
  });
}

void Network::put(std::uint64_t id, Pipe Session::*pipe, std::function<void()> event) {
  Pipe& line = sessions_.at(id).*pipe;
  line.last_arrival =
      std::max(line.last_arrival + 1, scheduler_.now() + dice_.between(50, latency_max_));
  line.under_way.emplace_back(line.last_arrival, std::move(event));
  if (std::exchange(line.pumping, true)) return;
  scheduler_.at(line.last_arrival, kWorldLife, [this, id, pipe] { pump(id, pipe); });
}

void Network::pump(std::uint64_t id, Pipe Session::*pipe) {
  const auto at = sessions_.find(id);
  if (at == sessions_.end()) return;
  Pipe& line = at->second.*pipe;
  line.pumping = false;
  if (line.under_way.empty()) return;
  if (ready_at(at->second, pipe) <= scheduler_.now()) {
    const auto event = std::move(line.under_way.front().second);
    line.under_way.pop_front();
    event();
  }
  const auto still = sessions_.find(id);
  if (still == sessions_.end()) return;
  Pipe& rest = still->second.*pipe;
  if (rest.under_way.empty() || std::exchange(rest.pumping, true)) return;
  scheduler_.at(ready_at(still->second, pipe), kWorldLife, [this, id, pipe] { pump(id, pipe); });
}

Micros Network::ready_at(const Session& session, Pipe Session::*pipe) const {
  const Micros arrives = std::max((session.*pipe).under_way.front().first, session.blocked_until);
  if (pipe == &Session::to_worker) return std::max(arrives, session.worker.frozen_until());
  const bool waits = server_ != nullptr && !server_->has_room();
  return waits ? std::max(arrives, scheduler_.now() + 200) : arrives;
}

void Network::send(link::ConnectionId connection, v1::ServerMessage message) {
  const auto at = sessions_.find(connection.value);
  if (at == sessions_.end() || !at->second.open) return;
  to_worker(connection.value, [message = std::move(message)](link::WorkerEvents& worker) {
    worker.on_message(message);
  });
}

void Network::close(link::ConnectionId connection) {
  end(connection.value, "server closed");
}

void Network::end(std::uint64_t id, const std::string& reason) {
  const auto at = sessions_.find(id);
  if (at == sessions_.end() || !at->second.open) return;
  at->second.open = false;
  if (!at->second.server_gone) {
    to_server(id, [id, reason](link::ServerEvents& server) {
      server.on_disconnected(link::ConnectionId{id}, reason);
    });
  }
  to_worker(id, [this, id, reason](link::WorkerEvents& worker) {
    sessions_.at(id).worker.events = nullptr;
    worker.on_disconnected(reason);
  });
}

void Network::worker_gone(std::uint64_t id) {
  const auto at = sessions_.find(id);
  if (at == sessions_.end() || at->second.worker.events == nullptr) return;
  at->second.worker.events = nullptr;
  end(id, "worker closed");
}

void Network::vanish(const link::WorkerEvents* events) {
  for (auto& [id, session] : sessions_) {
    if (session.worker.events != events) continue;
    session.worker.events = nullptr;
    session.to_server.under_way.clear();
  }
}

void Network::server_down(bool silently) {
  server_ = nullptr;
  std::erase_if(sessions_, [](const auto& entry) { return entry.second.worker.events == nullptr; });
  for (auto& [id, session] : sessions_) {
    session.server_gone = true;
    session.to_server.under_way.clear();  // what is under way is lost
    session.to_worker.under_way.clear();
    if (session.open && silently) continue;
    session.open = true;  // if not, the notice was on its way, and must still come
    end(id, "server died");
  }
}

void Network::cut_one() {
  const std::uint64_t id = random_session();
  if (id == 0) return;
  history_.note("network: session " + std::to_string(id) + " is cut");
  Session& session = sessions_.at(id);
  if (session.server_knows) session.to_server.under_way.clear();
  session.to_worker.under_way.clear();
  end(id, "connection cut");
}

void Network::partition_one(Micros duration) {
  const std::uint64_t id = random_session();
  if (id == 0) return;
  history_.note("network: session " + std::to_string(id) + " is partitioned");
  sessions_.at(id).blocked_until = scheduler_.now() + duration;
}

std::uint64_t Network::random_session() {
  std::vector<std::uint64_t> open;
  for (const auto& [id, session] : sessions_) {
    if (session.open && !session.server_gone) open.push_back(id);
  }
  return open.empty() ? 0 : dice_.pick(open);
}

}  // namespace waystation::sim
