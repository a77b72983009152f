// Those who publish and consume: subscriptions, turns among them, leases, reading back what isn't
// in memory.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "queue/station.h"
#include "queue/turn.h"

namespace waystation::queue {
namespace {

constexpr int kBacklogRetryMs = 100;
constexpr TimeMs kReadRetryMs = 1000;
constexpr std::uint64_t kReadAheadBytes = 4u << 20;

// One delivery for a caller who waits for it.
class OneShot final : public Consumer {
 public:
  explicit OneShot(Done<Taken> done) : done_(std::move(done)) {}
  void deliver(Taken taken) override { taken_ = std::move(taken); }
  bool has_room() const override { return true; }
  void kick() override { done_(std::move(taken_)); }
  void on_closed(const Error& why) override { done_(why); }

 private:
  Done<Taken> done_;
  Taken taken_;
};

}  // namespace

void Station::publish(const std::string& tenant, const std::string& name, Publication publication,
                      Done<Receipt> done, std::shared_ptr<Sink> sink) {
  // The copy for the journal is made without the lock.
  publication.record = encode_published(publication.key, publication.fingerprint,
                                        publication.options, *publication.payload);
  Turn turn(*this);
  if (failure_) return refuse<Receipt>(turn, std::move(done), *failure_);
  if (journal_->backlog_bytes() > options_.backlog_bytes_max) {
    metrics_.refused.add();
    return refuse<Receipt>(turn, std::move(done),
                           {Code::kQueueFull,
                            "more is published than the disk can take; try again in a moment",
                            {},
                            kBacklogRetryMs});
  }
  const auto count = static_cast<double>(publication.payload->count());
  auto receipt = ledger_.publish(tenant, name, std::move(publication), now_ms(), turn.records);
  if (receipt) {
    if (!receipt->duplicate) metrics_.published.add(count);
  } else {
    metrics_.refused.add();
    if (receipt.error().code != Code::kIdempotencyMismatch) {
      return refuse<Receipt>(turn, std::move(done), receipt.error());
    }
  }
  answer<Receipt>(turn, std::move(done), std::move(receipt), std::move(sink));
}

ConsumerId Station::join(QueueId queue, Member member) {
  const ConsumerId id{next_consumer_++};
  members_.emplace(id, std::move(member));
  lines_[queue].members.push_back(id);
  return id;
}

void Station::leave(ConsumerId consumer) {
  const auto member = members_.find(consumer);
  if (member == members_.end()) return;
  const auto line = lines_.find(member->second.queue);
  std::erase(line->second.members, consumer);
  if (line->second.members.empty() && !line->second.loading) lines_.erase(line);
  members_.erase(member);
}

Result<Subscribed> Station::subscribe(const std::string& tenant, const std::string& name,
                                      const Subscription& how, std::shared_ptr<Consumer> consumer) {
  Turn turn(*this);
  if (failure_) return *failure_;
  const auto queue = ledger_.open(tenant, name, now_ms(), turn.records);
  if (!queue) return queue.error();
  const ConsumerId id = join(*queue, {*queue, how, std::move(consumer), 0});
  turn.changed.push_back(*queue);
  return Subscribed{id, *queue};
}

void Station::resume(ConsumerId consumer) {
  Turn turn(*this);
  const auto member = members_.find(consumer);
  if (member != members_.end()) turn.changed.push_back(member->second.queue);
}

void Station::unsubscribe(ConsumerId consumer, bool counts) {
  Turn turn(*this);
  leave(consumer);
  if (!failure_) ledger_.end_consumer(consumer, counts, now_ms(), turn.records);
}

void Station::lease(const std::string& tenant, const std::string& name, const Subscription& how,
                    TimeMs wait_ms, Done<Taken> done) {
  Turn turn(*this);
  const auto queue = find<Taken>(turn, tenant, name, done);
  if (!queue) return;
  auto consumer = std::make_shared<OneShot>(std::move(done));
  join(*queue, {*queue, how, std::move(consumer), std::max<TimeMs>(now_ms() + wait_ms, 1)});
  turn.changed.push_back(*queue);
}

// Those whose time is over get nothing.
void Station::end_waits(Turn& turn) {
  const TimeMs now = now_ms();
  std::vector<ConsumerId> over;
  for (const auto& [id, member] : members_) {
    if (member.once_until_ms != 0 && member.once_until_ms <= now) over.push_back(id);
  }
  for (const ConsumerId id : over) {
    const auto member = members_.find(id);
    // What the clock has just made ready goes to it first.
    dispatch(turn, member->second.queue);
    if (!members_.contains(id)) continue;
    // What it gets is being read from the disk, unless that failed.
    const Line& line = lines_.at(member->second.queue);
    if (line.loading && line.retry_ms == 0) continue;
    turn.touched.push_back(members_.find(id)->second.consumer);
    leave(id);
  }
}

void Station::drop_members(Turn& turn, const std::function<bool(const Member&)>& which,
                           const Error& why) {
  std::vector<ConsumerId> gone;
  for (const auto& [id, member] : members_) {
    if (which(member)) gone.push_back(id);
  }
  for (const ConsumerId id : gone) {
    turn.closed.emplace_back(members_.find(id)->second.consumer, why);
    leave(id);
  }
}

// Gives what there is to those who want it, by turns.
void Station::dispatch(Turn& turn, QueueId queue) {
  const auto at = lines_.find(queue);
  if (at == lines_.end() || failure_) return;
  Line& line = at->second;
  for (std::size_t idle = 0; idle < line.members.size() && !line.loading;) {
    const ConsumerId id = line.members[line.next++ % line.members.size()];
    Member& member = members_.find(id)->second;
    const bool once = member.once_until_ms != 0;
    const std::uint64_t held = once ? 0 : ledger_.held(id);
    if (held >= member.how.window || !member.consumer->has_room()) {
      ++idle;
      continue;
    }
    const TimeMs lease_ms = member.how.lease_ms > 0 ? member.how.lease_ms : ledger_.lease_ms(queue);
    const std::uint64_t room = std::min(member.how.window - held, member.how.batch_messages_max);
    Taken taken = ledger_.take(queue, {room, member.how.batch_bytes_max}, once ? ConsumerId{} : id,
                               lease_ms, now_ms());
    const bool cold = taken.cold;
    const bool some = taken.lease != 0;
    if (!some && !cold) return;
    if (some) {
      idle = 0;
      metrics_.delivered.add(static_cast<double>(taken.messages));
      member.consumer->deliver(std::move(taken));
      turn.touched.push_back(member.consumer);
    }
    if (cold) {
      line.loading = true;
      load(queue);
    }
    if (once && some) {
      leave(id);
      if (!lines_.contains(queue)) return;
    }
  }
}

Result<PayloadPtr> read_payload(const journal::Journal& journal, LogIndex index) {
  const auto bytes = journal.read(index);
  if (!bytes) return bytes.error();
  auto record = decode(*bytes);
  if (!record) return record.error();
  if (auto* published = std::get_if<Published>(&record->body)) return std::move(published->payload);
  if (auto* carried = std::get_if<Carried>(&record->body)) return std::move(carried->payload);
  return Error{Code::kCorruption, "record " + std::to_string(index.value) + " holds no messages"};
}

// Reads what the next deliveries need; dispatching goes on after that.
void Station::load(QueueId queue) {
  std::vector<Cold> wanted = ledger_.cold(queue, kReadAheadBytes);
  std::erase_if(wanted, [this](const Cold& each) { return each.record > durable_; });
  deps_.background.run([this, queue, wanted = std::move(wanted)] {
    std::vector<PayloadPtr> payloads;
    Status all;
    for (const Cold& each : wanted) {
      auto payload = read_payload(*journal_, each.record);
      if (!payload) {
        all = payload.error();
        break;
      }
      payloads.push_back(std::move(*payload));
    }
    Turn turn(*this);
    for (std::size_t i = 0; i < payloads.size(); ++i) {
      ledger_.warm(queue, wanted[i].first, std::move(payloads[i]));
    }
    const auto line = lines_.find(queue);
    if (line == lines_.end()) return;
    if (all) {
      line->second.loading = false;
      turn.changed.push_back(queue);
      if (line->second.members.empty()) lines_.erase(line);
    } else {
      // It may have been carried over meanwhile: where it is now is asked again then.
      WS_LOG(warn, "messages can't be read queue={} error=\"{}\"", queue.value,
             all.error().message);
      line->second.retry_ms = now_ms() + kReadRetryMs;
    }
  });
}

void Station::settle(QueueId queue, Settle what, Done<TimeMs> done, std::shared_ptr<Sink> sink) {
  Turn turn(*this);
  settle(turn, queue, std::move(what), std::move(done), std::move(sink));
}

void Station::settle(const std::string& tenant, const std::string& name, Settle what,
                     Done<TimeMs> done) {
  Turn turn(*this);
  const auto queue = find<TimeMs>(turn, tenant, name, done);
  if (queue) settle(turn, *queue, std::move(what), std::move(done), nullptr);
}

void Station::settle(Turn& turn, QueueId queue, Settle what, Done<TimeMs> done,
                     std::shared_ptr<Sink> sink) {
  if (failure_) return refuse<TimeMs>(turn, std::move(done), *failure_);
  const LeaseKey key{queue, what.lease};
  Result<TimeMs> result = TimeMs{0};
  const auto take_over = [&result](const Status& status) {
    if (!status) result = status.error();
  };
  switch (what.action) {
    case Action::kAck:
      take_over(ledger_.ack(key, what.ranges, now_ms(), turn.records));
      break;
    case Action::kNack:
      take_over(ledger_.nack(key, what.ranges, what.ms, true, what.reason, now_ms(), turn.records));
      break;
    case Action::kTerminate:
      take_over(ledger_.terminate(key, what.ranges, what.reason, now_ms(), turn.records));
      break;
    case Action::kExtend:
      result = ledger_.extend(key, what.ms, now_ms());
      break;
  }
  (result ? metrics_.settled : metrics_.gone).add();
  if (result) turn.changed.push_back(queue);
  answer<TimeMs>(turn, std::move(done), std::move(result), std::move(sink));
}

}  // namespace waystation::queue
