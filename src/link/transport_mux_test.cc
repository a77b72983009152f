#include "link/transport_mux.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace waystation::link {
namespace {

struct Told {
  std::string what;
  ConnectionId connection;
};

class Heard final : public ServerEvents {
 public:
  void on_connected(ConnectionId id, Peer peer) override { told.push_back({peer.address, id}); }
  void on_message(ConnectionId id, v1::WorkerMessage) override { told.push_back({"message", id}); }
  void on_disconnected(ConnectionId id, std::string reason) override {
    told.push_back({std::move(reason), id});
  }
  std::vector<Told> told;
};

class Sent final : public ServerTransport {
 public:
  void send(ConnectionId id, v1::ServerMessage) override { sent.push_back(id.value); }
  void close(ConnectionId id) override { closed.push_back(id.value); }
  std::vector<std::uint64_t> sent, closed;
};

TEST(TransportMux, KeepsTheConnectionsOfTwoTransportsApart) {
  Heard heard;
  Sent first;
  Sent second;
  TransportMux mux(heard);
  ServerEvents& for_first = mux.add(first);
  ServerEvents& for_second = mux.add(second);

  for_first.on_connected(ConnectionId{1}, Peer{"first", true});
  for_second.on_connected(ConnectionId{1}, Peer{"second", true});
  for_second.on_message(ConnectionId{1}, {});
  ASSERT_EQ(heard.told.size(), 3u);
  EXPECT_EQ(heard.told[0].connection.value, 1u);  // the first one's ids are unchanged
  EXPECT_NE(heard.told[0].connection, heard.told[1].connection);
  EXPECT_EQ(heard.told[1].connection, heard.told[2].connection);

  mux.send(heard.told[1].connection, {});
  mux.close(heard.told[0].connection);
  EXPECT_EQ(second.sent, std::vector<std::uint64_t>{1});
  EXPECT_TRUE(first.sent.empty());
  EXPECT_EQ(first.closed, std::vector<std::uint64_t>{1});
  EXPECT_TRUE(second.closed.empty());

  for_second.on_disconnected(ConnectionId{1}, "gone");
  EXPECT_EQ(heard.told.back().what, "gone");
  EXPECT_EQ(heard.told.back().connection, heard.told[1].connection);
}

TEST(TransportMux, AConnectionOfNoTransportIsLetGo) {
  Heard heard;
  Sent only;
  TransportMux mux(heard);
  mux.add(only);
  mux.send(ConnectionId{std::uint64_t{7} << 48 | 1}, {});
  mux.close(ConnectionId{std::uint64_t{7} << 48 | 1});
  EXPECT_TRUE(only.sent.empty());
  EXPECT_TRUE(only.closed.empty());
}

}  // namespace
}  // namespace waystation::link
