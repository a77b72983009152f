// One connection to an upstream, plain or TLS, that carries one exchange after another. Loop's
// thread only. A read is always pending once it is open, so that an idle connection which the
// upstream closes is noticed before it is used again.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "upstream/exchange.h"
#include "upstream/options.h"
#include "upstream/response_reader.h"

namespace waystation::upstream {

class Client;

class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  // `tls` null: plain. `client` outlives it or detaches it.
  Connection(Client& client, boost::asio::io_context& io, boost::asio::ssl::context* tls);

  // Connects and then sends the exchange's request.
  void open(const Url& url, std::shared_ptr<Exchange> exchange);
  // Sends the request of the next exchange; only when idle.
  void carry(std::shared_ptr<Exchange> exchange);
  // Ends the exchange with a failure that says what it waited for; an idle connection just ends.
  void time_out();
  // Closes without a word to the exchange.
  void close();
  // The client is going: no calls to it any more.
  void detach() { client_ = nullptr; }

  bool idle() const { return open_ && exchange_ == nullptr; }
  const Exchange* exchange() const { return exchange_.get(); }  // null when idle
  std::int64_t idle_since_ms() const { return idle_since_ms_; }

 private:
  using error_code = boost::system::error_code;
  using tcp = boost::asio::ip::tcp;

  void resolved(const error_code& ec, const tcp::resolver::results_type& results);
  void connected(const error_code& ec);
  void handshaken(const error_code& ec);
  void opened();
  void send();
  void sent(const error_code& ec);
  void read();
  void received(const error_code& ec, std::size_t count);
  void consume();
  void on_eof(const error_code& ec);
  void finish();
  void lose(std::string what);
  std::string tls_reason(const error_code& ec) const;

  template <typename Use>
  void with_stream(Use use) {
    if (tls_) {
      use(*tls_);
    } else {
      use(socket_);
    }
  }

  Client* client_;
  boost::asio::io_context& io_;
  tcp::resolver resolver_;
  tcp::socket socket_;
  std::optional<boost::asio::ssl::stream<tcp::socket&>> tls_;
  std::string host_;
  std::shared_ptr<Exchange> exchange_;
  std::optional<ResponseReader> reader_;
  std::vector<char> buffer_;
  std::size_t filled_ = 0;
  bool open_ = false;
  bool closed_ = false;
  bool was_open_ = false;  // connected once, TLS included
  bool reading_ = false;
  bool writing_ = false;
  bool write_broken_ = false;
  bool used_before_ = false;  // the exchange isn't its first
  bool heard_ = false;        // something of the response came
  std::int64_t idle_since_ms_ = 0;
};

}  // namespace waystation::upstream
