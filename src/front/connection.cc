#include "front/connection.h"

#include <algorithm>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <random>

#include "base/log.h"
#include "front/admission.h"

namespace waystation::front {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

// Read ahead of a running answer: a pipelined request, or a client's goodbye.
constexpr std::size_t kAheadBytesMax = 16 << 10;

std::string fresh_id(const Clock& clock) {
  thread_local std::mt19937_64 random(std::random_device{}());
  return RequestId::make(clock.wall_ms(), random(), random()).to_string();
}

Error too_large(std::uint64_t bytes_max) {
  return {Code::kTooLarge, "the request's body is over " + std::to_string(bytes_max) + " bytes"};
}

Error error_of(error_code ec, const Options& options) {
  if (ec == http::error::header_limit) {
    return {Code::kHeadersTooLarge,
            "the request's header is over " + std::to_string(options.header_bytes_max) + " bytes"};
  }
  if (ec == http::error::body_limit) return too_large(options.body_bytes_max);
  return {Code::kInvalidArgument, "the request is not valid HTTP/1.1: " + ec.message()};
}

// What would be read in one way here and in another by a proxy before us.
std::optional<Error> ambiguous(const http::request_header<>& header) {
  const auto coding = header[http::field::transfer_encoding];
  if (!coding.empty() && !boost::beast::iequals(coding, "chunked")) {
    return Error{Code::kInvalidArgument, "the only transfer coding known here is chunked",
                 "Transfer-Encoding"};
  }
  if (header.version() >= 11 && header.count(http::field::host) != 1) {
    return Error{Code::kInvalidArgument, "a request of HTTP/1.1 must have one Host header", "Host"};
  }
  return std::nullopt;
}

std::string_view path_of(std::string_view target) {
  // A proxy's form of a target: "http://host/path".
  if (target.starts_with("http://")) {
    target.remove_prefix(std::min(target.find('/', 7), target.size()));
  }
  return target.substr(0, target.find('?'));
}

}  // namespace

Connection::Connection(std::shared_ptr<Loop> loop, asio::ip::tcp::socket socket, Deps& deps)
    : loop_(std::move(loop)), deps_(deps), socket_(std::move(socket)) {
  deps_.connections_changed(1);
}

Connection::~Connection() {
  // Never started: its loop had ended.
  if (state_ != State::kClosed) deps_.connections_changed(-1);
}

void Connection::start() {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.non_blocking(true, ignored);
  loop_->add(shared_from_this());
  wait_for_request(deps_.options.header_timeout_ms);
}

void Connection::refuse() {
  error_code ignored;
  socket_.non_blocking(true, ignored);
  loop_->add(shared_from_this());
  refuse_request(
      {Code::kUnavailable, "the server has too many connections; try again soon", "", 1000});
}

void Connection::set_deadline(int timeout_ms) {
  deadline_us_ = loop_->now_us() + std::int64_t{timeout_ms} * 1000;
}

void Connection::on_tick(std::int64_t now_us) {
  switch (state_) {
    case State::kIdle:
    case State::kLingering:
      if (now_us >= deadline_us_) close();
      return;
    case State::kHeader:
    case State::kBody:
      if (now_us < deadline_us_ || timed_out_) return;
      timed_out_ = true;  // the aborted read answers 408
      {
        error_code ignored;
        socket_.cancel(ignored);
      }
      return;
    case State::kHandling: {
      // The client owes the next piece of its body.
      if (body_sink_ && !body_paused_ && !timed_out_ && now_us >= deadline_us_) {
        timed_out_ = true;
        error_code ignored;
        socket_.cancel(ignored);
        return;
      }
      if (unsent_bytes() > 0 && now_us >= write_deadline_us_) {
        close();
        return;
      }
      const auto activity = exchange_ ? exchange_->activity_ : nullptr;
      if (activity) activity->on_tick(now_us);
      return;
    }
    case State::kClosed:
      return;
  }
}

// ---- reading ------------------------------------------------------------------------------------

void Connection::wait_for_request(int timeout_ms) {
  state_ = State::kIdle;
  if (deps_.draining) return close();
  if (buffer_.size() == 0 && buffer_.capacity() > kKeptBufferBytesMax) buffer_.shrink_to_fit();
  set_deadline(timeout_ms);
  if (buffer_.size() == 0) return watch();
  if (!watching_) return read_header();
  // The next request is here already, and a read for more is under way: end that one first.
  error_code ignored;
  socket_.cancel(ignored);
}

