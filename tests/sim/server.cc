#include "sim/server.h"

#include <chrono>
#include <deque>
#include <utility>

#include "base/check.h"

namespace waystation::sim {
namespace {

constexpr Micros kGrace = 500 * kMs;  // for what runs, after stop()

}  // namespace

// The journal's thread: a group after the other, each after a while. While one is written, which
// takes its time on the disk, all others go on.
class Server::JournalThread final : public Executor {
 public:
  JournalThread(Scheduler& scheduler, Disk& disk, Dice dice, Life life, Server& server)
      : scheduler_(scheduler), disk_(disk), dice_(dice), life_(life), server_(server) {}

  void run(Task task) override {
    tasks_.push_back(std::move(task));
    if (tasks_.size() == 1) plan();
  }

 private:
  void plan() {
    scheduler_.after(dice_.between(1, 200), life_, [this] {
      disk_.set_writing(true);
      tasks_.front()();
      disk_.set_writing(false);
      tasks_.pop_front();
      server_.poke();
      if (!tasks_.empty()) plan();
    });
  }

  Scheduler& scheduler_;
  Disk& disk_;
  Dice dice_;
  const Life life_;
  Server& server_;
  std::deque<Task> tasks_;  // the front one may be running
};

class Server::Background final : public Executor {
 public:
  Background(Scheduler& scheduler, Dice dice, Life life, Server& server)
      : scheduler_(scheduler), dice_(dice), life_(life), server_(server) {}

  void run(Task task) override {
    scheduler_.after(dice_.between(10, 20 * kMs), life_, [this, task = std::move(task)]() mutable {
      task();
      server_.poke();
    });
  }

 private:
  Scheduler& scheduler_;
  Dice dice_;
  const Life life_;
  Server& server_;
};

// In place of `memory`: the prompt is ready after a while.
class Server::TurnComposer final : public broker::Composer {
 public:
  TurnComposer(Scheduler& scheduler, Dice dice, Life life, Server& server)
      : scheduler_(scheduler), dice_(dice), life_(life), server_(server) {}

  void compose(v1::Envelope envelope, broker::Callback<std::string> done) override {
    scheduler_.after(dice_.between(10, 30 * kMs), life_,
                     [this, data = envelope.data(), done = std::move(done)] {
                       done(data);
                       server_.poke();
                     });
  }

 private:
  Scheduler& scheduler_;
  Dice dice_;
  const Life life_;
  Server& server_;
};

// Lets the checker see each record on its way to the real journal.
class Server::RecordedJournal final : public journal::Journal {
 public:
  RecordedJournal(std::unique_ptr<journal::FileJournal> journal, Checker& checker)
      : journal_(std::move(journal)), checker_(checker) {}

  LogIndex append(std::vector<std::string> records, TimeMs now_ms) override {
    checker_.on_append(records);
    return journal_->append(std::move(records), now_ms);
  }
  LogIndex next_index() const override { return journal_->next_index(); }
  std::uint64_t backlog_bytes() const override { return journal_->backlog_bytes(); }
  LogIndex durable_index() const override { return journal_->durable_index(); }
  Result<std::string> read(LogIndex index) const override { return journal_->read(index); }
  Status scan(LogIndex from, LogIndex to, const journal::Visitor& visit) const override {
    return journal_->scan(from, to, visit);
  }
  Status write_checkpoint(const journal::Checkpoint& checkpoint) override {
    return journal_->write_checkpoint(checkpoint);
  }
  Result<std::optional<journal::Checkpoint>> newest_checkpoint() const override {
    return journal_->newest_checkpoint();
  }
  std::vector<journal::SegmentInfo> segments() const override { return journal_->segments(); }
  Status remove_below(LogIndex index) override { return journal_->remove_below(index); }

