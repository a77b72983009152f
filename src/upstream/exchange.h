// One call over HTTP: what is sent, and who hears what comes back. Loop's thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "upstream/response_reader.h"

namespace waystation::upstream {

class Connection;

struct HttpRequest {
  std::string head;  // request line and header, with the empty line
  std::string body;
};

struct Timeouts {
  TimeMs connect_ms = 0;
  TimeMs first_byte_ms = 0;
  TimeMs idle_ms = 0;
  TimeMs total_ms = 0;
};

// How a call ended that brought no whole response.
struct HttpFailure {
  std::string what;  // "closed the connection in mid-answer", to follow the upstream's name
  bool unreached = false;  // there was no connection to send it on
};

class Exchange : public ResponseSink, public std::enable_shared_from_this<Exchange> {
 public:
  // Ends with exactly one of these two, unless abort() came first. Neither is called by
  // Client::start() itself.
  virtual void on_complete() = 0;
  virtual void on_failed(HttpFailure failure) = 0;

  // Nothing more is heard, and the connection is closed. Any time; idempotent.
  void abort();
  bool over() const { return over_; }

  HttpRequest request;
  Timeouts timeouts;

 protected:
  // What is left must come within this time.
  void hurry(TimeMs ms);

 private:
  friend class Client;
  friend class Connection;

  std::shared_ptr<Connection> connection_;
  std::int64_t deadline_ms_ = 0;        // steady
  std::int64_t total_deadline_ms_ = 0;  // steady
  const char* waits_for_ = "";          // what didn't come in time, for the message
  bool retried_ = false;
  bool over_ = false;
};

}  // namespace waystation::upstream
