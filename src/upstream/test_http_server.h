// An HTTP server for tests that does what a script says, byte for byte, on real sockets.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/check.h"

namespace waystation::upstream {

struct SeenRequest {
  std::string method;
  std::string path;
  std::map<std::string, std::string> headers;  // lower-case names
  std::string body;
  int connection = 0;            // from 1, in the order of their opening
  int number_on_connection = 0;  // from 1
};

// The connection that a request came on. Used by its own thread.
class TestPeer {
 public:
  explicit TestPeer(int socket) : socket_(socket) {}

  // False when the client is gone.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  // In pieces of so many bytes, each in a packet of its own.
  bool send_in_pieces(std::string_view bytes, std::size_t size) {
    for (std::size_t at = 0; at < bytes.size(); at += size) {
      if (!send(bytes.substr(at, size))) return false;
    }
    return true;
  }
  void close() { open_ = false; }
  // The client sees "connection reset" rather than an end.
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    open_ = false;
  }
  // Waits until the client closes (true), or the server ends.
  bool wait_gone() {
    char byte = 0;
    return ::recv(socket_, &byte, 1, 0) <= 0;
  }
  bool open() const { return open_; }

 private:
  const int socket_;
  bool open_ = true;
};

class TestHttpServer {
 public:
  using Handler = std::function<void(const SeenRequest&, TestPeer&)>;

  explicit TestHttpServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listener_ >= 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    CHECK(::listen(listener_, 128) == 0);
    socklen_t size = sizeof(address);
    CHECK(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }

  ~TestHttpServer() {
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    ::close(listener_);
    {
      std::lock_guard lock(mutex_);
      for (const auto& [number, socket] : sockets_) ::shutdown(socket, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
  }

  std::string url(const std::string& path = "/v1") const {
    return "http://127.0.0.1:" + std::to_string(port_) + path;
  }

  // Requests but those for the list of models.
  std::vector<SeenRequest> calls() {
    std::lock_guard lock(mutex_);
    return calls_;
  }
  void wait_calls(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return calls_.size() >= count; });
  }
  int connections() {
    std::lock_guard lock(mutex_);
    return opened_;
  }
  // What the list of models is answered with.
  std::atomic<int> probe_status = 200;
  std::atomic<int> probes = 0;

 private:
  void accept_all() {
    while (true) {
      const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) return;
      const int yes = 1;
      ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
      std::lock_guard lock(mutex_);
      const int number = ++opened_;
      sockets_[number] = socket;
      threads_.emplace_back([this, number, socket] { serve(number, socket); });
    }
  }

  void serve(int connection, int socket) {
    std::string input;
    TestPeer peer(socket);
    int count = 0;
    SeenRequest request;
    while (peer.open() && read_request(socket, input, request)) {
      request.connection = connection;
      if (request.method == "GET" && request.path.ends_with("/models")) {
        ++probes;
        peer.send("HTTP/1.1 " + std::to_string(probe_status.load()) +
                  " X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
        continue;
      }
      request.number_on_connection = ++count;
      {
        std::lock_guard lock(mutex_);
        calls_.push_back(request);
        changed_.notify_all();
      }
      handler_(request, peer);
    }
    std::lock_guard lock(mutex_);
    sockets_.erase(connection);
    ::close(socket);
  }

  static bool read_request(int socket, std::string& input, SeenRequest& request) {
    const auto more = [&] {
      char buffer[16384];
      const ssize_t n = ::recv(socket, buffer, sizeof(buffer), 0);
      if (n > 0) input.append(buffer, static_cast<std::size_t>(n));
      return n > 0;
    };
    std::size_t end = 0;
    while ((end = input.find("\r\n\r\n")) == std::string::npos) {
      if (!more()) return false;
    }
    request = {};
    std::size_t at = 0;
    bool first = true;
    while (at < end) {
      const std::size_t stop = input.find("\r\n", at);
      const std::string line = input.substr(at, stop - at);
      at = stop + 2;
      if (std::exchange(first, false)) {
        const std::size_t space = line.find(' ');
        request.method = line.substr(0, space);
        request.path = line.substr(space + 1, line.rfind(' ') - space - 1);
        continue;
      }
      const std::size_t colon = line.find(':');
      std::string name = line.substr(0, colon);
      std::transform(name.begin(), name.end(), name.begin(), ::tolower);
      request.headers[name] = line.substr(colon + 2);
    }
    const std::size_t length = request.headers.contains("content-length")
                                   ? std::stoul(request.headers["content-length"])
                                   : 0;
    while (input.size() < end + 4 + length) {
      if (!more()) return false;
    }
    request.body = input.substr(end + 4, length);
    input.erase(0, end + 4 + length);
    return true;
  }

  const Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  std::thread acceptor_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<SeenRequest> calls_;
  std::map<int, int> sockets_;
  int opened_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace waystation::upstream
