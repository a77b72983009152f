#include "link/memory_transport.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "base/check.h"

namespace waystation::link {
namespace {

constexpr std::size_t kQueuedMax = 4096;  // messages to the server before a worker's send waits

struct Connected {
  Peer peer;
};
struct Disconnected {
  std::string reason;
};

// Something on its way to one of the ends.
struct Item {
  std::uint64_t order = 0;
  ConnectionId connection;
  std::variant<Connected, v1::WorkerMessage, v1::ServerMessage, Disconnected> what;
};

struct Connection {
  WorkerEvents* worker = nullptr;  // null once the worker's end is gone
  bool open = true;
  bool delivering = false;  // a worker event is being called
  std::thread::id deliverer;
};

}  // namespace

struct MemoryLink::State {
  std::mutex mutex;
  std::condition_variable changed;
  bool threaded = false;
  bool stopping = false;
  ServerEvents* server = nullptr;
  std::uint64_t next_order = 1;
  std::uint64_t next_connection = 1;
  std::map<ConnectionId, Connection> connections;
  std::deque<Item> to_server;
  std::deque<Item> to_worker;
  std::vector<std::thread> threads;

  // The functions below are called with `mutex` held; deliver() lets go of it during the call.
  template <typename What>
  void push(std::deque<Item>& queue, ConnectionId id, What what) {
    queue.push_back(Item{next_order++, id, std::move(what)});
    changed.notify_all();
  }

  void disconnect(ConnectionId id, const std::string& reason) {
    const auto found = connections.find(id);
    if (found == connections.end() || !found->second.open) return;
    found->second.open = false;
    push(to_server, id, Disconnected{reason});
    push(to_worker, id, Disconnected{reason});
  }

  void cut(ConnectionId id, const std::string& reason) {
    const auto found = connections.find(id);
    if (found == connections.end() || !found->second.open) return;
    // The notice of the connection itself stays: the server must hear of it before it ends.
    std::erase_if(to_server, [id](const Item& item) {
      return item.connection == id && !std::holds_alternative<Connected>(item.what);
    });
    std::erase_if(to_worker, [id](const Item& item) { return item.connection == id; });
    disconnect(id, reason);
  }

  void deliver(std::deque<Item>& queue, std::unique_lock<std::mutex>& lock) {
    Item item = std::move(queue.front());
    queue.pop_front();
    changed.notify_all();
    if (&queue == &to_server) {
      lock.unlock();
      tell_server(std::move(item));
      lock.lock();
      return;
    }
    const auto found = connections.find(item.connection);
    if (found == connections.end() || found->second.worker == nullptr) return;
    WorkerEvents* const worker = found->second.worker;
    const bool last = std::holds_alternative<Disconnected>(item.what);
    if (last) found->second.worker = nullptr;
    found->second.delivering = true;
    found->second.deliverer = std::this_thread::get_id();
    lock.unlock();
    if (last) {
      worker->on_disconnected(std::move(std::get<Disconnected>(item.what).reason));
    } else {
      worker->on_message(std::move(std::get<v1::ServerMessage>(item.what)));
    }
    lock.lock();
    connections.at(item.connection).delivering = false;
    changed.notify_all();
  }

  void tell_server(Item item) {
    if (auto* connected = std::get_if<Connected>(&item.what)) {
      server->on_connected(item.connection, std::move(connected->peer));
    } else if (auto* message = std::get_if<v1::WorkerMessage>(&item.what)) {
      server->on_message(item.connection, std::move(*message));
    } else {
      server->on_disconnected(item.connection, std::move(std::get<Disconnected>(item.what).reason));
    }
  }

  void run(std::deque<Item>& queue) {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return stopping || !queue.empty(); });
      if (stopping) return;
      deliver(queue, lock);
    }
  }
};

namespace {

class MemoryWorkerEnd final : public WorkerTransport {
 public:
  MemoryWorkerEnd(std::shared_ptr<MemoryLink::State> state, ConnectionId id)
      : state_(std::move(state)), id_(id) {}

