// The broker: the loop that owns the ledger and joins it to everything else. Whatever threads want
// comes through its inbox. One thread calls `turn()` again and again; with `callers_help` a thread
// that brought something may take a turn in its place. There is one turn at a time: "the broker's
// thread" is whichever takes it.
//
//   turn:  take the inbox ─▶ commands change the ledger ─▶ records ─▶ one batch to the journal
//                                                       └─▶ effects ─▶ workers now, readers and
//                                                                      callers through the gate
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/mailbox.h"
#include "base/meter.h"
#include "broker/api.h"
#include "broker/gate.h"
#include "broker/metrics.h"
#include "cache/exact_index.h"
#include "dispatch/dispatcher.h"
#include "journal/journal.h"
#include "ledger/ledger.h"
#include "link/server_session.h"
#include "link/transport.h"
#include "stream/hub.h"

namespace waystation::broker {

struct Config {
  ledger::Limits limits;
  link::ServerSessionConfig link;
  std::vector<std::string> expected_models;  // will be served: requests wait for their worker
  // Who answers instead, in this order, while nobody serves the model.
  std::map<std::string, std::vector<std::string>> fallbacks;
  bool block_on_dead = false;                     // of requests that don't say it themselves
  std::size_t cache_keys_max = 100'000;           // answers that can be found again
  std::uint64_t hub_bytes_max = 64ull << 20;      // events of ended requests held in memory
  std::uint64_t backlog_bytes_max = 64ull << 20;  // appended and not yet durable
  std::uint64_t journal_bytes_max = 8ull << 30;   // on disk; above it ended requests are forgotten
  // After as many new records a checkpoint is made, also in the middle of a segment: what a start
  // has to read again is bounded by that, as long as the state is small beside it.
  std::uint64_t checkpoint_records = 256 * 1024;
  TimeMs orphan_wait_ms = 60'000;  // for a reader, after a restart
  std::size_t inbox_max = 65'536;
  bool callers_help = false;  // see Api::gather(); also the journal's and the transports' threads
  std::string version = "dev";
};

struct Deps {
  const Clock& clock;
  Executor& background;  // replays, checkpoints
  Meter& meter;
  std::function<std::uint64_t()> random;  // for ids
  // A local worker of this process id gave no sign of life within its lease; may be empty. Whoever
  // started it should end it, so that another takes its place.
  std::function<void(std::int64_t pid)> worker_stuck = {};
  Composer* composer = nullptr;  // null: requests that need one fail; outlives the broker
};

class Broker final : public Api, public link::ServerEvents {
 public:
  Broker(Config config, Deps deps);
  ~Broker() override;

  // ---- Life ------------------------------------------------------------------------------------

  // In place of Deps::composer, where it is made later. Before start().
  void set_composer(Composer& composer) { deps_.composer = &composer; }

  // What the journal is to be opened with.
  journal::Callbacks journal_callbacks();

  // Recovers the state and begins a new epoch. Before the first turn, on the same thread or before
  // that thread starts. `journal` and `transport` outlive the broker's turns.
  Status start(journal::Journal& journal, link::ServerTransport& transport);

  // One turn of the loop: waits up to `wait` for something to do. False once stop() was called.
  bool turn(std::chrono::milliseconds wait);

  // Refuses new requests from now on and starts no queued ones; what runs goes on. Any thread.
  void drain();
  // Nothing runs any more (after drain). Any thread.
  bool drained() const;
  // Waits until that is so, but no longer than `limit`. Another thread than the turns'.
  bool wait_drained(std::chrono::milliseconds limit) const;
  // Ends the loop; readers and callers that still wait hear that the server ends. Any thread.
  void stop();

  // ---- Api: any thread --------------------------------------------------------------------------

  void gather() override;
  void help() override;
  Status submit(Submission submission, Callback<Submitted> done) override;
  Status attach(std::string tenant, RequestId id, Sequence from,
                std::shared_ptr<stream::Reader> reader, Callback<RequestView> done) override;
  void detach(RequestId id, std::shared_ptr<stream::Reader> reader, bool client_gone) override;
  Status cancel(std::string tenant, RequestId id, Callback<RequestView> done) override;
  Status get(std::string tenant, RequestId id, Callback<RequestView> done) override;
  Status erase(std::string tenant, RequestId id, Callback<void> done) override;
  Status requeue(std::string tenant, RequestId id, Callback<Submitted> done) override;
  Status discard(std::string tenant, RequestId id, Callback<RequestView> done) override;
  Status dead_letters(std::string tenant, std::optional<RequestId> after, std::size_t count_max,
                      Callback<std::vector<RequestView>> done) override;
  Status models(Callback<std::vector<ModelView>> done) override;
  Health health() const override;

  // ---- link::ServerEvents: the transport's threads ----------------------------------------------

  void on_connected(link::ConnectionId connection, link::Peer peer) override;
  void on_message(link::ConnectionId connection, v1::WorkerMessage message) override;
  void on_disconnected(link::ConnectionId connection, std::string reason) override;

 private:
  using ReaderPtr = std::shared_ptr<stream::Reader>;