 private:
  const std::unique_ptr<journal::FileJournal> journal_;
  Checker& checker_;
};

Server::Server(Scheduler& scheduler, History& history, Checker& checker, Disk& disk,
               Network& network, SimClock& clock, const Plan& plan, Dice dice,
               std::function<void()> on_stopped)
    : scheduler_(scheduler),
      history_(history),
      checker_(checker),
      disk_(disk),
      network_(network),
      clock_(clock),
      plan_(plan),
      dice_(dice),
      on_stopped_(std::move(on_stopped)) {}

Server::~Server() {
  bury(true);
}

bool Server::start() {
  CHECK(broker_ == nullptr);
  life_ = scheduler_.begin_life();
  failed_ = stopping_ = turn_soon_ = false;
  posted_ = 0;
  stalled_until_ = 0;
  background_ = std::make_unique<Background>(scheduler_, dice_.fork(), life_, *this);
  composer_ = std::make_unique<TurnComposer>(scheduler_, dice_.fork(), life_, *this);
  journal_thread_ = std::make_unique<JournalThread>(scheduler_, disk_, dice_.fork(), life_, *this);
  broker_ = std::make_unique<broker::Broker>(plan_.config,
                                             broker::Deps{.clock = clock_,
                                                          .background = *background_,
                                                          .meter = *meter_,
                                                          .random = [this] { return dice_.next(); },
                                                          .composer = composer_.get()});
  auto journal = open_journal();
  if (!journal) {
    history_.note("server: can't start: " + journal.error().message);
    if (journal.error().code != Code::kIo) {
      history_.violated("I9", "a disk that nobody damaged is refused: " + journal.error().message);
    }
    return false;
  }
  disk_.set_observed(true);
  checker_.on_recovered(**journal);
  disk_.set_observed(false);
  journal_ = std::make_unique<RecordedJournal>(std::move(*journal), checker_);
  if (const Status started = broker_->start(*journal_, network_); !started) {
    history_.note("server: can't start: " + started.error().message);
    return false;
  }
  history_.note("server: up, records to " + std::to_string(checker_.durable()));
  up_ = true;
  network_.server_up(*this);
  poke();
  return true;
}

Result<std::unique_ptr<journal::FileJournal>> Server::open_journal() {
  journal::FileJournal::Options options;
  options.dir = kJournalFolder;
  options.segment_bytes_max = plan_.segment_bytes;
  options.compress_above_bytes = 512;
  options.callbacks = broker_->journal_callbacks();
  options.callbacks.on_durable = [this, tell = options.callbacks.on_durable](LogIndex index) {
    checker_.on_durable(index.value);
    tell(index);
  };
  options.callbacks.on_failure = [this, tell = options.callbacks.on_failure](Error error) {
    history_.note("server: the journal has failed: " + error.message);
    failed_ = true;
    checker_.on_journal_failure();
    tell(std::move(error));
  };
  options.file_system = &disk_.files();
  options.meter = meter_.get();
  options.new_journal_id = dice_.next() | 1;
  options.executor = journal_thread_.get();
  return journal::FileJournal::open(std::move(options));
}

void Server::bury(bool silently) {
  if (broker_ == nullptr) return;
  up_ = false;
  network_.server_down(silently);
  scheduler_.end_life(life_);
  journal_.reset();  // after a stop it writes its closing mark; a dead one can't
  broker_.reset();
  journal_thread_.reset();
  composer_.reset();
  background_.reset();
}

void Server::poke() {
  ++posted_;
  if (!up_ || std::exchange(turn_soon_, true)) return;
  scheduler_.after(dice_.between(1, 300), life_, [this] { turn(); });
}

void Server::turn() {
  if (scheduler_.now() < stalled_until_) {
    scheduler_.at(stalled_until_, life_, [this] { turn(); });
    return;
  }
  turn_soon_ = false;
  posted_ = 0;
  const bool goes_on = broker_->turn(std::chrono::milliseconds(0));
  if (!goes_on) {
    up_ = false;
    on_stopped_();
    return;
  }
  if (turn_soon_) return;
  // Nobody may have anything for it for a while; it wakes up by itself.
  scheduler_.after(20 * kMs, life_, [this, planned = ++turns_planned_] {
    if (planned == turns_planned_ && !std::exchange(turn_soon_, true)) turn();
  });
}

void Server::stop() {
  stopping_ = true;
  broker_->drain();
  poke();
  wait_drained(scheduler_.now() + kGrace);
}

void Server::wait_drained(Micros deadline) {
  scheduler_.after(20 * kMs, life_, [this, deadline] {
    if (!broker_->drained() && scheduler_.now() < deadline) return wait_drained(deadline);
    broker_->stop();
    poke();
  });
}

void Server::stall(Micros duration) {
  stalled_until_ = scheduler_.now() + duration;
}

}  // namespace waystation::sim
