// The HTTP client of one upstream: its connections, kept open between calls, and their deadlines.
// Loop's thread only.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "upstream/connection.h"
#include "upstream/exchange.h"
#include "upstream/options.h"

namespace waystation::upstream {

class Client {
 public:
  // kInvalidArgument, kIo: the URL, or the file of certificates.
  static Result<std::unique_ptr<Client>> make(boost::asio::io_context& io, const Options& options);
  ~Client();

  // Sends the call on an idle connection or a new one. A kept connection that turns out to be dead
  // before anything of the response came is replaced once.
  void start(const std::shared_ptr<Exchange>& exchange);

  // Ends what is past its deadline, and connections that were idle for long. Gives the next time
  // (steady ms) at which something may be due.
  std::int64_t check_deadlines(std::int64_t now_ms);

  const Url& url() const { return url_; }
  std::size_t connection_count() const { return connections_.size(); }
  std::size_t idle_count() const { return idle_.size(); }

 private:
  friend class Connection;

  Client(boost::asio::io_context& io, Url url);
  void start_fresh(const std::shared_ptr<Exchange>& exchange);
  void keep(Connection& connection);
  void remove(Connection& connection);

  boost::asio::io_context& io_;
  const Url url_;
  std::optional<boost::asio::ssl::context> tls_;
  std::unordered_set<std::shared_ptr<Connection>> connections_;
  std::vector<Connection*> idle_;  // the one used last at the end
};

}  // namespace waystation::upstream
