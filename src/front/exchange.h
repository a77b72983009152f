// One HTTP request and its answer, as a handler sees them. All of it on the connection's loop
// thread. An exchange outlives its connection as long as somebody holds it; what is then written is
// dropped.
#pragma once

#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/verb.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace waystation::front {

class Connection;
class Loop;

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Request {
  boost::beast::http::verb method{};
  std::string path;   // as it came, still percent-encoded
  std::string query;  // without the '?'
  unsigned version = 11;
  boost::beast::http::fields headers;
  std::string body;
  std::string tenant;
  std::vector<std::string> params;  // what the route's pattern matched, decoded
  std::int64_t received_us = 0;

  // Empty when the header is absent; has_header tells the two apart.
  std::string_view header(std::string_view name) const;
  bool has_header(std::string_view name) const;
  // A value of the query string, decoded.
  std::optional<std::string> query_value(std::string_view name) const;
};

struct Response {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  Headers headers = {};
};

// The answer to an error: OpenAI's error body, and Retry-After where trying again can help.
Response error_response(const Error& error);

// "%2F" → "/". Malformed escapes stay as they are.
std::string percent_decode(std::string_view text);

// A handler that goes on after its function has returned.
class Activity {
 public:
  virtual ~Activity() = default;
  // Everything written has left; there is room again.
  virtual void on_sent() = 0;
  virtual void on_tick(std::int64_t now_us) = 0;
  // The client sends no more, and may be gone. If it is, the system says so to whoever writes:
  // write something that changes nothing, if the answer has begun and allows it.
  virtual void on_half_closed() {}
  // The client went away. The last call.
  virtual void on_gone() = 0;
  // The server ends: finish the answer now.
  virtual void on_stop() = 0;
};

// Takes the body of a request whose route takes it in pieces (Route::in_pieces). Loop's thread.
class BodySink {
 public:
  virtual ~BodySink() = default;
  // Good for the call only. False: no more before Exchange::resume_body() is called.
  virtual bool on_body(std::string_view piece) = 0;
  // One of these is the last call; none comes once the exchange is answered. After on_body_failed
  // the connection answers by itself.
  virtual void on_body_end() = 0;
  virtual void on_body_failed() = 0;
};

class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(Connection* connection, std::shared_ptr<Loop> loop, Request request)
      : connection_(connection), loop_(std::move(loop)), request_(std::move(request)) {}

  const Request& request() const { return request_; }
  const std::shared_ptr<Loop>& loop() const { return loop_; }  // any thread

  // Kept until the answer is complete or the client is gone.
  void set_activity(std::shared_ptr<Activity> activity) { activity_ = std::move(activity); }

  // The X-Request-Id header of the answer, in place of one made up for this exchange.
  void set_request_id(std::string id) { request_id_ = std::move(id); }

  // One more header of the answer, whatever it will be.
  void add_header(std::string name, std::string value) {
    headers_.emplace_back(std::move(name), std::move(value));
  }

  // Has the body read, on a route that takes it in pieces. Called once, by the handler itself. An
  // answer before the body's end closes the connection after it.
  void read_body(std::shared_ptr<BodySink> sink);
  void resume_body();

  // The whole answer at once.
  void reply(Response response);
  void reply(const Error& error) { reply(error_response(error)); }

  // An answer in pieces: its head (the body is ignored), pieces, and the end. `keep_alive` false
  // closes the connection after it.
  void begin_stream(Response head);
  void stream(std::string_view bytes);
  void end_stream(bool keep_alive);
  // An answer in pieces can't be ended: closes the connection, so that nobody takes it for whole.
  void abort();

  // Written but not yet taken by the operating system.
  std::size_t unsent_bytes() const;
  // False once the answer is complete or the client is gone.
  bool is_open() const { return connection_ != nullptr; }

 private:
  friend class Connection;
  Connection* connection_;
  const std::shared_ptr<Loop> loop_;
  Request request_;
  std::string request_id_;
  Headers headers_;
  std::shared_ptr<Activity> activity_;
};
using ExchangePtr = std::shared_ptr<Exchange>;

}  // namespace waystation::front
