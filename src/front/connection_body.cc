// The part of a connection that reads a body in pieces, for routes whose bodies must not be held in
// memory. One read at a time, the next one when the handler has taken the last: a client that is
// faster than the disk waits.
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>

#include "base/check.h"
#include "front/connection.h"

namespace waystation::front {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::size_t kPieceBytes = 64 << 10;
// What stands around a file in its form.
constexpr std::uint64_t kFormBytesMax = 1 << 20;

}  // namespace

std::uint64_t Connection::body_bytes_max(const Route* route) const {
  if (route == nullptr || !route->in_pieces) return deps_.options.body_bytes_max;
  return deps_.options.file_bytes_max + kFormBytesMax;
}

// The header is there: handles the request, whose handler asks for its body.
void Connection::begin_pieces() {
  state_ = State::kHandling;
  pieces_.emplace(std::move(*parser_));
  parser_.reset();
  body_paused_ = false;
  const auto& header = pieces_->get();
  keep_alive_ = header.keep_alive();
  Request request = make_request(header.base());
  request.headers = static_cast<const http::fields&>(header.base());
  handle(std::move(request));
  // Refused, or not yet answered although its body wasn't asked for: nobody reads it.
  if (state_ == State::kHandling && !body_sink_) watch();
}

void Connection::read_body_into(std::shared_ptr<BodySink> sink) {
  CHECK(state_ == State::kHandling && pieces_ && !body_sink_ && !answered_);
  body_sink_ = std::move(sink);
  if (wants_continue_ && !pieces_->is_done()) send(kContinue);
  read_piece();
}

void Connection::resume_body() {
  if (state_ != State::kHandling || !body_sink_ || !body_paused_) return;
  body_paused_ = false;
  read_piece();
}

void Connection::read_piece() {
  if (pieces_->is_done()) {
    const auto sink = std::exchange(body_sink_, nullptr);
    pieces_.reset();
    piece_ = {};
    sink->on_body_end();
    if (state_ == State::kHandling) watch();
    return;
  }
  piece_.resize(kPieceBytes);
  pieces_->get().body().data = piece_.data();
  pieces_->get().body().size = piece_.size();
  timed_out_ = false;
  set_deadline(deps_.options.body_timeout_ms);
  watching_ = true;
  http::async_read_some(
      socket_, buffer_, *pieces_,
      [self = shared_from_this()](error_code ec, std::size_t) { self->on_piece(ec); });
}

void Connection::on_piece(error_code ec) {
  watching_ = false;
  if (state_ == State::kClosed) return;
  if (state_ == State::kLingering) return read_and_discard();
  if (!body_sink_) return;  // answered, and the answer isn't sent yet
  if (ec == http::error::need_buffer) ec = {};
  if (timed_out_) {
    const Error late{Code::kTimeout, "the request's body took too long to arrive"};
    return fail_body(&late);
  }
  if (ec == asio::error::operation_aborted) return read_piece();
  if (ec == http::error::body_limit) {
    const Error large{Code::kTooLarge, "the request's body is over " +
                                           std::to_string(body_bytes_max(route_)) + " bytes"};
    return fail_body(&large);
  }
  const bool is_http_error =
      ec.category() == http::make_error_code(http::error::bad_method).category();
  if (ec &&
      (!is_http_error || ec == http::error::end_of_stream || ec == http::error::partial_message)) {
    return fail_body(nullptr);
  }
  if (ec) {
    const Error bad{Code::kInvalidArgument, "the request is not valid HTTP/1.1: " + ec.message()};
    return fail_body(&bad);
  }
  const std::size_t size = piece_.size() - pieces_->get().body().size;
  const auto sink = body_sink_;  // an answer lets it go
  if (size > 0 && !sink->on_body({piece_.data(), size})) {
    body_paused_ = true;
    return;
  }
  if (body_sink_) read_piece();
}

// `error` null: the client is gone.
void Connection::fail_body(const Error* error) {
  const auto self = shared_from_this();
  const auto sink = std::exchange(body_sink_, nullptr);
  sink->on_body_failed();
  if (error == nullptr) return close();
  if (state_ == State::kHandling && !answered_) exchange_->reply(*error);
}

}  // namespace waystation::front
