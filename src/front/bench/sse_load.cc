// Many streams at once, and how evenly their tokens come.
//
//   sse_load PORT STREAMS TOKENS INTERVAL_MS RAMP_MS
//
// Opens STREAMS streamed chats of TOKENS tokens each, evenly over RAMP_MS, against a `waystation
// serve --scripted tokens=TOKENS,interval-ms=INTERVAL_MS`, whose token k comes k × INTERVAL_MS
// after the answer's start. So the earliest of (arrival − k × INTERVAL_MS) over a stream's tokens
// is when it would have begun without any delay, and how much later than by that clock a token
// comes is its added delay. Counted are the tokens that come while all streams run. Prints one line
// of JSON. One thread with epoll: it shares the machine with the server.
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

struct Load {
  int port;
  int tokens;
  double interval_ms;
  double ramp_ms;
  std::vector<Stream> streams;
};

// Until every stream has ended, or none can any more.
void run(Load& load) {
  const int poll = ::epoll_create1(0);
  const double began_ms = now_ms();
  const double give_up_ms = began_ms + load.ramp_ms + load.tokens * load.interval_ms * 4 + 60'000;
  const double apart_ms = load.ramp_ms / static_cast<double>(load.streams.size());
  std::size_t opened = 0;
  std::size_t ended = 0;
  std::vector<epoll_event> events(1024);
  while (ended < load.streams.size() && now_ms() < give_up_ms) {
    while (opened < load.streams.size() &&
           now_ms() >= began_ms + static_cast<double>(opened) * apart_ms) {
      Stream& stream = load.streams[opened];
      open_stream(stream, load.port, load.tokens, static_cast<int>(opened));
      epoll_event event{.events = EPOLLIN, .data = {.u64 = opened}};
      if (::epoll_ctl(poll, EPOLL_CTL_ADD, stream.socket, &event) != 0) fail("epoll_ctl");
      ++opened;
    }
    const int wait_ms = opened < load.streams.size() ? 1 : 1000;
    const int ready = ::epoll_wait(poll, events.data(), static_cast<int>(events.size()), wait_ms);
    for (int i = 0; i < ready; ++i) {
      Stream& stream = load.streams[events[static_cast<std::size_t>(i)].data.u64];
      read_stream(stream);
      if (!stream.done && !stream.closed) continue;
      ::close(stream.socket);
      ++ended;
    }
  }
}

void report(const Load& load) {
  double all_run_ms = 0;  // from here to there all streams run
  double first_end_ms = 1e300;
  std::size_t whole = 0;
  std::size_t received = 0;
  for (const Stream& stream : load.streams) {
    received += stream.token_ms.size();
    whole += stream.done && stream.token_ms.size() == static_cast<std::size_t>(load.tokens) ? 1 : 0;
    if (stream.token_ms.empty()) continue;
    all_run_ms = std::max(all_run_ms, stream.token_ms.front());
    first_end_ms = std::min(first_end_ms, stream.token_ms.back());
  }
  std::vector<double> delays;
  for (const Stream& stream : load.streams) {
    double start_ms = 1e300;
    for (std::size_t k = 0; k < stream.token_ms.size(); ++k) {
      start_ms = std::min(start_ms, stream.token_ms[k] - static_cast<double>(k) * load.interval_ms);
    }
    for (std::size_t k = 0; k < stream.token_ms.size(); ++k) {
      const double at_ms = stream.token_ms[k];
      if (at_ms < all_run_ms || at_ms > first_end_ms) continue;
      delays.push_back(at_ms - static_cast<double>(k) * load.interval_ms - start_ms);
    }
  }
  std::sort(delays.begin(), delays.end());
  std::printf(R"({"streams":%zu,"whole":%zu,"tokens":%zu,"counted":%zu,"median_ms":%.2f,)"
              R"("p99_ms":%.2f,"max_ms":%.2f})"
              "\n",
              load.streams.size(), whole, received, delays.size(), at_share(delays, 0.5),
              at_share(delays, 0.99), at_share(delays, 1.0));
}

}  // namespace

int main(int count, char** words) {
  if (count != 6) {
    std::fprintf(stderr, "use: sse_load PORT STREAMS TOKENS INTERVAL_MS RAMP_MS\n");
    return 2;
  }
  Load load{.port = std::atoi(words[1]),
            .tokens = std::atoi(words[3]),
            .interval_ms = std::atof(words[4]),
            .ramp_ms = std::atof(words[5]),
            .streams = std::vector<Stream>(static_cast<std::size_t>(std::atoi(words[2])))};
  run(load);
  report(load);
  return 0;
}
