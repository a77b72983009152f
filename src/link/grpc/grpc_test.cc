#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include "link/grpc/grpc_client.h"
#include "link/grpc/grpc_server.h"

namespace waystation::link {
namespace {

struct TempDir {
  TempDir() {
    char pattern[] = "/tmp/ws-link-XXXXXX";
    path = ::mkdtemp(pattern);
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  std::string socket() const { return "unix:" + path + "/link.sock"; }
  std::string path;
};

v1::WorkerMessage beat(std::uint32_t number) {
  v1::WorkerMessage message;
  message.mutable_heartbeat()->set_active(number);
  return message;
}

v1::ServerMessage answer(std::size_t bytes) {
  v1::ServerMessage message;
  message.mutable_refused()->set_message(std::string(bytes, 'x'));
  return message;
}

// What each end saw; wait() until a condition on it holds.
struct Seen {
  template <typename Condition>
  void wait(Condition condition) {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(20), condition));
  }
  template <typename Change>
  void update(Change change) {
    std::lock_guard lock(mutex);
    change();
    changed.notify_all();
  }
  std::mutex mutex;
  std::condition_variable changed;
};

struct Server : Seen, ServerEvents {
  void on_connected(ConnectionId connection, Peer from) override {
    update([&] { last = connection, peer = from, ++connected; });
  }
  void on_message(ConnectionId connection, v1::WorkerMessage message) override {
    if (echo != nullptr) {
      v1::ServerMessage back;
      back.mutable_heartbeat()->set_active(message.heartbeat().active());
      echo->send(connection, std::move(back));
    }
    std::unique_lock lock(mutex);
    heard.push_back(message.heartbeat().active());
    changed.notify_all();
    changed.wait(lock, [&] { return !blocked; });
  }
  void on_disconnected(ConnectionId, std::string why) override {
    update([&] { reason = std::move(why), ++disconnected; });
  }
  ServerTransport* echo = nullptr;
  ConnectionId last;
  Peer peer;
  int connected = 0;
  int disconnected = 0;
  bool blocked = false;
  std::string reason;
  std::vector<std::uint32_t> heard;
};

struct Client : Seen, WorkerEvents {
  void on_message(v1::ServerMessage message) override {
    std::unique_lock lock(mutex);
    ++messages;
    if (message.has_heartbeat()) heard.push_back(message.heartbeat().active());
    changed.notify_all();
    changed.wait(lock, [&] { return !blocked; });
  }
  void on_disconnected(std::string why) override {
    update([&] { reason = std::move(why), gone = true; });
  }
  std::size_t messages = 0;
  bool blocked = false;
  bool gone = false;
  std::string reason;
  std::vector<std::uint32_t> heard;
};

GrpcClientOptions to(const std::string& address) {
  GrpcClientOptions options;
  options.address = address;
  return options;
}

TEST(GrpcLinkTest, CarriesBothWaysOverAUnixSocketInOrder) {
  TempDir dir;
  Server server;
  Client client;
  GrpcLinkServer link({.addresses = {dir.socket()}});
  server.echo = &link;
  ASSERT_TRUE(link.start(server));
  struct stat status = {};
  ASSERT_EQ(::stat((dir.path + "/link.sock").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 077, 0u);  // nobody else may open it

  auto end = connect_grpc(to(dir.socket()), client);
  ASSERT_TRUE(end) << end.error().message;
  constexpr std::uint32_t kCount = 5000;
  for (std::uint32_t i = 0; i < kCount; ++i) ASSERT_TRUE((*end)->send(beat(i)));
  client.wait([&] { return client.heard.size() == kCount; });
  for (std::uint32_t i = 0; i < kCount; ++i) ASSERT_EQ(client.heard[i], i);
  EXPECT_TRUE(server.peer.local);

  (void)(*end)->send(beat(kCount));
  end->reset();  // writes what was sent before
  server.wait([&] { return server.disconnected == 1; });
  EXPECT_EQ(server.heard.back(), kCount);
  EXPECT_TRUE(client.gone);
}

TEST(GrpcLinkTest, ListensOnTcpBesideTheSocketAndKnowsWhichIsLocal) {
  TempDir dir;
  Server server;
  Client client;
  GrpcLinkServer link({.addresses = {dir.socket(), "127.0.0.1:0"}});
  ASSERT_TRUE(link.start(server));
  const auto end = connect_grpc(to("127.0.0.1:" + std::to_string(link.ports()[1])), client);
  ASSERT_TRUE(end) << end.error().message;
  server.wait([&] { return server.connected == 1; });
  EXPECT_FALSE(server.peer.local);
  EXPECT_TRUE(server.peer.address.starts_with("ipv4:127.0.0.1:")) << server.peer.address;
}

// gRPC's callback threads go with its last object: the ends must not leave that to one of them.
TEST(GrpcLinkTest, ComesAndGoesManyTimes) {
  for (int i = 0; i < 50; ++i) {
    TempDir dir;
    Server server;
    Client client;
    GrpcLinkServer link({.addresses = {dir.socket()}});
    server.echo = &link;
    ASSERT_TRUE(link.start(server));
    auto end = connect_grpc(to(dir.socket()), client);
    ASSERT_TRUE(end);
    ASSERT_TRUE((*end)->send(beat(1)));
    client.wait([&] { return client.heard.size() == 1; });
    link.stop();
    end->reset();
  }
}

TEST(GrpcLinkTest, CloseWritesWhatWasSentBefore) {
  TempDir dir;
  Server server;
  Client client;
  GrpcLinkServer link({.addresses = {dir.socket()}});
  ASSERT_TRUE(link.start(server));
  const auto end = connect_grpc(to(dir.socket()), client);
  ASSERT_TRUE(end);
  server.wait([&] { return server.connected == 1; });
  for (int i = 0; i < 100; ++i) link.send(server.last, answer(10'000));
  link.close(server.last);
  link.send(server.last, answer(1));  // too late
  client.wait([&] { return client.gone; });
  EXPECT_EQ(client.messages, 100u);
  EXPECT_FALSE((*end)->send(beat(1)));
  server.wait([&] { return server.disconnected == 1; });
  EXPECT_NE(server.reason.find("server closed"), std::string::npos) << server.reason;
}

TEST(GrpcLinkTest, AServerThatStopsTellsBothEnds) {
  TempDir dir;
  Server server;
  Client client;
  GrpcLinkServer link({.addresses = {dir.socket()}});
  ASSERT_TRUE(link.start(server));
  const auto end = connect_grpc(to(dir.socket()), client);
  ASSERT_TRUE(end);
  server.wait([&] { return server.connected == 1; });
  link.stop();
  EXPECT_EQ(server.disconnected, 1);
  client.wait([&] { return client.gone; });
  link.send(server.last, answer(1));  // harmless
  link.close(server.last);
}

TEST(GrpcLinkTest, ASlowOwnerSlowsTheWorkerDown) {
  TempDir dir;
  Server server;
  Client client;
  server.blocked = true;
  GrpcLinkServer link({.addresses = {dir.socket()}});
  ASSERT_TRUE(link.start(server));
  GrpcClientOptions options = to(dir.socket());
  options.queued_bytes_max = 1 << 20;
  auto end = connect_grpc(options, client);
  ASSERT_TRUE(end);
  v1::WorkerMessage big;
  big.mutable_leaving()->set_reason(std::string(100'000, 'x'));
  Seen progress;
  std::size_t sent = 0;
  constexpr std::size_t kCount = 1000;  // 100 MB, far more than all buffers together
  std::thread sender([&] {
    for (std::size_t i = 0; i < kCount; ++i) {
      if (!(*end)->send(big)) return;
      progress.update([&] { ++sent; });
    }
  });
  server.wait([&] { return server.heard.size() == 1; });
  {
    // Nothing more is read while the owner is busy: it will never all be sent.
    std::unique_lock lock(progress.mutex);
    EXPECT_FALSE(progress.changed.wait_for(lock, std::chrono::milliseconds(500),
                                           [&] { return sent == kCount; }));
  }
  EXPECT_TRUE((*end)->send_if_room(beat(1)));
  server.update([&] { server.blocked = false; });
  sender.join();
  end->reset();
  server.wait([&] { return server.disconnected == 1; });
  EXPECT_GE(server.heard.size(), kCount);
}

TEST(GrpcLinkTest, AWorkerThatDoesntReadIsDisconnected) {
  TempDir dir;
  Server server;
  Client client;
  client.blocked = true;
  GrpcLinkServer link({.addresses = {dir.socket()}, .queued_bytes_max = 4 << 20});
  ASSERT_TRUE(link.start(server));
  const auto end = connect_grpc(to(dir.socket()), client);
  ASSERT_TRUE(end);
  server.wait([&] { return server.connected == 1; });
  for (int i = 0; i < 200; ++i) link.send(server.last, answer(1 << 20));
  server.wait([&] { return server.disconnected == 1; });
  EXPECT_NE(server.reason.find("doesn't read"), std::string::npos) << server.reason;
  client.update([&] { client.blocked = false; });
  client.wait([&] { return client.gone; });
}

TEST(GrpcLinkTest, LargeMessagesPass) {
  TempDir dir;
  Server server;
  Client client;
  GrpcLinkServer link({.addresses = {dir.socket()}});
  ASSERT_TRUE(link.start(server));
  const auto end = connect_grpc(to(dir.socket()), client);
  ASSERT_TRUE(end);
  server.wait([&] { return server.connected == 1; });
  link.send(server.last, answer(32 << 20));
  client.wait([&] { return client.messages == 1; });
}

TEST(GrpcLinkTest, SaysWhatIsWrongWithAnAddress) {
  TempDir dir;
  Server server;
  Client client;
  const auto start_code = [&](std::vector<std::string> addresses) {
    GrpcLinkServer link({.addresses = std::move(addresses)});
    const Status started = link.start(server);
    EXPECT_FALSE(started);
    return started ? Code::kInternal : started.error().code;
  };
  EXPECT_EQ(start_code({}), Code::kInvalidArgument);
  EXPECT_EQ(start_code({"7070"}), Code::kInvalidArgument);
  EXPECT_EQ(start_code({"host:port"}), Code::kInvalidArgument);
  EXPECT_EQ(start_code({"unix:" + std::string(200, 'x')}), Code::kInvalidArgument);

  GrpcLinkServer first({.addresses = {"127.0.0.1:0"}});
  ASSERT_TRUE(first.start(server));
  const std::string taken = "127.0.0.1:" + std::to_string(first.ports()[0]);
  EXPECT_EQ(start_code({taken}), Code::kBusy);

  GrpcClientOptions nobody = to(dir.socket());
  nobody.connect_timeout_ms = 50;
  const auto end = connect_grpc(nobody, client);
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, Code::kUnavailable);
  EXPECT_NE(end.error().message.find(dir.socket()), std::string::npos);
}

}  // namespace
}  // namespace waystation::link
