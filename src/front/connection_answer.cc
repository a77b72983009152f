// The part of a connection that writes: heads, whole answers, streams, and what the socket doesn't
// take at once.
#include <array>
#include <boost/asio/write.hpp>
#include <charconv>

#include "base/check.h"
#include "front/admission.h"
#include "front/connection.h"

namespace waystation::front {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

}  // namespace

std::string Connection::head_text(const Response& response, std::optional<std::size_t> length) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(response.status));
  std::string out;
  out.reserve(320);
  out += "HTTP/1.1 ";
  out += std::to_string(response.status);
  out += ' ';
  out.append(reason.data(), reason.size());
  const auto add = [&out](std::string_view name, std::string_view value) {
    out += "\r\n";
    out += name;
    out += ": ";
    out += value;
  };
  add("Date", loop_->date());
  if (response.status != 204) add("Content-Type", response.content_type);
  if (chunked_) add("Transfer-Encoding", "chunked");
  if (length && response.status != 204) add("Content-Length", std::to_string(*length));
  add("X-Request-Id", exchange_->request_id_);
  const Request& request = exchange_->request();
  const std::string_view origin = request.header("Origin");
  if (!origin.empty() && origin_allowed(deps_.options, origin)) {
    add("Access-Control-Allow-Origin", origin);
    add("Access-Control-Expose-Headers", "X-Request-Id, X-Cache, Retry-After, Retry-After-Ms");
    add("Vary", "Origin");
  }
  for (const auto& [name, value] : response.headers) add(name, value);
  for (const auto& [name, value] : exchange_->headers_) add(name, value);
  if (!keep_alive_) {
    add("Connection", "close");
  } else if (request.version < 11) {
    add("Connection", "keep-alive");
  }
  out += "\r\n\r\n";
  return out;
}

void Connection::reply(Response response) {
  if (state_ != State::kHandling) return;
  CHECK(!answered_);
  if (deps_.draining || pieces_) keep_alive_ = false;
  answered_ = true;
  body_sink_.reset();
  deps_.count_answer(route_, response.status);
  std::string bytes = head_text(response, response.body.size());
  if (!is_head_) bytes += response.body;
  completed_ = true;
  send(bytes);
  finish_if_sent();
}

void Connection::begin_stream(Response head) {
  if (state_ != State::kHandling) return;
  CHECK(!answered_);
  if (deps_.draining || pieces_) keep_alive_ = false;
  answered_ = true;
  body_sink_.reset();
  deps_.count_answer(route_, head.status);
  chunked_ = exchange_->request().version >= 11;
  if (!chunked_) keep_alive_ = false;  // the end of the connection ends the answer
  send(head_text(head, std::nullopt));
}

void Connection::stream(std::string_view bytes) {
  if (state_ != State::kHandling || bytes.empty() || is_head_) return;
  CHECK(answered_ && !completed_);
  if (!chunked_) return send(bytes);
  std::array<char, 20> size;
  const auto [end, ec] = std::to_chars(size.data(), size.data() + size.size(), bytes.size(), 16);
  out_.append(size.data(), end);
  out_ += "\r\n";
  out_ += bytes;
  send("\r\n");
}

void Connection::end_stream(bool keep_alive) {
  if (state_ != State::kHandling) return;
  CHECK(answered_ && !completed_);
  if (!keep_alive) keep_alive_ = false;
  completed_ = true;
  send(chunked_ && !is_head_ ? "0\r\n\r\n" : "");
  finish_if_sent();
}

void Connection::send(std::string_view bytes) {
  out_ += bytes;
  flush();
}

// Tries at once, which nearly always takes everything; otherwise waits for room.
void Connection::flush() {
  if (write_pending_ || out_.empty() || state_ == State::kClosed) return;
  error_code ec;
  const std::size_t sent = socket_.write_some(asio::buffer(out_), ec);
  if (!ec && sent == out_.size()) {
    out_.clear();
    return;
  }
  if (ec && ec != asio::error::would_block && ec != asio::error::try_again) {
    // Broken: the outstanding read will say so; until then nothing more is written.
    out_.clear();
    error_code ignored;
    socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
    return;
  }
  writing_.swap(out_);
  out_.clear();
  written_ = ec ? 0 : sent;
  write_deadline_us_ = loop_->now_us() + std::int64_t{deps_.options.write_timeout_ms} * 1000;
  write_rest();
}

void Connection::write_rest() {
  write_pending_ = true;
  socket_.async_write_some(asio::buffer(writing_.data() + written_, writing_.size() - written_),
                           [self = shared_from_this()](error_code ec, std::size_t bytes) {
                             self->on_written(ec, bytes);
                           });
}

void Connection::on_written(error_code ec, std::size_t bytes) {
  write_pending_ = false;
  if (state_ == State::kClosed) return;
  if (ec == asio::error::operation_aborted) ec = {};  // a read was cancelled, and this with it
  if (ec) return close();
  written_ += bytes;
  if (bytes > 0) {
    write_deadline_us_ = loop_->now_us() + std::int64_t{deps_.options.write_timeout_ms} * 1000;
  }
  if (written_ < writing_.size()) return write_rest();
  writing_.clear();
  written_ = 0;
  if (writing_.capacity() > kKeptBufferBytesMax) writing_.shrink_to_fit();
  flush();
  if (unsent_bytes() > 0) return;
  if (completed_) return finish_if_sent();
  const auto activity = exchange_ ? exchange_->activity_ : nullptr;
  if (activity && state_ == State::kHandling) activity->on_sent();
}

void Connection::finish_if_sent() {
  if (!completed_ || unsent_bytes() > 0 || state_ != State::kHandling) return;
  complete();
}

}  // namespace waystation::front
