// What the broker does once a second: gauges, retention, checkpoints, orphans of a restart.
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/dead_letters.h"
#include "broker/recovery.h"
#include "stream/history.h"

namespace waystation::broker {
namespace {

constexpr TimeMs kHousekeepingMs = 1000;
constexpr std::size_t kForgetMax = 1000;  // requests a round
// To write one request's state and read it again costs about as much as to apply so many records.
constexpr std::uint64_t kRecordsPerRequest = 4;
// More than this many protected requests in the oldest segment aren't carried over: rewriting them
// would gain too little.
constexpr std::size_t kCarryMax = 256;

}  // namespace

void Broker::keep_house() {
  const TimeMs now = steady_ms();
  if (draining_ && (gate_.failed() || (ledger_->counts().running == 0 && gate_.empty()))) {
    std::lock_guard lock(health_mutex_);
    drained_ = true;
    drained_changed_.notify_all();
  }
  if (now < next_house_ms_) return;
  next_house_ms_ = now + kHousekeepingMs;
  const ledger::Counts counts = ledger_->counts();
  metrics_.queued.set(static_cast<double>(counts.queued));
  metrics_.running.set(static_cast<double>(counts.running));
  metrics_.retained.set(static_cast<double>(counts.retained));
  metrics_.open_letters.set(static_cast<double>(counts.open_letters));
  metrics_.blocked_lanes.set(static_cast<double>(counts.blocked_lanes));
  metrics_.readers.set(static_cast<double>(hub_.readers()));
  if (!gate_.failed()) {
    ledger_->forget(now_ms(), LogIndex{}, kForgetMax, proposal_);
    absorb();
    const auto segments = journal_->segments();
    checkpoint_if_due(segments);
    trim(segments);
  }
  update_health();
}

// Makes a checkpoint in the background: of the state at the end of the sealed segments that none
// covers yet, or of the durable state when many records are new. It reads the last checkpoint and
// writes all of the state again, so it waits until there is as much new to cover as that was, or the
// journal has to shrink: then all checkpoints together cost no more than reading the journal a few
// times.
void Broker::checkpoint_if_due(const std::vector<journal::SegmentInfo>& segments) {
  if (checkpointing_) return;
  LogIndex sealed;
  std::uint64_t new_bytes = 0;
  std::uint64_t bytes = 0;
  for (const journal::SegmentInfo& segment : segments) {
    bytes += segment.bytes;
    if (!segment.sealed) continue;
    sealed = segment.last;
    if (segment.last > checkpoint_) new_bytes += segment.bytes;
  }
  const bool grown = new_bytes >= checkpoint_bytes_ || bytes > config_.journal_bytes_max;
  LogIndex upto = sealed > checkpoint_ && grown ? sealed : checkpoint_;
  const LogIndex durable = journal_->durable_index();
  const ledger::Counts counts = ledger_->counts();
  const std::uint64_t known = counts.queued + counts.running + counts.retained;
  const std::uint64_t many = std::max(config_.checkpoint_records, kRecordsPerRequest * known);
  if (durable.value >= upto.value + many) upto = durable;
  if (upto == checkpoint_) return;
  checkpointing_ = true;
  deps_.background.run_aside([this, upto] {
    const Result<std::uint64_t> written = write_checkpoint(*journal_, config_.limits, upto);
    inbox_.send_reserved([this, upto, written] {
      checkpointing_ = false;
      if (written) {
        checkpoint_ = upto;
        checkpoint_bytes_ = *written;
      } else {
        WS_LOG(error, "checkpoint failed error=\"{}\"", written.error().message);
      }
    });
  });
}

// Frees the oldest segment when its time or the size limit has come.
void Broker::trim(const std::vector<journal::SegmentInfo>& segments) {
  std::uint64_t bytes = 0;
  for (const journal::SegmentInfo& segment : segments) bytes += segment.bytes;
  storage_full_ = bytes > config_.journal_bytes_max + config_.journal_bytes_max / 4;
  if (trimming_ || carrying_ || segments.empty() || !segments.front().sealed) return;
  const journal::SegmentInfo& oldest = segments.front();
  if (oldest.last > checkpoint_) return;
  const LogIndex below{oldest.last.value + 1};
  const bool too_large = bytes > config_.journal_bytes_max;
  const bool too_old = oldest.last_time_ms + config_.limits.retain_ms < now_ms();
  if (too_large) {
    ledger_->forget(now_ms(), below, kForgetMax, proposal_);
    absorb();
  }
  const LogIndex needed = ledger_->oldest_needed();
  if (needed == LogIndex{} || needed >= below) {
    trimming_ = true;
    // Not before what makes it superfluous is durable: that its requests were forgotten, or where
    // they were carried to.
    when_durable([this, below](const Error* lost) {
      if (lost == nullptr) remove_below(below);
    });
  } else if (too_large || too_old) {
    // One record a request is as small as it gets. When the whole journal is near that, writing the
    // oldest again would only move it, and again in the next round, for as long as keys bind.
    const ledger::Counts counts = ledger_->counts();
    const std::uint64_t records = ledger_->index().value + 1 - oldest.first.value;
    if (records > 2 * (counts.queued + counts.running + counts.retained)) carry_below(below);
  }
}

void Broker::remove_below(LogIndex below) {
  deps_.background.run([this, below] {
    const Status removed = journal_->remove_below(below);
    inbox_.send_reserved([this, removed] {
      trimming_ = false;
      if (!removed) WS_LOG(error, "segment not removed error=\"{}\"", removed.error().message);
    });
  });
}

struct Broker::Load {
  RequestId id;
  Result<std::vector<stream::BlockPtr>> history;
  std::optional<Result<v1::Envelope>> body;  // of an open letter, which may still be requeued
};

// Writes what must be kept of the oldest segment again at the tail, one request after the other.
void Broker::carry_below(LogIndex below) {
  const auto ids = ledger_->stored_below(below, kCarryMax + 1);
  if (ids.empty() || ids.size() > kCarryMax) return;
  const RequestId id = ids.front();
  const ledger::Request& request = *ledger_->find(id);
  std::vector<LogIndex> positions;
  for (const auto& position : request.positions) {
    if (position.index > journal_->durable_index()) return;  // the next round will find it durable
    positions.push_back(position.index);
  }
  if (request.stored_index > journal_->durable_index()) return;
  carrying_ = true;
  deps_.background.run([this, id, below, positions = std::move(positions),
                        is_open = request.open_letter(), stored = request.stored_index] {
    auto load = std::make_shared<Load>(id, stream::load_history(*journal_, id, positions));
    if (is_open) load->body = load_body(*journal_, id, stored);
    inbox_.send_reserved([this, load, below] { carry_loaded(*load, below); });
  });
}

void Broker::carry_loaded(const Load& load, LogIndex below) {
  carrying_ = false;
  const ledger::Request* request = ledger_->find(load.id);
  if (gate_.failed() || request == nullptr) return;
  const bool body_unread = load.body && !*load.body && load.body->error().code != Code::kGone;
  if (!load.history || body_unread) {
    WS_LOG(error, "request not carried over request={} error=\"{}\"", load.id.to_string(),
           load.history ? load.body->error().message : load.history.error().message);
    return;
  }
  std::vector<v1::Event> events;
  for (const auto& block : *load.history) {
    events.insert(events.end(), block->events.begin(), block->events.end());
  }
  // Else it moved on meanwhile: next round.
  const bool is_all = !request->open_letter() || load.body;
  if (is_all && events.size() == request->event_count) {
    std::optional<v1::Envelope> body;
    if (load.body && *load.body) body = **load.body;
    ledger_->carry(load.id, std::move(events), std::move(body), now_ms(), proposal_);
    absorb();
  }
  carry_below(below);
}

// After a restart, plain requests go on and wait for their client to come back; not forever.
void Broker::cancel_orphans() {
  if (orphans_.empty()) return;
  const TimeMs now = steady_ms();
  for (auto at = orphans_.begin(); at != orphans_.end();) {
    if (at->second > now) {
      ++at;
      continue;
    }
    const ledger::Request* request = ledger_->find(at->first);
    if (request != nullptr && request->live() && hub_.readers(at->first) == 0) {
      ledger_->cancel(at->first, "no client came for it", now_ms(), proposal_);
      absorb();
    }
    at = orphans_.erase(at);
  }
}

}  // namespace waystation::broker
