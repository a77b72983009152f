// Random operations and crashes against a model that knows only what it was told. The seed is
// printed; WAYSTATION_SEED sets it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <set>

#include "queue/testing.h"

namespace waystation::queue {
namespace {

class Model {
 public:
  explicit Model(std::uint64_t seed) : random_(seed) {
    const QueueId id = ledger_->open("t", "q", ledger_.now, ledger_.out()).value();
    ledger_->configure(id, {.attempts_max = 3, .dead_blocks = pick(2) == 0}, ledger_.now,
                       ledger_.out());
    ledger_.sync();
  }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) step();
    finish();
  }

 private:
  struct Message {
    std::string content, lane;
    LogIndex published;
    LogIndex settled;  // {}: not; by an ack, a discard, or its deadline
    LogIndex died;     // {}: not dead
    bool expires = false;
    bool ever_died = false;  // and so lost its turn
  };
  struct Held {
    Taken taken;
    std::set<MessageId> ids;
  };

  std::uint64_t pick(std::uint64_t below) { return random_() % below; }

  void step() {
    switch (pick(12)) {
      case 0:
      case 1:
      case 2:
        publish();
        break;
      case 3:
      case 4:
        take();
        break;
      case 5:
      case 6:
        settle(0);
        break;
      case 7:
        settle(1);
        break;
      case 8:
        settle(2);
        break;
      case 9:
        ledger_.now += static_cast<TimeMs>(pick(400));
        tick();
        break;
      case 10: {
        const std::uint64_t behind = ledger_.last().value - ledger_.durable().value;
        ledger_.sync({ledger_.durable().value + pick(behind + 1)});
        if (pick(20) == 0) revive();
        break;
      }
      default:
        if (pick(15) == 0) crash();
    }
  }

  void publish() {
    std::vector<std::string> contents(1 + pick(4));
    std::vector<MessageOptions> options(pick(3) == 0 ? 0 : contents.size());
    for (MessageOptions& each : options) {
      if (pick(2) == 0) each.lane = std::string(1, static_cast<char>('a' + pick(3)));
      each.priority = static_cast<Priority>(pick(3));
      if (pick(5) == 0) each.not_before_ms = ledger_.now + static_cast<TimeMs>(pick(500));
      if (pick(8) == 0) each.deadline_ms = ledger_.now + 1 + static_cast<TimeMs>(pick(2000));
    }
    for (std::string& each : contents) each = std::to_string(pick(1'000'000));
    const std::string key = pick(3) == 0 ? std::to_string(++keys_) : "";
    const auto receipt = ledger_.publish("q", contents, options, key);
    ASSERT_TRUE(receipt) << receipt.error().message;
    ASSERT_FALSE(receipt->duplicate);
    for (std::size_t i = 0; i < contents.size(); ++i) {
      Message message{
          contents[i], options.empty() ? "" : options[i].lane,         ledger_.last(), {},
          {},          !options.empty() && options[i].deadline_ms != 0};
      ASSERT_TRUE(messages_.emplace(receipt->first + i, message).second) << "a number twice";
    }
    if (key.empty()) return;
    const auto again = ledger_.publish("q", contents, options, key);
    ASSERT_TRUE(again && again->duplicate && again->first == receipt->first);
    contents[0] += "x";
    ASSERT_EQ(ledger_.publish("q", contents, options, key).error().code,
              Code::kIdempotencyMismatch);
  }

  void take() {
    Held held{ledger_.take("q", 1 + pick(5)), {}};
    if (held.taken.lease == 0) return;
    for (const Piece& piece : held.taken.pieces) {
      for (std::uint32_t i = 0; i < piece.count; ++i) {
        const MessageId id = piece.first + i;
        check_delivery(id, std::string(piece.payload->message(piece.at + i)));
        held.ids.insert(id);
      }
    }
    held_.emplace(held.taken.lease, std::move(held));
  }

  void check_delivery(MessageId id, const std::string& content) {
    ASSERT_TRUE(messages_.contains(id)) << id;
    const Message& message = messages_.at(id);
    ASSERT_EQ(content, message.content);
    ASSERT_LE(message.published, ledger_.durable()) << "given before it was durable";
    ASSERT_EQ(message.settled.value, 0u) << id << " was settled";
    ASSERT_EQ(message.died.value, 0u) << id << " is dead";
    ASSERT_TRUE(out_.insert(id).second) << id << " is given to two consumers";
    if (message.lane.empty()) return;
    ASSERT_TRUE(lanes_.insert(message.lane).second) << "two of lane " << message.lane;
    for (const auto& [earlier, other] : messages_) {
      if (earlier >= id || message.ever_died) break;
      ASSERT_TRUE(other.lane != message.lane || other.settled.value != 0 || other.ever_died ||
                  other.expires)
          << id << " goes before " << earlier;
    }
  }

  // No longer with its consumer.
  void back(MessageId id) {
    out_.erase(id);
    lanes_.erase(messages_.at(id).lane);
  }

