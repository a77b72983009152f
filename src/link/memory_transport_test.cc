#include "link/memory_transport.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <vector>

namespace waystation::link {
namespace {

v1::WorkerMessage beat(std::uint32_t number) {
  v1::WorkerMessage message;
  message.mutable_heartbeat()->set_active(number);
  return message;
}

// Writes down what happens at the server; echoes heartbeats if asked to.
struct Server : ServerEvents {
  void on_connected(ConnectionId connection, Peer peer) override {
    note("connected " + peer.address);
    last = connection;
  }
  void on_message(ConnectionId connection, v1::WorkerMessage message) override {
    note("heard " + std::to_string(message.heartbeat().active()));
    if (echo == nullptr) return;
    v1::ServerMessage answer;
    answer.mutable_heartbeat()->set_active(message.heartbeat().active());
    echo->send(connection, std::move(answer));
  }
  void on_disconnected(ConnectionId, std::string reason) override { note("gone " + reason); }

  void note(std::string text) {
    std::lock_guard lock(mutex);
    notes.push_back(std::move(text));
    changed.notify_all();
  }
  void wait_for(std::size_t count) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return notes.size() >= count; });
  }

  ServerTransport* echo = nullptr;
  ConnectionId last;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> notes;
};

struct Client : WorkerEvents {
  void on_message(v1::ServerMessage message) override {
    std::lock_guard lock(mutex);
    heard.push_back(message.heartbeat().active());
    changed.notify_all();
  }
  void on_disconnected(std::string reason) override {
    std::lock_guard lock(mutex);
    gone = std::move(reason);
    changed.notify_all();
  }
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::uint32_t> heard;
  std::string gone;
};

TEST(MemoryLinkTest, SteppedDeliversInOrderWhenAsked) {
  Server server;
  Client client;
  MemoryLink link(MemoryLink::Delivery::kStepped);
  server.echo = &link;
  link.serve(server);
  const auto end = link.connect(Peer{"unix:", true}, client);
  EXPECT_TRUE(end->send(beat(1)));
  EXPECT_TRUE(end->send(beat(2)));
  EXPECT_TRUE(server.notes.empty());
  EXPECT_EQ(link.deliver_all(), 5u);
  EXPECT_EQ(server.notes, (std::vector<std::string>{"connected unix:", "heard 1", "heard 2"}));
  EXPECT_EQ(client.heard, (std::vector<std::uint32_t>{1, 2}));
}

TEST(MemoryLinkTest, CloseDeliversWhatWasSentBefore) {
  Server server;
  Client client;
  MemoryLink link(MemoryLink::Delivery::kStepped);
  link.serve(server);
  const auto end = link.connect(Peer{"unix:", true}, client);
  (void)end->send(beat(1));
  end->close();
  EXPECT_FALSE(end->send(beat(2)));
  link.deliver_all();
  EXPECT_EQ(server.notes,
            (std::vector<std::string>{"connected unix:", "heard 1", "gone worker closed"}));
  EXPECT_EQ(client.gone, "worker closed");
}

TEST(MemoryLinkTest, CutLosesWhatIsUnderWay) {
  Server server;
  Client client;
  MemoryLink link(MemoryLink::Delivery::kStepped);
  link.serve(server);
  const auto end = link.connect(Peer{"unix:", true}, client);
  link.deliver_all();
  (void)end->send(beat(1));
  link.send(server.last, v1::ServerMessage());
  link.cut(server.last);
  EXPECT_FALSE(end->send(beat(2)));
  link.send(server.last, v1::ServerMessage());
  link.deliver_all();
  EXPECT_EQ(server.notes, (std::vector<std::string>{"connected unix:", "gone connection cut"}));
  EXPECT_TRUE(client.heard.empty());
  EXPECT_EQ(client.gone, "connection cut");
}

TEST(MemoryLinkTest, ThreadedCarriesBothWays) {
  Server server;
  Client client;
  MemoryLink link(MemoryLink::Delivery::kThreaded);
  server.echo = &link;
  link.serve(server);
  auto end = link.connect(Peer{"unix:", true}, client);
  for (std::uint32_t i = 0; i < 10'000; ++i) ASSERT_TRUE(end->send(beat(i)));
  {
    std::unique_lock lock(client.mutex);
    client.changed.wait(lock, [&] { return client.heard.size() == 10'000; });
    for (std::uint32_t i = 0; i < 10'000; ++i) ASSERT_EQ(client.heard[i], i);
  }
  end.reset();
  server.wait_for(10'002);
  EXPECT_EQ(server.notes.back(), "gone worker closed");
}

TEST(MemoryLinkTest, TheWorkersEndMayOutliveTheLink) {
  Server server;
  Client client;
  auto link = std::make_unique<MemoryLink>(MemoryLink::Delivery::kThreaded);
  link->serve(server);
  const auto end = link->connect(Peer{"unix:", true}, client);
  link.reset();
  EXPECT_FALSE(end->send(beat(1)));
}

}  // namespace
}  // namespace waystation::link
