// An HTTP client for tests: a blocking socket, and answers as they are on the wire.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>

namespace waystation::front {

struct Answer {
  int status = 0;                              // 0: the connection ended before an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
  bool is_whole = false;                       // the body came to its proper end
};

class TestClient {
 public:
  explicit TestClient(std::uint16_t port, int receive_buffer_bytes = 0) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_buffer_bytes > 0) {
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
    }
    // So that a fault fails the test rather than hanging it.
    timeval limit{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    is_connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~TestClient() { close(); }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  bool is_connected() const { return is_connected_; }

  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  void get(const std::string& target, const std::string& headers = "") {
    send("GET " + target + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n");
  }
  void post(const std::string& target, const std::string& body, const std::string& headers = "") {
    send("POST " + target + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  }

  // The next answer, up to its end.
  Answer answer(bool is_head = false) {
    Answer out = head();
    if (out.status == 0) return out;
    if (is_head || out.status == 204) {
      out.is_whole = true;
    } else if (out.headers.contains("content-length")) {
      const auto size = std::stoul(out.headers["content-length"]);
      while (buffer_.size() < size && fill()) {
      }
      out.is_whole = buffer_.size() >= size;
      out.body = take(std::min<std::size_t>(size, buffer_.size()));
    } else if (out.headers.contains("transfer-encoding")) {
      out.is_whole = true;
      for (;;) {
        std::string chunk;
        if (!next_chunk(chunk)) {
          out.is_whole = false;
          break;
        }
        if (chunk.empty()) break;
        out.body += chunk;
      }
    } else {
      while (fill()) {
      }
      out.body = take(buffer_.size());
      out.is_whole = true;
    }
    return out;
  }

  // The next answer's head only.
  Answer head() {
    Answer out;
    std::size_t end = 0;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!fill()) return out;
    }
    std::string text = take(end + 4);
    out.status = std::atoi(text.c_str() + 9);
    std::size_t at = text.find("\r\n") + 2;
    while (at < text.size() - 2) {
      const std::size_t line_end = text.find("\r\n", at);
      const std::string line = text.substr(at, line_end - at);
      const std::size_t colon = line.find(": ");
      std::string name = line.substr(0, colon);
      std::transform(name.begin(), name.end(), name.begin(), ::tolower);
      out.headers[name] = line.substr(colon + 2);
      at = line_end + 2;
    }
    return out;
  }

  // One chunk of a chunked body; empty for the last. False when the connection ended.
  bool next_chunk(std::string& out) {
    std::size_t end = 0;
    while ((end = buffer_.find("\r\n")) == std::string::npos) {
      if (!fill()) return false;
    }
    const std::size_t size = std::stoul(buffer_.substr(0, end), nullptr, 16);
    while (buffer_.size() < end + 2 + size + 2) {
      if (!fill()) return false;
    }
    take(end + 2);
    out = take(size);
    take(2);
    return true;
  }

  // True when the server has closed the connection and nothing more was sent.
  bool is_at_end() { return buffer_.empty() && !fill(); }

  // Says that nothing more is sent; still reads.
  void end_sending() { ::shutdown(fd_, SHUT_WR); }

  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // Ends it with a reset instead of a goodbye.
  void reset() {
    linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }

 private:
  bool fill() {
    char bytes[65536];
    const ssize_t n = ::recv(fd_, bytes, sizeof bytes, 0);
    if (n < 0) {
      EXPECT_TRUE(errno != EAGAIN) << "the server sent nothing for 20 s";
    }
    if (n <= 0) return false;
    buffer_.append(bytes, static_cast<std::size_t>(n));
    return true;
  }
  std::string take(std::size_t size) {
    std::string out = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return out;
  }

  int fd_ = -1;
  bool is_connected_ = false;
  std::string buffer_;
};

}  // namespace waystation::front
