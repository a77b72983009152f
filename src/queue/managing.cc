// Looking after queues: lists, settings, dead letters.
#include <utility>

#include "queue/station.h"
#include "queue/turn.h"

namespace waystation::queue {

Result<std::vector<QueueInfo>> Station::list(const std::string& tenant) {
  std::lock_guard lock(mutex_);
  return ledger_.list(tenant);
}

Result<QueueInfo> Station::info(const std::string& tenant, const std::string& name) {
  std::lock_guard lock(mutex_);
  const auto queue = ledger_.find(tenant, name);
  if (!queue) return queue.error();
  return ledger_.info(*queue);
}

void Station::configure(const std::string& tenant, const std::string& name,
                        std::move_only_function<Status(Settings&)> change, Done<QueueInfo> done) {
  Turn turn(*this);
  if (failure_) return refuse<QueueInfo>(turn, std::move(done), *failure_);
  const auto known = ledger_.find(tenant, name);
  Settings settings = known ? ledger_.info(*known).settings : Settings{};
  if (const Status good = change(settings); !good) {
    return refuse<QueueInfo>(turn, std::move(done), good.error());
  }
  const auto queue = ledger_.open(tenant, name, now_ms(), turn.records);
  if (!queue) return refuse<QueueInfo>(turn, std::move(done), queue.error());
  ledger_.configure(*queue, settings, now_ms(), turn.records);
  turn.changed.push_back(*queue);
  answer<QueueInfo>(turn, std::move(done), ledger_.info(*queue));
}

void Station::remove(const std::string& tenant, const std::string& name, Done<void> done) {
  Turn turn(*this);
  const auto queue = find<void>(turn, tenant, name, done);
  if (!queue) return;
  ledger_.remove(*queue, now_ms(), turn.records);
  drop_members(turn, [&](const Member& member) { return member.queue == *queue; },
               {Code::kNotFound, "the queue '" + name + "' was deleted", "name"});
  lines_.erase(*queue);
  answer<void>(turn, std::move(done), {});
}

void Station::dead_letters(const std::string& tenant, const std::string& name, MessageId after,
                           std::size_t count_max, Done<std::vector<DeadMessage>> done) {
  Turn turn(*this);
  const auto queue = find<std::vector<DeadMessage>>(turn, tenant, name, done);
  if (!queue) return;
  auto entries =
      std::make_shared<std::vector<DeadEntry>>(ledger_.dead_letters(*queue, after, count_max));
  // Their payloads are read once everything they depend on is on disk.
  answer<void>(turn,
               [this, entries, done = std::move(done)](Result<void> known) mutable {
                 if (!known) return done(known.error());
                 deps_.background.run(
                     [this, entries, shared = std::make_shared<decltype(done)>(std::move(done))] {
                       std::vector<DeadMessage> letters;
                       for (DeadEntry& entry : *entries) {
                         DeadMessage& letter = letters.emplace_back();
                         auto payload = read_payload(*journal_, entry.record);
                         if (payload) {
                           letter.payload = std::string((*payload)->message(entry.at));
                         } else {
                           letter.payload = payload.error();
                         }
                         letter.entry = std::move(entry);
                       }
                       (*shared)(std::move(letters));
                     });
               },
               {});
}

void Station::revive(const std::string& tenant, const std::string& name,
                     const std::vector<MessageId>& ids, Done<std::uint64_t> done) {
  Turn turn(*this);
  const auto queue = find<std::uint64_t>(turn, tenant, name, done);
  if (!queue) return;
  auto count = ledger_.revive(*queue, ids, now_ms(), turn.records);
  answer<std::uint64_t>(turn, std::move(done), std::move(count));
}

void Station::discard(const std::string& tenant, const std::string& name,
                      const std::vector<MessageId>& ids, Done<std::uint64_t> done) {
  Turn turn(*this);
  const auto queue = find<std::uint64_t>(turn, tenant, name, done);
  if (!queue) return;
  auto count = ledger_.discard(*queue, ids, now_ms(), turn.records);
  if (count && *count > 0) turn.changed.push_back(*queue);  // lanes may go on
  answer<std::uint64_t>(turn, std::move(done), std::move(count));
}

}  // namespace waystation::queue
