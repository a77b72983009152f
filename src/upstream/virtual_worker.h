// An upstream as a worker of the broker's: the same messages as a worker process would exchange
// over the link, and behind them HTTP calls. Its loop's thread only.
//
//   PROBING ── GET /models is answered ──▶ JOINED ── failures in a row, key refused ──▶ PROBING
//                                           │  ▲
//                    "too many requests" ───▼  └── the time has passed
//                                         PAUSED
//
// Only in JOINED there is a session that takes work. When it ends, calls whose answer has begun go
// on in the old session, which is closed after the last of them; the others are given back.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/meter.h"
#include "link/transport.h"
#include "link/worker_session.h"
#include "upstream/call.h"
#include "upstream/client.h"
#include "upstream/options.h"

namespace waystation::upstream {

class Probe;

struct WorkerDeps {
  boost::asio::io_context& io;
  const Clock& clock;
  Meter& meter;
  std::string version;
  std::string instance;                // this server's id, which its calls carry; empty: they don't
  std::uint64_t first_connection = 1;  // its connections are counted from here
};

class VirtualWorker final : public CallHost {
 public:
  // `deps` outlive it. Errors as Client::make and check_options.
  static Result<std::unique_ptr<VirtualWorker>> make(Options options, WorkerDeps deps);
  ~VirtualWorker() override;

  // `events` outlive it or its stop().
  void begin(link::ServerEvents& events);
  void on_message(link::ConnectionId connection, v1::ServerMessage message);
  void on_closed(link::ConnectionId connection);  // by the server

  // Sends what has come since the last call. After every turn of the loop.
  void flush();
  // Heartbeats, timeouts, the next probe: at due_ms() or later.
  void tend(std::int64_t now_ms);
  std::int64_t due_ms() const { return due_ms_; }

  // Aborts everything and ends the sessions.
  void stop();

 private:
  enum class State { kProbing, kJoined, kPaused, kStopped };

  struct Session {
    Session(v1::Hello hello, std::int64_t now_ms) : rules(std::move(hello), now_ms) {}
    link::WorkerSession rules;
    std::unordered_map<link::FenceKey, std::shared_ptr<Call>, link::FenceKeyHash> calls;
    std::vector<v1::Step> steps;  // to be sent
    std::uint64_t serial = 1;     // of the step that is being filled
    bool leaving = false;
  };

  struct Metrics {
    Counter& complete;
    Counter& refused;
    Counter& failed;
    Counter& cancelled;
    Counter& paused;
    Counter& opened;
    Counter& uncounted;
    Gauge& joined;
    Gauge& connections;
    Histogram& seconds;
  };

  VirtualWorker(Options options, WorkerDeps deps, std::unique_ptr<Client> client);

  void on_news(Call& call) override;
  void on_ended(Call& call, Verdict verdict) override;

  v1::Hello hello() const;
  std::string make_head() const;
  std::string call_head(const v1::Assign& assign, const Body& body) const;
  void join();
  void leave(const std::string& reason, bool give_back);
  void probe();
  void on_probed(int status, const std::string& why);
  void pause(TimeMs ms, const std::string& why);
  void open_circuit(const std::string& why);
  void note_failure(const Verdict& verdict);
  void start_call(link::ConnectionId connection, Session& session, v1::Assign assign);
  void cancel_call(link::ConnectionId connection, Session& session, const v1::Fence& fence);
  void put(Session& session, Call& call, std::vector<v1::Output>& outputs);
  void put_ending(Session& session, v1::Output output);
  void close_if_empty(link::ConnectionId connection);
  void due(std::int64_t at_ms) { due_ms_ = std::min(due_ms_, at_ms); }
  std::int64_t now_ms() const { return deps_.clock.steady_us() / 1000; }
  TimeMs jittered(TimeMs ms);

  const Options options_;
  const WorkerDeps deps_;
  const std::unique_ptr<Client> client_;
  const std::string head_;  // what every call's header begins with, after the request line
  Metrics metrics_;
  link::ServerEvents* events_ = nullptr;

  State state_ = State::kProbing;
  std::map<link::ConnectionId, Session> sessions_;
  std::optional<link::ConnectionId> current_;  // the one that takes work
  std::uint64_t next_connection_;
  std::vector<std::shared_ptr<Call>> news_;
  std::vector<v1::Output> outputs_;  // reused
  std::uint32_t failures_ = 0;       // in a row
  TimeMs backoff_ms_;
  std::int64_t resume_at_ms_ = 0;  // of the pause, or the next probe
  std::shared_ptr<Probe> probe_;
  std::int64_t due_ms_ = 0;
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace waystation::upstream
