// Life of the station: recovery, its thread, the gate, failure; checkpoints and old segments.
#include "queue/station.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/thread_name.h"
#include "queue/turn.h"

namespace waystation::queue {
namespace {

// How exactly leases, delays and deadlines are kept.
constexpr std::chrono::milliseconds kTick{10};

// What is carried over after one checkpoint, and how much of it is in memory at once.
constexpr std::uint64_t kCarryBytesMax = 64u << 20;
constexpr std::uint64_t kCarryStepBytes = 8u << 20;

}  // namespace

Station::Metrics::Metrics(Meter& meter)
    : published(meter.counter("waystation_queue_published_total", "Messages taken into queues")),
      delivered(meter.counter("waystation_queue_delivered_total", "Messages given to consumers")),
      settled(meter.counter("waystation_queue_settle_calls_total",
                            "Calls that acknowledged, returned, extended or ended a lease")),
      gone(meter.counter("waystation_queue_gone_total",
                         "Calls refused because their lease had ended")),
      refused(meter.counter("waystation_queue_refused_total",
                            "Publications refused: full, or a key used for something else")),
      messages(meter.gauge("waystation_queue_messages", "Messages in all queues, dead ones too")),
      leased(meter.gauge("waystation_queue_leased", "Messages that consumers have")),
      dead(meter.gauge("waystation_queue_dead", "Dead letters")),
      bytes(meter.gauge("waystation_queue_bytes", "Bytes of messages in all queues")),
      memory_bytes(meter.gauge("waystation_queue_memory_bytes", "Bytes of them in memory")) {}

Station::Station(Options options, Deps deps)
    : options_(options), deps_(deps), metrics_(deps.meter), ledger_(options.limits) {}

Station::~Station() {
  stop();
}

journal::Callbacks Station::journal_callbacks() {
  return {
      [this](LogIndex durable) {
        {
          std::lock_guard lock(wake_mutex_);
          reported_ = durable;
        }
        wake_.notify_all();
      },
      [this](Error error) {
        {
          std::lock_guard lock(wake_mutex_);
          journal_error_ = std::move(error);
        }
        wake_.notify_all();
      },
  };
}

Status Station::recover() {
  auto checkpoint = journal_->newest_checkpoint();
  if (!checkpoint) return checkpoint.error();
  LogIndex from{1};
  if (*checkpoint) {
    if (auto restored = ledger_.restore((*checkpoint)->state, (*checkpoint)->index); !restored) {
      return restored;
    }
    from.value = (*checkpoint)->index.value + 1;
  }
  return journal_->scan(from, {}, [this](LogIndex index, std::string_view record) {
    return ledger_.apply(record, index);
  });
}

Status Station::start(journal::Journal& journal) {
  journal_ = &journal;
  const std::int64_t began_us = deps_.clock.steady_us();
  if (const Status recovered = recover(); !recovered) return recovered;
  CHECK(journal.next_index().value == ledger_.index().value + 1);
  Proposal records;
  ledger_.begin(now_ms(), records);
  journal.append(std::move(records), now_ms());
  {
    std::unique_lock lock(wake_mutex_);
    wake_.wait(lock, [this] { return reported_ >= ledger_.index() || journal_error_; });
    if (journal_error_) return *journal_error_;
  }
  durable_ = ledger_.index();
  const Totals totals = ledger_.totals();
  WS_LOG(info, "queues recovered epoch={} messages={} dead={} took_ms={}", ledger_.epoch(),
         totals.messages, totals.dead, (deps_.clock.steady_us() - began_us) / 1000);
  thread_ = std::thread([this] {
    name_this_thread("queues");
    run();
  });
  return {};
}

void Station::stop() {
  {
    std::lock_guard lock(wake_mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (!thread_.joinable()) return;
  thread_.join();
  Turn turn(*this);
  fail(turn, {Code::kUnavailable, "the server is shutting down; ask again in a moment", {}, 1000});
}

Status Station::accepting() const {
  std::lock_guard lock(mutex_);
  if (failure_) return *failure_;
  return {};
}

void Station::run() {
  LogIndex seen = durable_;
  while (true) {
    std::optional<Error> error;
    {
      std::unique_lock lock(wake_mutex_);
      wake_.wait_for(lock, kTick,
                     [&] { return stopping_ || journal_error_.has_value() || reported_ > seen; });
      if (stopping_) return;
      seen = reported_;
      error = std::exchange(journal_error_, std::nullopt);
    }
    Turn turn(*this);
    open_gate(turn, seen);
    if (error) {
      WS_LOG(error, "the queues' journal failed, nothing more is taken error=\"{}\"",
             error->message);
      fail(turn, {Code::kUnavailable,
                  "the server can't write the queues' journal (" + error->message +
                      "); what was accepted is kept, restart the server to go on",
                  {},
                  5000});
    }
    if (!failure_) work(turn);
  }
}

void Station::open_gate(Turn& turn, LogIndex durable) {
  if (durable <= durable_ || failure_) return;
  durable_ = durable;
  while (!gate_.empty() && gate_.front().seen <= durable) {
    turn.ready.push_back(std::move(gate_.front()));
    gate_.pop_front();
  }
  ledger_.make_visible(durable, turn.changed);
}

// Nothing becomes durable any more, or nobody is there to be told.
void Station::fail(Turn& turn, const Error& error) {
  if (failure_) return;
  failure_ = error;
  turn.lost = error;
  turn.changed.clear();
  for (Waiting& each : gate_) turn.ready.push_back(std::move(each));
  gate_.clear();
  drop_members(
      turn, [](const Member&) { return true; }, error);
}

// What is due by the clock.
void Station::work(Turn& turn) {
  ledger_.tick(now_ms(), turn.records, turn.changed);
  end_waits(turn);
  for (auto& [queue, line] : lines_) {
    if (line.retry_ms == 0 || line.retry_ms > now_ms()) continue;
    line.retry_ms = 0;
    line.loading = false;
    turn.changed.push_back(queue);
  }
  keep_house();
  show_metrics();
}

void Station::show_metrics() {
  const Totals totals = ledger_.totals();
  metrics_.messages.set(static_cast<double>(totals.messages));
  metrics_.leased.set(static_cast<double>(totals.leased));
  metrics_.dead.set(static_cast<double>(totals.dead));
  metrics_.bytes.set(static_cast<double>(totals.bytes));
  metrics_.memory_bytes.set(static_cast<double>(totals.memory_bytes));
}

// ---- Checkpoints and old segments ---------------------------------------------------------------

void Station::keep_house() {
  if (!checkpointing_ && since_checkpoint_ >= options_.checkpoint_bytes) {
    checkpointing_ = true;
    since_checkpoint_ = 0;
    // What was needed then: what was settled since may not be settled after a crash.
    LogIndex needed = ledger_.oldest_needed();
    if (needed.value == 0) needed.value = ledger_.index().value + 1;
    snapshot_ = Snapshot{ledger_.index(), ledger_.snapshot(), needed};
  }
  if (!snapshot_ || snapshot_->index > durable_) return;
  deps_.background.run_aside(
      [this, snapshot = std::make_shared<Snapshot>(*std::exchange(snapshot_, std::nullopt))] {
        write_checkpoint(std::move(*snapshot));
        carry();
        std::lock_guard lock(mutex_);
        checkpointing_ = false;
      });
}

void Station::write_checkpoint(Snapshot snapshot) {
  Status done = journal_->write_checkpoint({snapshot.index, std::move(snapshot.state)});
  if (done) done = journal_->remove_below(snapshot.needed);
  if (!done) WS_LOG(warn, "no checkpoint of the queues error=\"{}\"", done.error().message);
}

// A few old messages must not keep whole segments: once more is on disk than twice what is live,
// the oldest are written again at the tail, and the next checkpoints let their segments go.
void Station::carry() {
  const auto segments = journal_->segments();
  std::uint64_t stored = 0;
  for (const auto& segment : segments) stored += segment.bytes;
  if (segments.size() < 2) return;
  for (std::uint64_t carried = 0; carried < kCarryBytesMax;) {
    std::vector<Cold> old;
    {
      std::lock_guard lock(mutex_);
      const std::uint64_t wanted = 2 * ledger_.totals().bytes + 4 * options_.segment_bytes;
      if (failure_ || stored <= wanted) return;
      old = ledger_.stored_below(segments[1].first, kCarryStepBytes);
    }
    if (old.empty()) return;
    std::vector<std::pair<Cold, PayloadPtr>> read;
    for (const Cold& each : old) {
      auto payload = read_payload(*journal_, each.record);
      if (!payload) {
        WS_LOG(warn, "old messages can't be read error=\"{}\"", payload.error().message);
        return;
      }
      read.emplace_back(each, std::move(*payload));
      carried += each.bytes;
    }
    Turn turn(*this);
    if (failure_) return;
    for (auto& [cold, payload] : read) {
      ledger_.carry(cold, std::move(payload), now_ms(), turn.records);
    }
  }
}

}  // namespace waystation::queue
