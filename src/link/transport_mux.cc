#include "link/transport_mux.h"

#include <utility>

#include "base/check.h"

namespace waystation::link {
namespace {

constexpr int kShift = 48;
constexpr std::uint64_t kOwnMask = (std::uint64_t{1} << kShift) - 1;

}  // namespace

class TransportMux::Port final : public ServerEvents {
 public:
  Port(ServerTransport& transport, std::uint64_t number, ServerEvents& events)
      : transport_(transport), prefix_(number << kShift), events_(events) {}

  ServerTransport& transport() { return transport_; }

  void on_connected(ConnectionId connection, Peer peer) override {
    events_.on_connected(outer(connection), std::move(peer));
  }
  void on_message(ConnectionId connection, v1::WorkerMessage message) override {
    events_.on_message(outer(connection), std::move(message));
  }
  void on_disconnected(ConnectionId connection, std::string reason) override {
    events_.on_disconnected(outer(connection), std::move(reason));
  }

 private:
  ConnectionId outer(ConnectionId own) const {
    CHECK(own.value <= kOwnMask);
    return ConnectionId{prefix_ | own.value};
  }

  ServerTransport& transport_;
  const std::uint64_t prefix_;
  ServerEvents& events_;
};

TransportMux::TransportMux(ServerEvents& events) : events_(events) {}

TransportMux::~TransportMux() = default;

ServerEvents& TransportMux::add(ServerTransport& transport) {
  ports_.push_back(std::make_unique<Port>(transport, ports_.size(), events_));
  return *ports_.back();
}

void TransportMux::send(ConnectionId connection, v1::ServerMessage message) {
  const std::uint64_t number = connection.value >> kShift;
  if (number >= ports_.size()) return;
  ports_[number]->transport().send(ConnectionId{connection.value & kOwnMask}, std::move(message));
}

void TransportMux::close(ConnectionId connection) {
  const std::uint64_t number = connection.value >> kShift;
  if (number >= ports_.size()) return;
  ports_[number]->transport().close(ConnectionId{connection.value & kOwnMask});
}

}  // namespace waystation::link
