#include "upstream/connection.h"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "upstream/client.h"

namespace waystation::upstream {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;

constexpr std::size_t kBufferBytes = 16 << 10;
constexpr std::size_t kBufferBytesMax = 128 << 10;  // a header or a chunk's size line has to fit
constexpr std::int64_t kAfterBrokenWriteMs = 2'000;

std::int64_t steady_ms() {
  return SystemClock().steady_us() / 1000;
}

bool is_address(const std::string& host) {
  boost::system::error_code ec;
  asio::ip::make_address(host, ec);
  return !ec;
}

}  // namespace

void Exchange::abort() {
  over_ = true;
  if (const auto connection = std::exchange(connection_, nullptr)) connection->close();
}

void Exchange::hurry(TimeMs ms) {
  timeouts.idle_ms = ms;
  deadline_ms_ = std::min(deadline_ms_, steady_ms() + ms);
}

Connection::Connection(Client& client, asio::io_context& io, asio::ssl::context* tls)
    : client_(&client), io_(io), resolver_(io), socket_(io), buffer_(kBufferBytes) {
  if (tls != nullptr) tls_.emplace(socket_, *tls);
}

void Connection::open(const Url& url, std::shared_ptr<Exchange> exchange) {
  exchange_ = std::move(exchange);
  exchange_->connection_ = shared_from_this();
  exchange_->deadline_ms_ = steady_ms() + exchange_->timeouts.connect_ms;
  exchange_->waits_for_ = "couldn't be connected to in time";
  host_ = url.host;
  // An address needs no resolver, which would begin a thread of its own.
  boost::system::error_code ec;
  const auto address = asio::ip::make_address(url.host, ec);
  if (!ec) {
    const tcp::endpoint endpoint(address, static_cast<std::uint16_t>(std::stoi(url.port)));
    socket_.async_connect(endpoint, [self = shared_from_this()](const error_code& failed) {
      self->connected(failed);
    });
    return;
  }
  resolver_.async_resolve(url.host, url.port,
                          [self = shared_from_this()](const error_code& failed,
                                                      const tcp::resolver::results_type& results) {
                            self->resolved(failed, results);
                          });
}

void Connection::resolved(const error_code& ec, const tcp::resolver::results_type& results) {
  if (closed_) return;
  if (ec) {
    lose("has a name that can't be resolved (" + host_ + ": " + ec.message() + ")");
    return;
  }
  asio::async_connect(socket_, results,
                      [self = shared_from_this()](const error_code& failed, const tcp::endpoint&) {
                        self->connected(failed);
                      });
}

void Connection::connected(const error_code& ec) {
  if (closed_) return;
  if (ec) {
    lose("can't be connected to (" + ec.message() + ")");
    return;
  }
  error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  if (!tls_) {
    opened();
    return;
  }
  if (!is_address(host_)) ::SSL_set_tlsext_host_name(tls_->native_handle(), host_.c_str());
  tls_->set_verify_callback(asio::ssl::host_name_verification(host_), ignored);
  tls_->async_handshake(
      asio::ssl::stream_base::client,
      [self = shared_from_this()](const error_code& failed) { self->handshaken(failed); });
}

void Connection::handshaken(const error_code& ec) {
  if (closed_) return;
  if (ec) {
    lose(tls_reason(ec));
    return;
  }
  opened();
}

// "certificate verify failed" alone doesn't say whether it is the name, the date or the authority.
std::string Connection::tls_reason(const error_code& ec) const {
  const long verified =
      ::SSL_get_verify_result(const_cast<asio::ssl::stream<tcp::socket&>&>(*tls_).native_handle());
  if (verified != X509_V_OK) {
    return std::string("has a certificate that isn't trusted (") +
           ::X509_verify_cert_error_string(verified) + ")";
  }
  if (ec.category() == asio::error::get_ssl_category() &&
      ec.message().find("certificate verify failed") != std::string::npos) {
    return "has a certificate that isn't trusted (it is not for " + host_ + ")";
  }
  return "failed in the TLS handshake (" + ec.message() + ")";
}

void Connection::opened() {
  open_ = true;
  was_open_ = true;
  send();
  read();
}

void Connection::carry(std::shared_ptr<Exchange> exchange) {
  exchange_ = std::move(exchange);
  exchange_->connection_ = shared_from_this();
  used_before_ = true;
  send();
}

void Connection::send() {
  heard_ = false;
  reader_.emplace(*exchange_);
  exchange_->deadline_ms_ = steady_ms() + exchange_->timeouts.first_byte_ms;
  exchange_->waits_for_ = "didn't answer in time";
  writing_ = true;
  const std::array<asio::const_buffer, 2> buffers{asio::buffer(exchange_->request.head),
                                                  asio::buffer(exchange_->request.body)};
  // The exchange holds the bytes, so it stays until they are written.
  with_stream([&](auto& stream) {
    asio::async_write(stream, buffers,
                      [self = shared_from_this(), exchange = exchange_](
                          const error_code& ec, std::size_t) { self->sent(ec); });
  });
}

