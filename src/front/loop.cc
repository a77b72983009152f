#include "front/loop.h"

#include <array>
#include <boost/asio/post.hpp>
#include <chrono>
#include <ctime>

#include "front/connection.h"

namespace waystation::front {

Loop::Loop(const Clock& clock, int tick_ms)
    : clock_(clock), tick_ms_(tick_ms), work_(boost::asio::make_work_guard(io_)), tick_(io_) {}

Loop::~Loop() = default;

void Loop::run() {
  schedule_tick();
  io_.run();
  std::vector<std::function<void()>> posted;
  std::vector<std::shared_ptr<Wakeable>> woken;
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    posted.swap(posted_);
    woken.swap(woken_);
  }
  // Destroyed here, without the lock: what they hold may come back to this loop.
}

bool Loop::enqueue_locked() {
  return !std::exchange(scheduled_, true);
}

void Loop::post(std::function<void()> work) {
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    posted_.push_back(std::move(work));
    first = enqueue_locked();
  }
  if (first) boost::asio::post(io_, [this] { drain_queue(); });
}

void Loop::wake(std::shared_ptr<Wakeable> sleeper) {
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    woken_.push_back(std::move(sleeper));
    first = enqueue_locked();
  }
  if (first) boost::asio::post(io_, [this] { drain_queue(); });
}

void Loop::drain_queue() {
  std::vector<std::function<void()>> posted;
  std::vector<std::shared_ptr<Wakeable>> woken;
  {
    std::lock_guard lock(mutex_);
    scheduled_ = false;
    posted.swap(posted_);
    woken.swap(woken_);
  }
  for (auto& work : posted) work();
  for (auto& sleeper : woken) sleeper->on_wake();
}

void Loop::schedule_tick() {
  tick_.expires_after(std::chrono::milliseconds(tick_ms_));
  tick_.async_wait([this](boost::system::error_code ec) {
    if (ec || finishing_) return;
    const std::int64_t now = now_us();
    each([now](Connection& connection) { connection.on_tick(now); });
    schedule_tick();
  });
}

const std::string& Loop::date() {
  const TimeMs second = clock_.wall_ms() / 1000;
  if (second != date_second_) {
    date_second_ = second;
    const std::time_t time = second;
    std::tm parts{};
    ::gmtime_r(&time, &parts);
    std::array<char, 40> text;
    date_.assign(text.data(),
                 std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts));
  }
  return date_;
}

void Loop::add(std::shared_ptr<Connection> connection) {
  Connection* const key = connection.get();
  connections_.emplace(key, std::move(connection));
}

void Loop::remove(Connection* connection) {
  connections_.erase(connection);
}

void Loop::each(const std::function<void(Connection&)>& f) {
  std::vector<std::shared_ptr<Connection>> all;
  all.reserve(connections_.size());
  for (const auto& [key, connection] : connections_) all.push_back(connection);
  for (const auto& connection : all) f(*connection);
}

void Loop::finish() {
  finishing_ = true;
  each([](Connection& connection) { connection.close(); });
  tick_.cancel();
  work_.reset();
}

}  // namespace waystation::front
