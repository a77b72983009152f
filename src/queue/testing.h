// A ledger with a log in memory, for tests: what is durable and when the server dies is the test's
// to say.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "queue/ledger.h"

namespace waystation::queue {

class TestLedger {
 public:
  explicit TestLedger(Limits limits = {}) : limits_(limits) { start(0); }

  Ledger& operator*() { return *ledger_; }
  Ledger* operator->() { return ledger_.get(); }

  // Hands in what commands proposed.
  Proposal& out() { return log_; }
  LogIndex last() const { return {log_.size()}; }
  LogIndex durable() const { return durable_; }
  // All so far, or up to `index`.
  std::vector<QueueId> sync() { return sync({log_.size()}); }
  std::vector<QueueId> sync(LogIndex index) {
    std::vector<QueueId> changed;
    if (index > durable_) durable_ = index;
    ledger_->make_visible(durable_, changed);
    return changed;
  }
  // The server dies, and what isn't durable is lost. The next one reads the log from the newest
  // checkpoint on.
  void crash() {
    log_.resize(durable_.value);
    start(checkpoint_index_);
  }
  void checkpoint() {
    CHECK(durable_ == last());
    checkpoint_ = ledger_->snapshot();
    checkpoint_index_ = log_.size();
  }
  // The state of a ledger that has seen nothing but the log.
  std::string replayed() const {
    Ledger other(limits_);
    for (std::size_t i = 0; i < log_.size(); ++i) CHECK(other.apply(log_[i], {i + 1}));
    return other.snapshot();
  }

  // Payloads as a test names them.
  Result<Receipt> publish(const std::string& queue, const std::vector<std::string>& messages,
                          std::vector<MessageOptions> options = {}, const std::string& key = {}) {
    std::vector<std::string_view> views(messages.begin(), messages.end());
    auto payload = Payload::of(views);
    if (!payload) return payload.error();
    Publication publication{*payload, std::move(options), key,
                            key.empty() ? "" : std::string((*payload)->bytes())};
    return ledger_->publish(tenant, queue, std::move(publication), now, log_);
  }
  QueueId id(const std::string& queue) { return ledger_->find(tenant, queue).value(); }
  // Reads what it needs from the log, when the first one isn't in memory.
  Taken take(const std::string& queue, std::uint64_t messages = 1'000, ConsumerId consumer = {}) {
    const auto take = [&] {
      return ledger_->take(id(queue), {messages, 1u << 30}, consumer, lease_ms, now);
    };
    Taken taken = take();
    if (taken.lease != 0 || !taken.cold) return taken;
    for (const Cold& cold : ledger_->cold(id(queue), 1u << 30)) {
      Record record = decode(log_.at(cold.record.value - 1)).value();
      auto* published = std::get_if<Published>(&record.body);
      ledger_->warm(
          id(queue), cold.first,
          published != nullptr ? published->payload : std::get<Carried>(record.body).payload);
    }
    return take();
  }
  LeaseKey key(const std::string& queue, const Taken& taken) { return {id(queue), taken.lease}; }
  Status ack(const std::string& queue, const Taken& taken, const Ranges& ranges = {}) {
    return ledger_->ack(key(queue, taken), ranges, now, log_);
  }
  Status nack(const std::string& queue, const Taken& taken, const Ranges& ranges = {},
              TimeMs delay_ms = 0) {
    return ledger_->nack(key(queue, taken), ranges, delay_ms, true, "nack", now, log_);
  }
  std::vector<QueueId> tick() {
    std::vector<QueueId> changed;
    ledger_->tick(now, log_, changed);
    return changed;
  }
  // "1:a 2:b", a star for each attempt before.
  static std::string text(const Taken& taken) {
    std::string all;
    for (const Piece& piece : taken.pieces) {
      for (std::uint32_t i = 0; i < piece.count; ++i) {
        if (!all.empty()) all += " ";
        all += std::to_string(piece.first + i) + ":";
        all += piece.payload->message(piece.at + i);
        all += std::string(piece.attempt - 1, '*');
      }
    }
    return all;
  }

  std::string tenant = "t";
  TimeMs now = 1'000'000;
  TimeMs lease_ms = 1'000;

 private:
  void start(std::size_t from) {
    ledger_ = std::make_unique<Ledger>(limits_);
    if (from > 0) CHECK(ledger_->restore(checkpoint_, {from}));
    for (std::size_t i = from; i < log_.size(); ++i) CHECK(ledger_->apply(log_[i], {i + 1}));
    ledger_->begin(now, log_);
    sync();
    tick();
  }

  const Limits limits_;
  Proposal log_;
  LogIndex durable_;
  std::string checkpoint_;
  std::size_t checkpoint_index_ = 0;
  std::unique_ptr<Ledger> ledger_;
};

}  // namespace waystation::queue
