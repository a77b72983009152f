#include "upstream/client.h"

#include <algorithm>
#include <limits>

#include "base/clock.h"

namespace waystation::upstream {
namespace {

namespace ssl = boost::asio::ssl;

constexpr std::int64_t kIdleMsMax = 50'000;  // below what servers commonly keep
constexpr std::int64_t kIdleCheckMs = 10'000;

}  // namespace

Client::Client(boost::asio::io_context& io, Url url) : io_(io), url_(std::move(url)) {}

Result<std::unique_ptr<Client>> Client::make(boost::asio::io_context& io, const Options& options) {
  auto url = parse_url(options.url);
  if (!url) return url.error();
  std::unique_ptr<Client> client(new Client(io, std::move(*url)));
  if (!client->url_.tls) return client;
  boost::system::error_code ec;
  ssl::context& tls = client->tls_.emplace(ssl::context::tls_client);
  tls.set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 |
                      ssl::context::no_sslv3 | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1,
                  ec);
  tls.set_verify_mode(ssl::verify_peer, ec);
  if (options.ca_file.empty()) {
    tls.set_default_verify_paths(ec);
  } else {
    tls.load_verify_file(options.ca_file, ec);
  }
  if (ec) {
    return Error{Code::kIo,
                 "upstream '" + options.name + "': can't read the certificates to trust" +
                     (options.ca_file.empty() ? "" : " from " + options.ca_file) + ": " +
                     ec.message(),
                 "ca_file"};
  }
  return client;
}

Client::~Client() {
  for (const auto& connection : connections_) {
    connection->detach();
    connection->close();
  }
}

void Client::start(const std::shared_ptr<Exchange>& exchange) {
  exchange->total_deadline_ms_ = SystemClock().steady_us() / 1000 + exchange->timeouts.total_ms;
  if (idle_.empty()) {
    start_fresh(exchange);
    return;
  }
  Connection* const connection = idle_.back();
  idle_.pop_back();
  connection->carry(exchange);
}

void Client::start_fresh(const std::shared_ptr<Exchange>& exchange) {
  auto connection = std::make_shared<Connection>(*this, io_, tls_ ? &*tls_ : nullptr);
  connections_.insert(connection);
  connection->open(url_, exchange);
}

void Client::keep(Connection& connection) {
  idle_.push_back(&connection);
}

void Client::remove(Connection& connection) {
  std::erase(idle_, &connection);
  connections_.erase(connection.shared_from_this());
}

std::int64_t Client::check_deadlines(std::int64_t now_ms) {
  std::int64_t next_ms = std::numeric_limits<std::int64_t>::max();
  std::vector<std::shared_ptr<Connection>> late;
  for (const auto& connection : connections_) {
    const Exchange* exchange = connection->exchange();
    if (exchange == nullptr) {
      if (connection->idle() && now_ms - connection->idle_since_ms() >= kIdleMsMax) {
        late.push_back(connection);
      }
      next_ms = std::min(next_ms, now_ms + kIdleCheckMs);
      continue;
    }
    const std::int64_t due_ms = std::min(exchange->deadline_ms_, exchange->total_deadline_ms_);
    if (due_ms <= now_ms) {
      late.push_back(connection);
    } else {
      next_ms = std::min(next_ms, due_ms);
    }
  }
  for (const auto& connection : late) connection->time_out();
  return next_ms;
}

}  // namespace waystation::upstream
