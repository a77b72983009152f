#include "upstream/pool.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/thread_name.h"
#include "upstream/virtual_worker.h"

namespace waystation::upstream {
namespace {

// A connection's id says whose it is: upstream number n counts its own from n << 32. The mux has
// the bits above.
constexpr int kUpstreamShift = 32;
constexpr std::size_t kUpstreamsMax = 1000;
constexpr std::int64_t kSleepMsMax = 60'000;

// Something on its way from the broker to an upstream.
struct Inbound {
  link::ConnectionId connection;
  std::optional<v1::ServerMessage> message;  // none: close
};

}  // namespace

// One I/O thread and its upstreams.
class Pool::Loop {
 public:
  explicit Loop(const Clock& clock) : clock_(clock), timer_(io_) {}

  boost::asio::io_context& io() { return io_; }
  void add(std::size_t number, std::unique_ptr<VirtualWorker> worker) {
    workers_.emplace_back(number, std::move(worker));
  }

  void start(link::ServerEvents& events) {
    thread_ = std::thread([this, &events] {
      name_this_thread("upstream");
      run(events);
    });
  }

  void stop() {
    if (!thread_.joinable()) return;
    stopping_ = true;
    boost::asio::post(io_, [] {});
    thread_.join();
  }

  // Any thread. Many in a burst cost one wake-up of the loop.
  void post(Inbound item) {
    bool first = false;
    {
      std::lock_guard lock(mutex_);
      if (ended_) return;
      inbox_.push_back(std::move(item));
      first = !std::exchange(scheduled_, true);
    }
    if (first) boost::asio::post(io_, [this] { take_inbox(); });
  }

 private:
  using WorkGuard = boost::asio::executor_work_guard<boost::asio::io_context::executor_type>;

  void run(link::ServerEvents& events) {
    WorkGuard guard = boost::asio::make_work_guard(io_);
    for (auto& [number, worker] : workers_) worker->begin(events);
    while (!stopping_) {
      tend();
      io_.run_one();
      // What is ready now is answered together, in one message to the broker.
      io_.poll();
    }
    for (auto& [number, worker] : workers_) worker->stop();
    std::vector<Inbound> left;
    std::lock_guard lock(mutex_);
    ended_ = true;
    left.swap(inbox_);
  }

  void take_inbox() {
    taken_.clear();
    {
      std::lock_guard lock(mutex_);
      scheduled_ = false;
      taken_.swap(inbox_);
    }
    for (Inbound& item : taken_) {
      VirtualWorker* const worker = find(item.connection.value >> kUpstreamShift);
      if (worker == nullptr) continue;
      if (item.message) {
        worker->on_message(item.connection, std::move(*item.message));
      } else {
        worker->on_closed(item.connection);
      }
    }
  }

  void tend() {
    const std::int64_t now_ms = clock_.steady_us() / 1000;
    std::int64_t next_ms = now_ms + kSleepMsMax;
    for (auto& [number, worker] : workers_) {
      worker->flush();
      if (worker->due_ms() <= now_ms) worker->tend(now_ms);
      next_ms = std::min(next_ms, std::max(worker->due_ms(), now_ms + 1));
    }
    if (next_ms >= armed_ms_ && armed_ms_ > now_ms) return;
    armed_ms_ = next_ms;
    timer_.expires_after(std::chrono::milliseconds(next_ms - now_ms));
    timer_.async_wait([](const boost::system::error_code&) {});
  }

  VirtualWorker* find(std::uint64_t number) {
    for (auto& [own, worker] : workers_) {
      if (own == number) return worker.get();
    }
    return nullptr;
  }

  const Clock& clock_;
  boost::asio::io_context io_{1};
  boost::asio::steady_timer timer_;
  std::int64_t armed_ms_ = 0;  // when the timer ends
  std::vector<std::pair<std::size_t, std::unique_ptr<VirtualWorker>>> workers_;
  std::vector<Inbound> taken_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;

  std::mutex mutex_;
  bool ended_ = false;          // under mutex_, as are the two below
  bool scheduled_ = false;      // take_inbox() is on its way
  std::vector<Inbound> inbox_;  // bounded by the sessions: slots, cancels, heartbeats
};

Pool::Pool() = default;

Pool::~Pool() {
  stop();
}

void Pool::start(link::ServerEvents& events) {
  for (auto& loop : loops_) loop->start(events);
}

void Pool::stop() {
  for (auto& loop : loops_) loop->stop();
}

Pool::Loop* Pool::loop_of(link::ConnectionId connection) {
  const std::uint64_t number = connection.value >> kUpstreamShift;
  return loops_.empty() || number == 0 ? nullptr : loops_[(number - 1) % loops_.size()].get();
}

void Pool::send(link::ConnectionId connection, v1::ServerMessage message) {
  if (Loop* loop = loop_of(connection)) loop->post({connection, std::move(message)});
}

void Pool::close(link::ConnectionId connection) {
  if (Loop* loop = loop_of(connection)) loop->post({connection, std::nullopt});
}

Result<std::unique_ptr<Pool>> make_pool(PoolOptions options, const Clock& clock, Meter& meter) {
  if (options.upstreams.size() > kUpstreamsMax) {
    return Error{Code::kInvalidArgument,
                 "there can be " + std::to_string(kUpstreamsMax) + " upstreams at most",
                 "upstream"};
  }
  std::set<std::string> names;
  for (const Options& upstream : options.upstreams) {
    if (!names.insert(upstream.name).second) {
      return Error{Code::kInvalidArgument,
                   "two upstreams are called '" + upstream.name + "': give them names of their own",
                   "name"};
    }
  }
  std::unique_ptr<Pool> pool(new Pool());
  const auto threads = std::clamp<std::size_t>(
      options.upstreams.size(), 1, static_cast<std::size_t>(std::max(1, options.threads)));
  for (std::size_t i = 0; i < threads; ++i) {
    pool->loops_.push_back(std::make_unique<Pool::Loop>(clock));
  }
  for (std::size_t i = 0; i < options.upstreams.size(); ++i) {
    Pool::Loop& loop = *pool->loops_[i % threads];
    const std::size_t number = i + 1;
    auto worker = VirtualWorker::make(std::move(options.upstreams[i]),
                                      {loop.io(), clock, meter, options.version, options.instance,
                                       (std::uint64_t{number} << kUpstreamShift) + 1});
    if (!worker) return worker.error();
    loop.add(number, std::move(*worker));
  }
  return pool;
}

}  // namespace waystation::upstream