void Connection::watch() {
  if (half_closed_) return watch_for_reset();
  if (watching_ || buffer_.size() >= kAheadBytesMax) return;
  watching_ = true;
  socket_.async_read_some(
      buffer_.prepare(4096),
      [self = shared_from_this()](error_code ec, std::size_t bytes) { self->on_watch(ec, bytes); });
}

void Connection::on_watch(error_code ec, std::size_t bytes) {
  watching_ = false;
  if (state_ == State::kClosed) return;
  buffer_.commit(bytes);
  if (state_ == State::kLingering) return read_and_discard();
  if (ec == asio::error::eof && state_ == State::kHandling) return on_half_closed();
  if (ec && ec != asio::error::operation_aborted) return close();
  if (state_ == State::kIdle) {
    if (buffer_.size() > 0) return parse_header();
    return watch();
  }
  if (state_ == State::kHandling && !body_sink_) watch();
}

void Connection::on_half_closed() {
  half_closed_ = true;
  const bool can_probe = answered_ || exchange_->request().version >= 11;
  if (!can_probe) return close();
  const auto self = shared_from_this();
  watch_for_reset();
  if (!answered_) return send(kContinue);  // clients skip as many of them as come
  const auto activity = exchange_->activity_;
  if (activity) activity->on_half_closed();
}

// No read tells it any more.
void Connection::watch_for_reset() {
  if (watching_for_reset_) return;
  watching_for_reset_ = true;
  socket_.async_wait(asio::ip::tcp::socket::wait_error, [self = shared_from_this()](error_code ec) {
    self->watching_for_reset_ = false;
    if (self->state_ != State::kHandling) return;
    if (ec == asio::error::operation_aborted) return self->watch_for_reset();
    self->close();
  });
}

void Connection::begin_header() {
  state_ = State::kHeader;
  timed_out_ = false;
  set_deadline(deps_.options.header_timeout_ms);
  parser_.emplace();
  parser_->header_limit(deps_.options.header_bytes_max);
  parser_->body_limit(boost::none);  // depends on the route
}

// What has come is most often the whole header, and the whole request.
void Connection::parse_header() {
  begin_header();
  const error_code ec = parse_ahead();
  if (!ec && !parser_->is_header_done()) return read_rest_of_header();
  on_header(ec);
}

// Gives the parser what was read; what it leaves waits for more.
error_code Connection::parse_ahead() {
  error_code ec;
  buffer_.consume(parser_->put(buffer_.data(), ec));
  return ec == http::error::need_more ? error_code() : ec;
}

// From a buffer that holds a request already. By way of the loop, so that a client that sends many
// requests ahead doesn't pile them up on the stack.
void Connection::read_header() {
  begin_header();
  read_rest_of_header();
}

void Connection::read_rest_of_header() {
  http::async_read_header(
      socket_, buffer_, *parser_,
      [self = shared_from_this()](error_code ec, std::size_t) { self->on_header(ec); });
}

void Connection::on_header(error_code ec) {
  if (state_ != State::kHeader) return;
  if (ec) return on_read_failed(ec);
  const auto& header = parser_->get();
  if (const auto wrong = ambiguous(header)) return refuse_request(*wrong);
  const auto target = header.target();
  const Route* route =
      deps_.router.match(header.method(), path_of({target.data(), target.size()})).route;
  const std::uint64_t bytes_max = body_bytes_max(route);
  if (parser_->content_length().value_or(0) > bytes_max)
    return refuse_request(too_large(bytes_max));
  parser_->body_limit(bytes_max);
  wants_continue_ = boost::beast::iequals(header[http::field::expect], "100-continue");
  if (route != nullptr && route->in_pieces) return begin_pieces();
  if (parser_->is_done()) return dispatch();
  if (wants_continue_) send(kContinue);
  read_body();
}

void Connection::read_body() {
  state_ = State::kBody;
  set_deadline(deps_.options.body_timeout_ms);
  if (buffer_.size() > 0) {
    parser_->eager(true);
    if (const error_code ec = parse_ahead()) return on_read_failed(ec);
    if (parser_->is_done()) return dispatch();
  }
  http::async_read(socket_, buffer_, *parser_,
                   [self = shared_from_this()](error_code ec, std::size_t) {
                     if (self->state_ != State::kBody) return;
                     if (ec) return self->on_read_failed(ec);
                     self->dispatch();
                   });
}

void Connection::on_read_failed(error_code ec) {
  if (timed_out_) {
    return refuse_request({Code::kTimeout, "the request took too long to arrive"});
  }
  const bool is_http_error =
      ec.category() == http::make_error_code(http::error::bad_method).category();
  if (!is_http_error || ec == http::error::end_of_stream || ec == http::error::partial_message) {
    return close();
  }
  refuse_request(error_of(ec, deps_.options));
}