  ~MemoryWorkerEnd() override {
    std::unique_lock lock(state_->mutex);
    state_->disconnect(id_, "worker closed");
    Connection& connection = state_->connections.at(id_);
    connection.worker = nullptr;
    CHECK(!connection.delivering || connection.deliverer != std::this_thread::get_id());
    state_->changed.wait(lock, [&] { return !connection.delivering; });
    state_->connections.erase(id_);
  }

  bool send(v1::WorkerMessage message) override {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [&] {
      return !open() || !state_->threaded || state_->to_server.size() < kQueuedMax;
    });
    if (!open()) return false;
    state_->push(state_->to_server, id_, std::move(message));
    return true;
  }

  bool send_if_room(v1::WorkerMessage message) override {
    std::lock_guard lock(state_->mutex);
    if (!open()) return false;
    if (state_->to_server.size() < kQueuedMax) {
      state_->push(state_->to_server, id_, std::move(message));
    }
    return true;
  }

  void close() override {
    std::lock_guard lock(state_->mutex);
    state_->disconnect(id_, "worker closed");
  }

 private:
  bool open() const { return !state_->stopping && state_->connections.at(id_).open; }

  const std::shared_ptr<MemoryLink::State> state_;
  const ConnectionId id_;
};

}  // namespace

MemoryLink::MemoryLink(Delivery delivery) : state_(std::make_shared<State>()) {
  state_->threaded = delivery == Delivery::kThreaded;
}

MemoryLink::~MemoryLink() { stop(); }

void MemoryLink::stop() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->changed.notify_all();
  }
  for (std::thread& thread : state_->threads) thread.join();
  state_->threads.clear();
}

void MemoryLink::serve(ServerEvents& events) {
  CHECK(state_->server == nullptr);
  state_->server = &events;
  if (!state_->threaded) return;
  State* const state = state_.get();
  state_->threads.emplace_back([state] { state->run(state->to_server); });
  state_->threads.emplace_back([state] { state->run(state->to_worker); });
}

std::unique_ptr<WorkerTransport> MemoryLink::connect(Peer peer, WorkerEvents& events) {
  std::lock_guard lock(state_->mutex);
  CHECK(state_->server != nullptr);
  const ConnectionId id{state_->next_connection++};
  state_->connections[id].worker = &events;
  state_->push(state_->to_server, id, Connected{std::move(peer)});
  return std::make_unique<MemoryWorkerEnd>(state_, id);
}

void MemoryLink::send(ConnectionId connection, v1::ServerMessage message) {
  std::lock_guard lock(state_->mutex);
  const auto found = state_->connections.find(connection);
  if (state_->stopping || found == state_->connections.end() || !found->second.open) return;
  state_->push(state_->to_worker, connection, std::move(message));
}

void MemoryLink::close(ConnectionId connection) {
  std::lock_guard lock(state_->mutex);
  state_->disconnect(connection, "server closed");
}

void MemoryLink::cut(ConnectionId connection, const std::string& reason) {
  std::lock_guard lock(state_->mutex);
  state_->cut(connection, reason);
}

void MemoryLink::cut_all() {
  std::lock_guard lock(state_->mutex);
  for (const auto& [id, connection] : state_->connections) state_->cut(id, "connection cut");
}

bool MemoryLink::deliver_one() {
  std::unique_lock lock(state_->mutex);
  CHECK(!state_->threaded);
  auto& to_server = state_->to_server;
  auto& to_worker = state_->to_worker;
  if (to_server.empty() && to_worker.empty()) return false;
  const bool server_first =
      !to_server.empty() &&
      (to_worker.empty() || to_server.front().order < to_worker.front().order);
  state_->deliver(server_first ? to_server : to_worker, lock);
  return true;
}

std::size_t MemoryLink::deliver_all() {
  std::size_t delivered = 0;
  while (deliver_one()) ++delivered;
  return delivered;
}

}  // namespace waystation::link