void Connection::sent(const error_code& ec) {
  writing_ = false;
  if (closed_ || !ec) return;
  // It may have answered all the same ("too large") before it closed: the read will tell.
  write_broken_ = true;
  if (exchange_ != nullptr) {
    exchange_->deadline_ms_ = std::min(exchange_->deadline_ms_, steady_ms() + kAfterBrokenWriteMs);
  }
}

void Connection::read() {
  if (closed_ || reading_) return;
  if (filled_ == buffer_.size()) {
    if (buffer_.size() >= kBufferBytesMax) {
      lose("sent a line that is too long");
      return;
    }
    buffer_.resize(buffer_.size() * 2);
  }
  reading_ = true;
  with_stream([&](auto& stream) {
    stream.async_read_some(asio::buffer(buffer_.data() + filled_, buffer_.size() - filled_),
                           [self = shared_from_this()](const error_code& ec, std::size_t count) {
                             self->received(ec, count);
                           });
  });
}

void Connection::received(const error_code& ec, std::size_t count) {
  reading_ = false;
  if (closed_) return;
  filled_ += count;
  if (exchange_ == nullptr) {  // closed by the upstream while idle, or it speaks out of turn
    close();
    return;
  }
  if (count > 0) {
    heard_ = true;
    exchange_->deadline_ms_ = steady_ms() + exchange_->timeouts.idle_ms;
    exchange_->waits_for_ = "stopped in mid-answer";
    consume();
  }
  if (closed_) return;
  if (ec) {
    if (exchange_ == nullptr) {
      close();
    } else {
      on_eof(ec);
    }
    return;
  }
  read();
}

void Connection::consume() {
  const auto exchange = exchange_;  // the reader speaks to it, even while it aborts
  std::size_t used = 0;
  while (used < filled_ && exchange_ != nullptr) {
    error_code ec;
    used += reader_->put(asio::buffer(buffer_.data() + used, filled_ - used), ec);
    if (closed_) return;  // the exchange was aborted by what it heard
    if (ec == http::error::need_more) break;
    if (ec) {
      lose("sent something that is no HTTP response (" + ec.message() + ")");
      return;
    }
    if (!reader_->is_done()) continue;
    if (reader_->informational()) {
      reader_.emplace(*exchange_);
      continue;
    }
    filled_ -= used;
    if (filled_ > 0) open_ = false;  // more than it was asked for: not to be used again
    finish();
    return;
  }
  std::memmove(buffer_.data(), buffer_.data() + used, filled_ - used);
  filled_ -= used;
}

void Connection::on_eof(const error_code& ec) {
  const bool clean = ec == asio::error::eof;  // TLS without its goodbye may have been cut short
  if (clean && reader_->got_some()) {
    error_code partial;
    reader_->put_eof(partial);
    if (!partial && reader_->is_done()) {
      open_ = false;
      finish();
      return;
    }
  }
  if (!heard_) {
    lose(clean ? "closed the connection without an answer"
               : "broke the connection (" + ec.message() + ")");
  } else {
    lose(clean ? "closed the connection in mid-answer"
               : "broke the connection in mid-answer (" + ec.message() + ")");
  }
}

// The response is whole. The connection is free again before the exchange hears of it.
void Connection::finish() {
  const auto exchange = std::exchange(exchange_, nullptr);
  exchange->connection_.reset();
  const bool keeps = open_ && reader_->keep_alive() && !writing_ && !write_broken_;
  if (keeps && client_ != nullptr) {
    filled_ = 0;
    idle_since_ms_ = steady_ms();
    client_->keep(*this);
  } else {
    close();
  }
  if (!exchange->over_) {
    exchange->over_ = true;
    exchange->on_complete();
  }
}

void Connection::lose(std::string what) {
  const auto exchange = std::exchange(exchange_, nullptr);
  Client* const client = client_;
  const bool stale = used_before_ && !heard_;
  const bool unreached = !was_open_;
  close();
  if (exchange == nullptr) return;
  exchange->connection_.reset();
  if (exchange->over_) return;
  if (stale && !exchange->retried_ && client != nullptr) {
    exchange->retried_ = true;
    client->start_fresh(exchange);
    return;
  }
  exchange->over_ = true;
  exchange->on_failed(HttpFailure{std::move(what), unreached});
}

void Connection::time_out() {
  if (exchange_ == nullptr) {
    close();
    return;
  }
  used_before_ = false;  // a timeout is no sign of a dead connection: not to be repeated
  lose(exchange_->waits_for_);
}

void Connection::close() {
  if (std::exchange(closed_, true)) return;
  open_ = false;
  error_code ignored;
  resolver_.cancel();
  socket_.close(ignored);
  const auto self = shared_from_this();
  if (exchange_ != nullptr) exchange_->connection_.reset();
  exchange_.reset();
  if (client_ != nullptr) client_->remove(*this);
}

}  // namespace waystation::upstream