// Answers what never became a request, and closes.
void Connection::refuse_request(const Error& error) {
  state_ = State::kHandling;
  route_ = nullptr;
  is_head_ = false;
  keep_alive_ = false;
  begin_exchange({}).reply(error);
}

// ---- handling -----------------------------------------------------------------------------------

Exchange& Connection::begin_exchange(Request request) {
  request.received_us = loop_->now_us();
  exchange_ = std::make_shared<Exchange>(this, loop_, std::move(request));
  exchange_->set_request_id(fresh_id(deps_.clock));
  answered_ = false;
  completed_ = false;
  chunked_ = false;
  return *exchange_;
}

void Connection::dispatch() {
  state_ = State::kHandling;
  auto message = parser_->release();
  parser_.reset();
  keep_alive_ = message.keep_alive();
  Request request = make_request(message.base());
  request.body = std::move(message.body());
  request.headers = std::move(static_cast<http::fields&>(message.base()));
  handle(std::move(request));
  if (state_ == State::kHandling) watch();
}

// All but body and headers.
Request Connection::make_request(const http::request_header<>& header) {
  Request request;
  request.method = header.method();
  request.version = header.version();
  is_head_ = header.method() == http::verb::head;
  const auto target = header.target();
  const std::string_view whole(target.data(), target.size());
  const std::string_view path = path_of(whole);
  request.path = path;
  const auto path_end = static_cast<std::size_t>(path.data() + path.size() - whole.data());
  if (path_end < whole.size()) request.query = whole.substr(path_end + 1);
  return request;
}

void Connection::handle(Request request) {
  route_ = nullptr;
  const auto self = shared_from_this();
  const auto exchange = begin_exchange(std::move(request)).shared_from_this();
  try {
    Admission admission = admit(deps_, exchange->request_);
    route_ = admission.route;
    if (admission.answer) {
      reply(std::move(*admission.answer));
    } else {
      deps_.api.gather();
      route_->handler(deps_, exchange);
      deps_.api.help();
    }
  } catch (const std::exception& thrown) {
    deps_.api.help();
    // Out of memory, or a fault of ours: one request must not end the others.
    WS_LOG(error, "handler threw request={} what={}", exchange->request_id_, thrown.what());
    if (exchange->is_open() && !answered_) {
      exchange->reply({Code::kInternal, "the server failed on this request"});
    } else {
      close();
    }
  }
}

// ---- ending ------------------------------------------------------------------------------------

void Connection::complete() {
  release_exchange();
  const bool has_next = !half_closed_ || buffer_.size() > 0;
  if (keep_alive_ && has_next && !deps_.draining) {
    wait_for_request(deps_.options.idle_timeout_ms);
  } else {
    linger();
  }
}

void Connection::release_exchange() {
  if (!exchange_) return;
  const auto exchange = std::exchange(exchange_, nullptr);
  exchange->connection_ = nullptr;
  body_sink_.reset();
  const auto activity = std::exchange(exchange->activity_, nullptr);
  if (!completed_ && activity) activity->on_gone();
}

// Closing a socket with unread bytes makes the system throw the answer away on the other side: say
// that nothing more comes, and read until the other side has closed or it takes too long.
void Connection::linger() {
  state_ = State::kLingering;
  set_deadline(deps_.options.linger_ms);
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  if (!watching_) read_and_discard();
}

void Connection::read_and_discard() {
  buffer_.clear();
  watching_ = true;
  socket_.async_read_some(buffer_.prepare(kKeptBufferBytesMax),
                          [self = shared_from_this()](error_code ec, std::size_t) {
                            self->watching_ = false;
                            if (self->state_ == State::kClosed) return;
                            if (ec) return self->close();
                            self->read_and_discard();
                          });
}

void Connection::drain() {
  if (state_ == State::kIdle || state_ == State::kLingering) close();
}

void Connection::stop() {
  if (state_ != State::kHandling) return close();
  keep_alive_ = false;
  const auto activity = exchange_ ? exchange_->activity_ : nullptr;
  if (activity) activity->on_stop();
  if (state_ == State::kHandling && unsent_bytes() == 0) close();
}

void Connection::close() {
  if (state_ == State::kClosed) return;
  const auto self = shared_from_this();
  state_ = State::kClosed;
  error_code ignored;
  socket_.close(ignored);
  release_exchange();
  loop_->remove(this);
  deps_.connections_changed(-1);
}

}  // namespace waystation::front