  // From api.cc: the commands, on the broker's thread.
  Status post(Task task);
  void do_submit(Submission submission, Callback<Submitted> done);
  Result<Submitted> accept(Submission& submission);
  void do_attach(const std::string& tenant, RequestId id, Sequence from, ReaderPtr reader,
                 Callback<RequestView> done);
  void do_detach(RequestId id, const ReaderPtr& reader, bool client_gone);
  void do_cancel(const std::string& tenant, RequestId id, Callback<RequestView> done);
  void do_erase(const std::string& tenant, RequestId id, Callback<void> done);
  void join(RequestId id, Sequence from, ReaderPtr reader);
  void tell_gone(ReaderPtr reader);
  // `first`: where the first of the events was to be read.
  void joined_after_load(RequestId id, Sequence from, LogIndex first, ReaderPtr reader,
                         const Result<std::vector<stream::BlockPtr>>& history);
  Status accepting() const;
  Error unknown_model(const std::string& model) const;
  Status check_model(const v1::Envelope& envelope) const;
  bool does_task(const std::string& model, const std::string& type) const;
  std::optional<Submitted> find_cached(const Submission& submission);
  void await_reader(const ledger::Request& request);
  bool is_expected(const std::string& model) const;
  RequestView view_of(const ledger::Request& request) const;

  // From dead_letters.cc.
  void do_requeue(std::string tenant, RequestId id, Callback<Submitted> done);
  // `stored`: where the body was to be read.
  void requeue_loaded(std::string tenant, RequestId id, LogIndex stored, Result<v1::Envelope> body,
                      Callback<Submitted> done);
  void do_discard(const std::string& tenant, RequestId id, Callback<RequestView> done);

  // From workers.cc.
  void do_connected(link::ConnectionId connection, link::Peer peer);
  void do_message(link::ConnectionId connection, v1::WorkerMessage message);
  void do_hello(link::ServerSession& session, const v1::Hello& hello);
  void do_step(link::ServerSession& session, link::StepHeard step);
  void lose(link::ConnectionId connection, const std::string& reason);
  void tend_sessions();
  void dispatch();
  std::optional<std::string> model_for(const ledger::Request& request) const;
  bool has_credit(const std::string& model) const;
  std::optional<WorkerId> pick_for(const ledger::Request& request, const std::string& model);
  void start_work(ledger::StartWork work);
  void compose(ledger::StartWork work);
  void composed(ledger::StartWork work, Result<std::string> data);
  void send_durably(ledger::StartWork work);
  void send_work(ledger::StartWork work);
  void take_back_unsent(const link::ServerSession& session);
  void stop_work(const ledger::StopWork& work);
  link::ServerSession* session_of(WorkerId worker);

  // From broker.cc.
  bool take_turn();
  bool leave(Task& task);
  void absorb();  // what the last command proposed: to the batch and the gate
  // What readers see of a record, once it is durable (publish.cc).
  void publish(v1::Record& record, LogIndex index);
  void publish_events(v1::Appended& appended, LogIndex index);
  void publish_end(const v1::Settled& settled, LogIndex index);
  void publish_gone(const std::string& request, LogIndex index);
  void when_durable(Effect effect) { gate_.add(ledger_->index(), std::move(effect)); }
  void flush();
  void tick();
  void on_failure(const Error& error);
  void update_health();

  // From housekeeping.cc.
  void keep_house();
  void checkpoint_if_due(const std::vector<journal::SegmentInfo>& segments);
  void trim(const std::vector<journal::SegmentInfo>& segments);
  void remove_below(LogIndex below);
  void carry_below(LogIndex below);
  // What was read of the request to carry it over.
  struct Load;
  void carry_loaded(const Load& load, LogIndex below);
  void cancel_orphans();

  TimeMs now_ms() const { return deps_.clock.wall_ms(); }
  TimeMs steady_ms() const { return deps_.clock.steady_us() / 1000; }

  const Config config_;
  Deps deps_;
  Metrics metrics_;
  Mailbox<Task> inbox_;

  std::mutex turn_mutex_;    // held through a turn; guards all that follows but for the last lines
  bool ended_ = false;       // the last turn was taken
  std::vector<Task> tasks_;  // of this turn

  journal::Journal* journal_ = nullptr;
  link::ServerTransport* transport_ = nullptr;
  std::unique_ptr<ledger::Ledger> ledger_;
  dispatch::Dispatcher dispatcher_;
  stream::Hub hub_;
  cache::ExactIndex cache_;
  Gate gate_;

  ledger::Proposal proposal_;       // of the command that runs
  std::vector<std::string> batch_;  // records of this turn, not yet handed to the journal
  LogIndex absorbed_;               // the last record put into a batch

  struct Known {
    v1::ModelInfo info;
    std::uint32_t workers = 0;
    TimeMs since_ms = 0;
  };
  std::map<link::ConnectionId, link::ServerSession> sessions_;
  std::unordered_map<WorkerId, link::ConnectionId> connections_;
  std::map<std::string, Known> models_;
  std::uint64_t next_worker_ = 1;

  std::unordered_set<const stream::Reader*> loading_;  // readers that wait for a replay
  std::map<RequestId, TimeMs> orphans_;                // steady deadline for a reader to come

  TimeMs next_house_ms_ = 0;
  TimeMs tended_ms_ = 0;  // when sessions were last tended
  bool checkpointing_ = false;
  bool trimming_ = false;
  bool carrying_ = false;
  LogIndex checkpoint_;
  std::uint64_t checkpoint_bytes_ = 0;  // of its state
  bool storage_full_ = false;

  std::atomic<bool> draining_ = false;
  std::atomic<bool> stopping_ = false;
  mutable std::mutex health_mutex_;
  Health health_;         // under health_mutex_
  bool drained_ = false;  // under health_mutex_
  mutable std::condition_variable drained_changed_;
};

}  // namespace waystation::broker
