// The worker process: a session with the server on one side, an engine on the other.
//
//   thread           does
//   engine (run's)   start, cancel and step of the engine; sends one Step message a step
//   pulse            heartbeats, so that a long step doesn't lose the lease; watches the server's
//   transport        puts what the server sends into the inbox
//
// A worker keeps nothing: when its session ends, all its work is dropped, and the server gives it
// to another attempt.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "engine/engine.h"
#include "link/transport.h"
#include "link/worker_session.h"

namespace waystation::worker {

// Makes one connection to the server: link::connect_grpc, or a memory link in tests.
using Connect =
    std::function<Result<std::unique_ptr<link::WorkerTransport>>(link::WorkerEvents& events)>;

struct WorkerOptions {
  std::string name;
  std::string version;
  std::string join_token;  // for a remote server
  Connect connect;
  // A local worker ends when its session does (its supervisor starts the next); a remote one
  // connects again, for ever.
  bool exit_on_loss = false;
  pid_t parent_pid = 0;  // above 0: die with this process, see die_with_parent
  // After leave(): how long what is running may go on before it is given back.
  TimeMs grace_ms = 20'000;
  TimeMs welcome_ms = 5'000;  // how long to wait for the server's answer to Hello
  TimeMs backoff_min_ms = 100;
  TimeMs backoff_max_ms = 10'000;
  bool handle_signals = true;    // SIGTERM, SIGINT: leave; the second one: exit at once
  const Clock* clock = nullptr;  // null: the machine's; run() waits by that one anyway
};

class Worker final : private link::WorkerEvents {
 public:
  // `engine` must outlive it.
  Worker(WorkerOptions options, engine::Engine& engine);

  // Serves until leave(), on the calling thread. Errors: the server refused for good (its code), or
  // with exit_on_loss any end of the session (kUnavailable).
  Status run();

  // Takes no new work from now on, ends what is running (within the grace time), and makes run()
  // return. Any thread.
  void leave(std::string reason);

  // ---- A session by hand: what run() is made of, without its threads and its waiting. For the
  // simulator, which calls all of it from one thread.
  // ----------------------------------------------

  // Connects and says Hello.
  Status begin();
  // One round of the engine's thread. Gives how the session ended, nothing while it goes on.
  std::optional<Status> turn();
  // Microseconds until turn() has something to do; below 0: not before news come.
  std::int64_t wait_us() const;
  // One round of the pulse's thread. Milliseconds until the next one; 0: the session is lost.
  TimeMs beat();
  // After the end: drops what was running and closes the connection.
  void hang_up();

 private:
  void on_message(v1::ServerMessage message) override;
  void on_disconnected(std::string reason) override;

  Status run_session();
  // Waits until there is something to do, or the session is lost.
  void wait_for_news();
  void handle(std::vector<link::News>& news, v1::Step& step);
  // Says Leaving when asked to; after the grace time cancels what is left. True when all is done.
  bool left();
  // Sends what the session still wants to hear of `step`.
  void send_step(v1::Step&& step);
  void drop_everything();
  void pulse();
  // With the mutex held, but for the moments of sending.
  TimeMs beat(std::unique_lock<std::mutex>& lock);
  void lose(Error why);  // with the mutex held; the first reason stays
  TimeMs steady_ms() const { return clock_.steady_us() / 1000; }
  v1::Hello hello() const;
  // False when asked to leave meanwhile.
  bool wait_before_retry(TimeMs backoff_ms);

  const WorkerOptions options_;
  engine::Engine& engine_;
  const Clock& clock_;

  std::mutex mutex_;
  std::condition_variable news_;       // for the engine's thread
  std::condition_variable pulse_due_;  // for the pulse's
  std::optional<link::WorkerSession> session_;
  std::vector<link::News> inbox_;  // bounded by the session: slots assigned, each cancelled
  std::optional<Error> lost_;      // the session's end
  std::optional<std::string> leave_;
  bool stop_pulse_ = false;

  // Made and reset by the engine's thread, while no pulse beats.
  std::unique_ptr<link::WorkerTransport> transport_;
  TimeMs beat_due_ms_ = 0;  // the pulse's

  // The engine's thread only.
  bool welcomed_ = false;
  TimeMs leave_until_ms_ = 0;  // above 0: leaving
  bool gave_back_ = false;
};

// Runs a worker until a signal or its end. What Worker::run says, and kUnavailable when the parent
// is gone already.
Status run_worker(const WorkerOptions& options, engine::Engine& engine);

// Makes the kernel kill this process when the thread of `parent` that started it ends, so that a
// killed server leaves no worker behind. Call it first thing in the process. kUnavailable when the
// parent is gone already.
Status die_with_parent(pid_t parent);

}  // namespace waystation::worker
