#include "front/server.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/thread_name.h"
#include "front/connection.h"
#include "front/deps.h"
#include "front/loop.h"

namespace waystation::front {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Connections over the cap that are told so at the same time; more are closed without a word.
constexpr int kRefusalsMax = 128;
// Out of descriptors: accepting again at once would only spin.
constexpr auto kAcceptPause = std::chrono::milliseconds(100);
// For the last words of streams that were ended.
constexpr int kFarewellMs = 500;

}  // namespace

struct Server::Impl {
  Impl(const Options& options, broker::Api& api, const guard::KeyFile* keys,
       std::function<std::string()> render_metrics, Clock& clock, Meter& meter, Parts parts)
      : deps(options, api, keys, std::move(render_metrics), clock, meter, std::move(parts)) {}

  Status listen();
  void accept();
  void on_accepted(error_code ec, tcp::socket socket, const std::shared_ptr<Loop>& loop);
  bool wait_until_closed(int ms);
  void on_every_loop(void (Connection::*what)());

  Deps deps;
  std::vector<std::shared_ptr<Loop>> loops;
  std::unique_ptr<tcp::acceptor> acceptor;
  std::unique_ptr<asio::steady_timer> accept_pause;
  std::size_t next_loop = 0;
  std::vector<std::thread> threads;
  bool running = false;
};

Status Server::Impl::listen() {
  const Listen& at = deps.options.listen;
  error_code ec;
  const tcp::endpoint endpoint(asio::ip::make_address(at.host, ec), at.port);
  const std::string name =
      (endpoint.address().is_v6() ? "[" + at.host + "]" : at.host) + ":" + std::to_string(at.port);
  if (ec) return Error{Code::kInvalidArgument, "'" + at.host + "' is not an IP address", "listen"};
  acceptor = std::make_unique<tcp::acceptor>(loops[0]->io());
  acceptor->open(endpoint.protocol(), ec);
  if (!ec) acceptor->set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) acceptor->bind(endpoint, ec);
  if (!ec) acceptor->listen(asio::socket_base::max_listen_connections, ec);
  if (ec == asio::error::address_in_use) {
    return Error{Code::kBusy, name +
                                  " is already in use by another program; stop it, or choose "
                                  "another address with --listen"};
  }
  if (ec) return Error{Code::kIo, "can't listen on " + name + ": " + ec.message()};
  return {};
}

void Server::Impl::accept() {
  const auto& loop = loops[next_loop++ % loops.size()];
  acceptor->async_accept(loop->io(), [this, loop](error_code ec, tcp::socket socket) {
    on_accepted(ec, std::move(socket), loop);
  });
}

void Server::Impl::on_accepted(error_code ec, tcp::socket socket,
                               const std::shared_ptr<Loop>& loop) {
  if (ec == asio::error::operation_aborted || !acceptor->is_open()) return;
  if (ec) {
    // A peer that went away at once costs nothing; anything else (descriptors) needs a pause.
    if (ec == asio::error::connection_aborted) return accept();
    WS_LOG(warn, "accept failed error=\"{}\"", ec.message());
    accept_pause->expires_after(kAcceptPause);
    accept_pause->async_wait([this](error_code aborted) {
      if (!aborted && acceptor->is_open()) accept();
    });
    return;
  }
  const int open = deps.connections;
  if (open < deps.options.connections_max + kRefusalsMax) {
    const bool is_welcome = open < deps.options.connections_max;
    auto connection = std::make_shared<Connection>(loop, std::move(socket), deps);
    asio::post(loop->io(), [connection, is_welcome] {
      if (is_welcome) {
        connection->start();
      } else {
        connection->refuse();
      }
    });
  }
  accept();
}

bool Server::Impl::wait_until_closed(int ms) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
  while (deps.connections > 0) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

void Server::Impl::on_every_loop(void (Connection::*what)()) {
  for (const auto& loop : loops) {
    asio::post(loop->io(), [loop, what] {
      loop->each([what](Connection& connection) { (connection.*what)(); });
    });
  }
}

Server::Server(Options options, broker::Api& api, const guard::KeyFile* keys,
               std::function<std::string()> render_metrics, Clock& clock, Meter& meter, Parts parts)
    : impl_(std::make_unique<Impl>(options, api, keys, std::move(render_metrics), clock, meter,
                                   std::move(parts))) {}

Server::~Server() {
  stop(0);
}

Result<std::uint16_t> Server::start() {
  for (int i = 0; i < std::max(1, impl_->deps.options.threads); ++i) {
    impl_->loops.push_back(std::make_shared<Loop>(impl_->deps.clock, impl_->deps.options.tick_ms));
  }
  if (auto status = impl_->listen(); !status) {
    impl_->acceptor.reset();
    impl_->loops.clear();
    return status.error();
  }
  impl_->accept_pause = std::make_unique<asio::steady_timer>(impl_->loops[0]->io());
  const std::uint16_t port = impl_->acceptor->local_endpoint().port();
  impl_->running = true;
  impl_->accept();
  for (const auto& loop : impl_->loops) {
    impl_->threads.emplace_back([loop] {
      name_this_thread("front");
      loop->run();
    });
  }
  return port;
}

void Server::stop(int grace_ms) {
  if (!std::exchange(impl_->running, false)) return;
  impl_->deps.draining = true;
  // Waited for, so that no connection comes to a loop that has ended.
  std::promise<void> closed;
  asio::post(impl_->loops[0]->io(), [impl = impl_.get(), &closed] {
    error_code ignored;
    impl->acceptor->close(ignored);
    impl->accept_pause->cancel();
    closed.set_value();
  });
  closed.get_future().wait();
  impl_->on_every_loop(&Connection::drain);
  if (!impl_->wait_until_closed(grace_ms)) {
    impl_->on_every_loop(&Connection::stop);
    impl_->wait_until_closed(kFarewellMs);
  }
  for (const auto& loop : impl_->loops) {
    asio::post(loop->io(), [loop] { loop->finish(); });
  }
  for (auto& thread : impl_->threads) thread.join();
  impl_->threads.clear();
  impl_->acceptor.reset();
  impl_->accept_pause.reset();
  impl_->loops.clear();
}

}  // namespace waystation::front
