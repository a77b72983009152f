// One I/O thread: an event loop that owns its connections. Everything of a connection happens on
// its loop's thread, so nothing there is locked; other threads hand work over by post() and wake().
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"

namespace waystation::front {

class Connection;

// Something on a loop that another thread has left work for.
class Wakeable {
 public:
  virtual ~Wakeable() = default;
  // On the loop's thread.
  virtual void on_wake() = 0;
};

class Loop {
 public:
  Loop(const Clock& clock, int tick_ms);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // The thread's body: returns after finish() was called and every connection is closed.
  void run();

  // Any thread. Runs `work` on the loop; dropped once the loop has ended. Many calls in a burst
  // cost one wake-up of the loop.
  void post(std::function<void()> work);
  void wake(std::shared_ptr<Wakeable> sleeper);

  // The rest: loop's thread only, unless said otherwise.
  boost::asio::io_context& io() { return io_; }               // any thread
  std::int64_t now_us() const { return clock_.steady_us(); }  // any thread
  const Clock& clock() const { return clock_; }               // any thread
  // The value of a Date header, made once a second.
  const std::string& date();

  void add(std::shared_ptr<Connection> connection);
  void remove(Connection* connection);
  // Calls `f` for each connection; `f` may close any of them.
  void each(const std::function<void(Connection&)>& f);
  // Closes what is left and lets run() return.
  void finish();

 private:
  void schedule_tick();
  void drain_queue();
  bool enqueue_locked();

  const Clock& clock_;
  const int tick_ms_;
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::steady_timer tick_;
  bool finishing_ = false;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  std::string date_;
  TimeMs date_second_ = -1;

  std::mutex mutex_;
  bool ended_ = false;      // guarded by mutex_, as are the three below
  bool scheduled_ = false;  // drain_queue() is on its way
  std::vector<std::function<void()>> posted_;
  std::vector<std::shared_ptr<Wakeable>> woken_;
};

}  // namespace waystation::front