  // 0: ack, 1: nack, 2: terminate; all of a lease or one message of it.
  void settle(int how) {
    if (held_.empty()) return;
    const auto at = std::next(held_.begin(), static_cast<std::ptrdiff_t>(pick(held_.size())));
    Held& held = at->second;
    std::set<MessageId> ids = held.ids;
    Ranges ranges;
    if (pick(2) == 0) {
      const MessageId one = *std::next(ids.begin(), static_cast<std::ptrdiff_t>(pick(ids.size())));
      ids = {one};
      ranges = {{one, 1}};
    }
    const LeaseKey key = ledger_.key("q", held.taken);
    Status done;
    if (how == 0) done = ledger_->ack(key, ranges, ledger_.now, ledger_.out());
    if (how == 1) {
      done = ledger_->nack(key, ranges, static_cast<TimeMs>(pick(300)), true, "n", ledger_.now,
                           ledger_.out());
    }
    if (how == 2) done = ledger_->terminate(key, ranges, "t", ledger_.now, ledger_.out());
    ASSERT_TRUE(done) << done.error().message;
    for (const MessageId id : ids) {
      back(id);
      if (how == 0) messages_.at(id).settled = ledger_.last();
      held.ids.erase(id);
    }
    note_dead();
    // Twice never counts.
    if (!ranges.empty() || held.ids.empty()) {
      ASSERT_EQ(ledger_->ack(key, {{*ids.begin(), 1}}, ledger_.now, ledger_.out()).error().code,
                Code::kGone);
    }
    if (held.ids.empty()) held_.erase(at);
  }

  void tick() {
    std::vector<std::uint64_t> over;
    for (const auto& [lease, held] : held_) {
      if (held.taken.until_ms <= ledger_.now) over.push_back(lease);
    }
    ledger_.tick();
    for (const std::uint64_t lease : over) {
      Held& held = held_.at(lease);
      ASSERT_EQ(ledger_.ack("q", held.taken).error().code, Code::kGone);
      for (const MessageId id : held.ids) back(id);
      held_.erase(lease);
    }
    note_dead();
  }

  // The ledger decides who dies; that it stays dead is checked by us.
  void note_dead() {
    for (const DeadEntry& entry : ledger_->dead_letters(ledger_.id("q"), 0, 100'000)) {
      Message& message = messages_.at(entry.id);
      ASSERT_EQ(message.settled.value, 0u);
      if (message.died.value == 0) message.died = ledger_.last();
      message.ever_died = true;
    }
  }

  void revive() {
    const bool all = pick(2) == 0;
    ledger_.sync();
    const auto letters = ledger_->dead_letters(ledger_.id("q"), 0, all ? 100'000 : 1);
    std::vector<MessageId> ids;
    for (const DeadEntry& entry : letters) ids.push_back(entry.id);
    if (ids.empty()) return;
    const bool revives = pick(3) > 0;
    ASSERT_TRUE(revives ? ledger_->revive(ledger_.id("q"), ids, ledger_.now, ledger_.out())
                        : ledger_->discard(ledger_.id("q"), ids, ledger_.now, ledger_.out()));
    for (const MessageId id : ids) {
      messages_.at(id).died = {};
      if (!revives) messages_.at(id).settled = ledger_.last();
    }
    ledger_.sync();
  }

  void crash() {
    ASSERT_EQ(ledger_->snapshot(), ledger_.replayed()) << "the log says something else";
    if (pick(3) == 0) {
      ledger_.sync();
      ledger_.checkpoint();
    }
    const LogIndex durable = ledger_.durable();
    for (auto at = messages_.begin(); at != messages_.end();) {
      Message& message = at->second;
      if (message.published > durable) {
        at = messages_.erase(at);
        continue;
      }
      if (message.settled > durable) message.settled = {};
      message.died = {};
      ++at;
    }
    out_.clear();
    lanes_.clear();
    std::vector<Held> before;
    for (auto& [lease, held] : held_) before.push_back(std::move(held));
    held_.clear();
    ledger_.crash();
    for (const Held& held : before) {
      ASSERT_EQ(ledger_.ack("q", held.taken).error().code, Code::kGone);
    }
    note_dead();
  }

  // In the end each message that was taken is delivered or dead, and then settled, once.
  void finish() {
    if (testing::Test::HasFailure()) return;
    for (int round = 0; round < 10'000; ++round) {
      ledger_.now += 5'000;
      tick();
      ledger_.sync();
      tick();
      ledger_.sync();
      if (ledger_->revive(ledger_.id("q"), {}, ledger_.now, ledger_.out()).value() > 0) {
        for (auto& [id, message] : messages_) message.died = {};
        ledger_.sync();
      }
      const std::size_t before = held_.size();
      take();
      if (held_.size() == before && held_.empty()) break;
      while (!held_.empty() && !testing::Test::HasFailure()) {
        settle(0);
      }
      if (testing::Test::HasFailure()) return;
    }
    for (const auto& [id, message] : messages_) {
      EXPECT_TRUE(message.settled.value != 0 || message.expires) << id << " was never delivered";
    }
    EXPECT_EQ(ledger_->totals().messages, 0u);
    EXPECT_EQ(ledger_->totals().bytes, 0u);
    EXPECT_EQ(ledger_->totals().leased, 0u);
    EXPECT_EQ(ledger_->totals().memory_bytes, 0u);
    EXPECT_EQ(ledger_->snapshot(), ledger_.replayed());
  }

  std::mt19937_64 random_;
  int keys_ = 0;
  TestLedger ledger_;
  std::map<MessageId, Message> messages_;
  std::map<std::uint64_t, Held> held_;
  std::set<MessageId> out_;      // with consumers
  std::set<std::string> lanes_;  // that have one out
};

TEST(QueueModel, RandomOperationsAndCrashes) {
  const char* given = std::getenv("WAYSTATION_SEED");
  const std::uint64_t first =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  const int runs = given != nullptr ? 1 : 200;
  for (int i = 0; i < runs && !HasFailure(); ++i) {
    const std::uint64_t seed = first + static_cast<std::uint64_t>(i);
    SCOPED_TRACE("WAYSTATION_SEED=" + std::to_string(seed));
    Model(seed).run(600);
    if (HasFailure()) std::cout << "seed: WAYSTATION_SEED=" << seed << "\n";
  }
}

}  // namespace
}  // namespace waystation::queue
