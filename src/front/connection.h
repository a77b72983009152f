// One HTTP/1.1 connection: reads a request, has it answered, reads the next. All on one loop's
// thread.
//
//            bytes              header            body
//   kIdle ─────────▶ kHeader ─────────▶ kBody ─────────▶ kHandling ──▶ kIdle …
//                       │ bad, late       │                 │ answer complete, not kept
//                       └───────▶ kLingering ◀──────────────┘──▶ closed
//
// A route that takes its body in pieces is handled (kHandling) from the header on; its pieces go to
// the handler's BodySink, one read at a time (connection_body.cc). What is written is in
// connection_answer.cc; who may ask for what is in admission.h.
//
// While a handler works the connection goes on reading, so that a client that leaves is noticed at
// once. One that only ends its sending (`nc -N`) looks the same at first, and gets its answer: it
// is written to, and a client that is gone answers that with a reset. There is one timer for all
// connections of a loop (on_tick), and a deadline in each.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <optional>
#include <string>

#include "front/deps.h"
#include "front/exchange.h"
#include "front/loop.h"

namespace waystation::front {

// The interim answer that lets a client send its body.
inline constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

// A connection that waits keeps no larger buffers than these.
inline constexpr std::size_t kKeptBufferBytesMax = 64 << 10;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Loop> loop, boost::asio::ip::tcp::socket socket, Deps& deps);
  ~Connection();

  // Begins to serve; or answers 503 at once and closes, when there are too many.
  void start();
  void refuse();

  void on_tick(std::int64_t now_us);
  // Closes it when it waits between requests; otherwise the running answer will be the last.
  void drain();
  // Has the running answer finished now, then closes.
  void stop();
  // Closes at once. A running handler is told that its client is gone.
  void close();

  // What an Exchange passes on.
  void read_body_into(std::shared_ptr<BodySink> sink);
  void resume_body();
  void reply(Response response);
  void begin_stream(Response head);
  void stream(std::string_view bytes);
  void end_stream(bool keep_alive);
  std::size_t unsent_bytes() const { return out_.size() + (writing_.size() - written_); }

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using PieceParser = boost::beast::http::request_parser<boost::beast::http::buffer_body>;
  enum class State { kIdle, kHeader, kBody, kHandling, kLingering, kClosed };

  void wait_for_request(int timeout_ms);
  void watch();
  void on_watch(boost::system::error_code ec, std::size_t bytes);
  void begin_header();
  void parse_header();
  boost::system::error_code parse_ahead();
  void on_half_closed();
  void watch_for_reset();
  void read_header();
  void read_rest_of_header();
  void on_header(boost::system::error_code ec);
  void read_body();
  std::uint64_t body_bytes_max(const Route* route) const;
  void on_read_failed(boost::system::error_code ec);
  void refuse_request(const Error& error);

  void begin_pieces();
  void read_piece();
  void on_piece(boost::system::error_code ec);
  void fail_body(const Error* error);

  void dispatch();
  Request make_request(const boost::beast::http::request_header<>& header);
  void handle(Request request);

  std::string head_text(const Response& response, std::optional<std::size_t> length);
  void send(std::string_view bytes);
  void flush();
  void write_rest();
  void on_written(boost::system::error_code ec, std::size_t bytes);
  void complete();
  void finish_if_sent();
  void linger();
  void read_and_discard();
  void set_deadline(int timeout_ms);
  Exchange& begin_exchange(Request request);
  void release_exchange();

  // Destroyed last: the socket needs its loop.
  const std::shared_ptr<Loop> loop_;
  Deps& deps_;
  boost::asio::ip::tcp::socket socket_;
  State state_ = State::kIdle;
  std::int64_t deadline_us_ = 0;
  bool timed_out_ = false;

  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  bool watching_ = false;     // a read is outstanding that isn't parser_'s
  bool half_closed_ = false;  // the client has said that it sends no more
  bool watching_for_reset_ = false;

  std::optional<PieceParser> pieces_;    // a body is read in pieces
  std::shared_ptr<BodySink> body_sink_;  // until the body's end
  std::string piece_;
  bool body_paused_ = false;
  bool wants_continue_ = false;  // the client waits for "100 Continue" before its body

  ExchangePtr exchange_;          // the request that is being answered
  const Route* route_ = nullptr;  // its route
  bool is_head_ = false;          // answer without a body
  bool keep_alive_ = false;
  bool chunked_ = false;
  bool answered_ = false;   // the head of the answer was written
  bool completed_ = false;  // all of the answer was written, perhaps not yet sent

  std::string out_;          // to be written next
  std::string writing_;      // being written
  std::size_t written_ = 0;  // of writing_
  bool write_pending_ = false;
  std::int64_t write_deadline_us_ = 0;
};

}  // namespace waystation::front
