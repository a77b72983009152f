// Life and loop of the broker: turns, batches, the gate, failure of the journal.
#include "broker/broker.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "broker/recovery.h"

namespace waystation::broker {
namespace {

// A batch is handed to the journal when it is this large, at the latest at the end of the turn.
constexpr std::size_t kBatchRecordsMax = 4096;

// Turns that a thread takes in a row when it helps.
constexpr int kHelpTurns = 4;

// The broker whose calls this thread gathers, see Api::gather().
thread_local const Broker* gathers_for = nullptr;

}  // namespace

Broker::Broker(Config config, Deps deps)
    : config_(std::move(config)),
      deps_(std::move(deps)),
      metrics_(deps_.meter),
      inbox_(config_.inbox_max),
      hub_(config_.hub_bytes_max),
      cache_(config_.cache_keys_max) {
  health_.reason = "starting";
}

Broker::~Broker() = default;

journal::Callbacks Broker::journal_callbacks() {
  return {
      [this](LogIndex durable) {
        gather();
        Task task = [this, durable] { gate_.open_to(durable); };
        if (!leave(task)) inbox_.send_reserved(std::move(task));
        help();
      },
      [this](Error error) {
        inbox_.send_reserved([this, error = std::move(error)] { on_failure(error); });
      },
  };
}

Status Broker::start(journal::Journal& journal, link::ServerTransport& transport) {
  // This is a turn too: once it has flushed, the journal's thread may want to take the next one.
  std::lock_guard lock(turn_mutex_);
  journal_ = &journal;
  transport_ = &transport;
  const std::int64_t began_us = deps_.clock.steady_us();
  auto recovered = recover(journal, config_.limits);
  if (!recovered) return recovered.error();
  ledger_ = std::move(recovered->ledger);
  checkpoint_ = recovered->checkpoint;
  checkpoint_bytes_ = recovered->checkpoint_bytes;
  absorbed_ = ledger_->index();
  CHECK(journal.next_index().value == absorbed_.value + 1);
  gate_.open_to(absorbed_);
  const TimeMs orphaned_at = steady_ms() + config_.orphan_wait_ms;
  for (const RequestId id : ledger_->live()) {
    const ledger::Request& request = *ledger_->find(id);
    hub_.open(id, request.event_count);
    if (!request.detached) orphans_.emplace(id, orphaned_at);
  }
  for (const ledger::Request* request : ledger_->cacheable()) {
    cache_.put(request->cache_key, request->id);
  }
  const ledger::Counts counts = ledger_->counts();
  ledger_->start_epoch(config_.version, now_ms(), proposal_);
  absorb();
  flush();
  WS_LOG(info, "recovered epoch={} live={} ended={} checkpoint={} replayed={} took_ms={}",
         ledger_->epoch().value, counts.queued + counts.running, counts.retained, checkpoint_.value,
         recovered->replayed, (deps_.clock.steady_us() - began_us) / 1000);
  update_health();
  return {};
}

bool Broker::turn(std::chrono::milliseconds wait) {
  inbox_.wait(wait);
  std::lock_guard lock(turn_mutex_);
  return take_turn();
}

void Broker::gather() {
  if (config_.callers_help) gathers_for = this;
}

// A few turns and no more: a thread that helps has work of its own. The broker's own thread does
// the rest. Who finds a turn under way leaves it what was brought: its taker looks again after it.
void Broker::help() {
  if (std::exchange(gathers_for, nullptr) != this) return;
  for (int turns = 0; turns < kHelpTurns && inbox_.size() > 0; ++turns) {
    std::unique_lock lock(turn_mutex_, std::try_to_lock);
    if (!lock) return;
    take_turn();
  }
  inbox_.wake();
}

// True when this thread gathers, and there was room.
bool Broker::leave(Task& task) {
  return gathers_for == this && inbox_.try_leave(std::move(task));
}

bool Broker::take_turn() {
  if (ended_) return false;
  tasks_.clear();
  inbox_.receive_now(tasks_);
  for (Task& task : tasks_) {
    task();
    if (batch_.size() >= kBatchRecordsMax) flush();
  }
  tick();
  dispatch();
  flush();
  if (!stopping_) return true;
  const Error ends{
      Code::kUnavailable, "the server is shutting down; ask again in a moment", {}, 1000};
  gate_.fail(ends);
  hub_.interrupt_all(ends);
  inbox_.close();
  ended_ = true;
  return false;
}

void Broker::drain() {
  draining_ = true;
  inbox_.send_reserved([this] { update_health(); });
}

bool Broker::drained() const {
  std::lock_guard lock(health_mutex_);
  return drained_;
}

bool Broker::wait_drained(std::chrono::milliseconds limit) const {
  std::unique_lock lock(health_mutex_);
  return drained_changed_.wait_for(lock, limit, [this] { return drained_; });
}

void Broker::stop() {
  inbox_.send_reserved([this] { stopping_ = true; });
}

// Takes the records and effects of the command that just ran. The ledger's state is ahead of the
// journal from here on; what readers and callers see waits at the gate.
void Broker::absorb() {
  for (v1::Record& record : proposal_.records) {
    absorbed_ = LogIndex{absorbed_.value + 1};
    batch_.push_back(record.SerializeAsString());
    publish(record, absorbed_);
  }
  CHECK(absorbed_ == ledger_->index());
  proposal_.records.clear();
  auto effects = std::exchange(proposal_.effects, {});
  for (ledger::Effect& effect : effects) {
    if (auto* start = std::get_if<ledger::StartWork>(&effect)) {
      start_work(std::move(*start));
    } else {
      stop_work(std::get<ledger::StopWork>(effect));
    }
  }
}

void Broker::flush() {
  if (batch_.empty() || gate_.failed()) {
    batch_.clear();
    return;
  }
  const LogIndex first = journal_->append(std::exchange(batch_, {}), now_ms());
  CHECK(first.value <= absorbed_.value);
}

void Broker::tick() {
  const TimeMs now = now_ms();
  if (!gate_.failed()) {
    if (const TimeMs expiry = ledger_->next_expiry_ms(); expiry != 0 && expiry <= now) {
      ledger_->expire(now, proposal_);
      absorb();
    }
    tend_sessions();
    cancel_orphans();
  }
  keep_house();
}

// The journal can't be written (I8): the working state is ahead of what is durable and is thrown
// away. Readers of what is durable go on; a restart recovers.
void Broker::on_failure(const Error& error) {
  WS_LOG(error, "journal failed, nothing more is accepted error=\"{}\"", error.message);
  const Error lost{Code::kUnavailable,
                   "the server can't write its journal (" + error.message +
                       "); what was accepted is kept, restart the server to go on",
                   {},
                   5000};
  gate_.fail(lost);
  hub_.interrupt_all(lost);
  batch_.clear();
  std::vector<link::ConnectionId> connections;
  for (const auto& [connection, session] : sessions_) connections.push_back(connection);
  for (const link::ConnectionId connection : connections) {
    transport_->close(connection);
    if (const auto at = sessions_.find(connection); at != sessions_.end()) {
      if (at->second.joined()) dispatcher_.remove(at->second.worker());
      connections_.erase(at->second.worker());
      sessions_.erase(at);
    }
  }
  auto durable = recover(*journal_, config_.limits, journal_->durable_index());
  if (durable) {
    ledger_ = std::move(durable->ledger);
  } else {
    WS_LOG(error, "the durable state can't be read back error=\"{}\"", durable.error().message);
    ledger_ = std::make_unique<ledger::Ledger>(config_.limits);
  }
  absorbed_ = ledger_->index();
  update_health();
}

Health Broker::health() const {
  std::lock_guard lock(health_mutex_);
  return health_;
}

void Broker::update_health() {
  Health health;
  const Status accepts = accepting();
  health.accepting = accepts.has_value();
  if (!accepts) {
    health.reason = accepts.error().message;
  } else if (dispatcher_.slots() == 0) {
    health.reason = "no worker has joined yet";
  } else {
    health.ready = true;
  }
  std::lock_guard lock(health_mutex_);
  health_ = std::move(health);
}

}  // namespace waystation::broker
