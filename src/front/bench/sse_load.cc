// Many streams at once, and how evenly their tokens come.
//
//   sse_load PORT STREAMS TOKENS INTERVAL_MS
//
// Opens STREAMS streamed chats of TOKENS tokens each against a `waystation serve --scripted
// tokens=TOKENS,interval-ms=INTERVAL_MS`, whose token k comes k × INTERVAL_MS after the answer's
// start. So the earliest of (arrival − k × INTERVAL_MS) over a stream's tokens is when it would
// have begun without any delay, and how much later than by that clock a token comes is its added
// delay. Prints one line of JSON. One thread with epoll: it shares the machine with the server.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Stream {
  int socket = -1;
  std::string line;              // not complete yet
  std::vector<double> token_ms;  // when token k came
  bool done = false;             // had its [DONE]
  bool closed = false;
};

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

double now_ms() {
  return std::chrono::duration<double, std::milli>(Clock::now().time_since_epoch()).count();
}

void open_stream(Stream& stream, int port, int tokens, int number) {
  stream.socket = ::socket(AF_INET, SOCK_STREAM, 0);
  if (stream.socket < 0) fail("socket (ulimit -n?)");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(stream.socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    fail("connect");
  }
  const std::string body = R"({"model":"scripted","stream":true,"temperature":1,"max_tokens":)" +
                           std::to_string(tokens) +
                           R"(,"messages":[{"role":"user","content":"stream )" +
                           std::to_string(number) + R"("}]})";
  const std::string request =
      "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
      "content-length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  if (::send(stream.socket, request.data(), request.size(), 0) !=
      static_cast<ssize_t>(request.size())) {
    fail("send");
  }
}

void take_line(Stream& stream, std::string_view line, double at_ms) {
  if (line == "data: [DONE]") stream.done = true;
  const std::size_t content = line.find("\"content\":\"");
  if (content == std::string_view::npos) return;
  // A chunk may carry several tokens: "tok3 tok4 ".
  for (std::size_t at = line.find("tok", content); at != std::string_view::npos;
       at = line.find("tok", at + 1)) {
    stream.token_ms.push_back(at_ms);
  }
}

void read_stream(Stream& stream) {
  char buffer[1 << 16];
  const ssize_t got = ::recv(stream.socket, buffer, sizeof buffer, 0);
  const double at_ms = now_ms();
  if (got <= 0) {
    stream.closed = true;
    return;
  }
  std::string_view rest(buffer, static_cast<std::size_t>(got));
  for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
    stream.line.append(rest.substr(0, end));
    if (!stream.line.empty() && stream.line.back() == '\r') stream.line.pop_back();
    take_line(stream, stream.line, at_ms);
    stream.line.clear();
    rest.remove_prefix(end + 1);
  }
  stream.line.append(rest);
}

double at_share(const std::vector<double>& sorted, double share) {
  return sorted.empty() ? 0 : sorted[static_cast<std::size_t>(share * (sorted.size() - 1))];
}

}  // namespace

int main(int count, char** words) {
  if (count != 5) {
    std::fprintf(stderr, "use: sse_load PORT STREAMS TOKENS INTERVAL_MS\n");
    return 2;
  }
  const int port = std::atoi(words[1]);
  const int tokens = std::atoi(words[3]);
  const double interval_ms = std::atof(words[4]);
  std::vector<Stream> streams(static_cast<std::size_t>(std::atoi(words[2])));
  const int poll = ::epoll_create1(0);
  for (std::size_t i = 0; i < streams.size(); ++i) {
    open_stream(streams[i], port, tokens, static_cast<int>(i));
    epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
    if (::epoll_ctl(poll, EPOLL_CTL_ADD, streams[i].socket, &event) != 0) fail("epoll_ctl");
  }
  std::size_t open = streams.size();
  const double give_up_ms = now_ms() + tokens * interval_ms * 4 + 60'000;
  std::vector<epoll_event> events(1024);
  while (open > 0 && now_ms() < give_up_ms) {
    const int ready = ::epoll_wait(poll, events.data(), static_cast<int>(events.size()), 1000);
    for (int i = 0; i < ready; ++i) {
      Stream& stream = streams[events[static_cast<std::size_t>(i)].data.u64];
      read_stream(stream);
      if (!stream.done && !stream.closed) continue;
      ::close(stream.socket);
      --open;
    }
  }
  std::vector<double> delays;
  std::size_t whole = 0;
  std::size_t received = 0;
  for (const Stream& stream : streams) {
    received += stream.token_ms.size();
    whole += stream.done && stream.token_ms.size() == static_cast<std::size_t>(tokens) ? 1 : 0;
    double start = 1e300;
    for (std::size_t k = 0; k < stream.token_ms.size(); ++k) {
      start = std::min(start, stream.token_ms[k] - static_cast<double>(k) * interval_ms);
    }
    for (std::size_t k = 0; k < stream.token_ms.size(); ++k) {
      delays.push_back(stream.token_ms[k] - static_cast<double>(k) * interval_ms - start);
    }
  }
  std::sort(delays.begin(), delays.end());
  std::printf(
      R"({"streams":%zu,"whole":%zu,"tokens":%zu,"median_ms":%.2f,"p99_ms":%.2f,"max_ms":%.2f})"
      "\n",
      streams.size(), whole, received, at_share(delays, 0.5), at_share(delays, 0.99),
      at_share(delays, 1.0));
  return whole == streams.size() ? 0 : 1;
}
