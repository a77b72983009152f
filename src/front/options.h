// What the front door can be told. Plain values with safe defaults.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace waystation::front {

struct Listen {
  std::string host = "127.0.0.1";  // an address, not a name
  std::uint16_t port = 8080;       // 0: the system picks one

  // Only this machine can reach it.
  bool is_loopback() const;
};

// "127.0.0.1:8080", "[::1]:8080", ":8080" (loopback), "localhost:8080".
Result<Listen> parse_listen(std::string_view text);

struct Options {
  Listen listen;
  int threads = 2;
  int connections_max = 10'000;  // more are answered 503 and closed

  std::uint32_t header_bytes_max = 16 << 10;
  std::uint64_t body_bytes_max = 4 << 20;
  std::uint64_t file_bytes_max = 200 << 20;  // of an uploaded file

  int header_timeout_ms = 10'000;  // from a request's first byte to the end of its header
  int body_timeout_ms = 60'000;    // from the end of the header to the end of the body
  int idle_timeout_ms = 75'000;    // between two requests of a connection
  int write_timeout_ms = 60'000;   // a client that takes no byte for so long is gone
  int linger_ms = 2'000;           // how long a closing side waits for the other
  int tick_ms = 100;               // how exactly all of these are kept

  int hold_back_ms = 5'000;    // the status of an answer waits so long for the first event
  int keep_alive_ms = 15'000;  // a comment is sent on a stream that is quiet for so long

  // What waits for one slow reader; beyond that it is let go and joins again when it has caught up.
  std::size_t reader_events_max = 1024;
  std::size_t reader_bytes_max = 256 << 10;
  std::size_t answer_bytes_max = 64 << 20;   // text of one answer that isn't streamed
  std::uint64_t result_events_max = 20'000;  // /v1/requests/{id} builds `result` up to here

  // Answers of deterministic requests are given again to who asks the same; see docs/openai.md.
  bool cache = true;
  std::int64_t cache_ttl_ms = 3'600'000;

  // Refuse requests whose Host is no loopback name or address, and none of these. For a server
  // without API keys, which web pages must not reach under a name of their own.
  bool check_host = false;
  std::vector<std::string> allowed_hosts;

  // This server's id among others: a request that says it has passed it is refused (kLoop).
  std::string instance;

  std::vector<std::string> cors_origins;  // "https://app.example", or "*"; empty: no CORS
};

}  // namespace waystation::front
