// Random operations and crashes against a model that knows only what it was told. The seed is
// printed; WAYSTATION_SEED sets it, WAYSTATION_SEEDS how many from there on.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "queue/testing.h"

namespace waystation::queue {
namespace {

constexpr std::uint32_t kAttempts = 3;
constexpr std::uint64_t kRoom = 40;  // messages of the queue
constexpr TimeMs kKeyTtlMs = 5'000;

class Model {
 public:
  explicit Model(std::uint64_t seed)
      : random_(seed),
        blocks_(pick(2) == 0),
        ledger_({.queue_messages_max = kRoom, .key_ttl_ms = kKeyTtlMs}) {
    const QueueId id = ledger_->open("t", "q", ledger_.now, ledger_.out()).value();
    ledger_->configure(id, {.attempts_max = kAttempts, .dead_blocks = blocks_}, ledger_.now,
                       ledger_.out());
    ledger_.sync();
    EXPECT_FALSE(ledger_->find("u", "q")) << "it is another tenant's";
  }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) step();
    finish();
  }

 private:
  struct Message {
    std::string content;
    std::string lane = {};
    LogIndex published = {};
    TimeMs start_ms = 0;  // not before
    bool expires = false;
    LogIndex since = {};      // what made it deliverable: its publication, return, or revival
    TimeMs delayed_ms = 0;    // not before, as who gave it back said
    LogIndex settled = {};    // {}: not; by an ack, a discard, or its deadline
    LogIndex died = {};       // {}: not dead
    bool ever_died = false;   // and so lost its turn, unless that blocks
    bool terminated = false;  // by a consumer, perhaps before a crash that undid it
    std::vector<LogIndex> failures = {};  // attempts that count
  };
  struct Held {
    Taken taken;
    std::set<MessageId> ids;
    ConsumerId consumer;
  };
  struct Bound {
    std::vector<std::string> contents;
    std::vector<MessageOptions> options;
    MessageId first = 0;
    LogIndex record;
    TimeMs time_ms = 0;
  };

  std::uint64_t pick(std::uint64_t below) { return random_() % below; }
  template <typename All>
  auto any_of(All& all) {
    return std::next(all.begin(), static_cast<std::ptrdiff_t>(pick(all.size())));
  }

  void step() {
    switch (pick(14)) {
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
      case 11:
        extend();
        break;
      case 12:
        use_what_is_not_theirs();
        break;
      default:
        if (pick(15) == 0) crash();
        if (pick(6) == 0) go_away();
        if (pick(8) == 0) be_somebody_else();
        repeat();
    }
  }

  std::uint64_t unsettled(bool expiring_too) const {
    std::uint64_t count = 0;
    for (const auto& [id, message] : messages_) {
      count += message.settled.value == 0 && (expiring_too || !message.expires) ? 1 : 0;
    }
    return count;
  }
  bool binds(const Bound& bound) const { return bound.time_ms + kKeyTtlMs > ledger_.now; }
  // One that is new, or binds no more.
  std::string free_key() {
    if (!keys_.empty() && pick(2) == 0) {
      const auto& [key, bound] = *any_of(keys_);
      if (!binds(bound)) return key;
    }
    return std::to_string(++last_key_);
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
    const std::string key = pick(3) == 0 ? free_key() : "";
    const auto receipt = ledger_.publish("q", contents, options, key);
    if (!receipt) {
      ASSERT_EQ(receipt.error().code, Code::kQueueFull);
      ASSERT_GT(unsettled(true) + contents.size(), kRoom) << "there is room";
      return;
    }
    ASSERT_FALSE(receipt->duplicate);
    for (std::size_t i = 0; i < contents.size(); ++i) {
      Message message{.content = contents[i], .published = ledger_.last(), .since = ledger_.last()};
      if (!options.empty()) {
        message.lane = options[i].lane;
        message.start_ms = options[i].not_before_ms;
        message.expires = options[i].deadline_ms != 0;
      }
      ASSERT_TRUE(messages_.emplace(receipt->first + i, message).second) << "a number twice";
    }
    ASSERT_LE(unsettled(false), kRoom) << "more than the queue has room for";
    if (key.empty()) return;
    keys_[key] = {contents, options, receipt->first, ledger_.last(), ledger_.now};
    repeat_of(key);
  }

  // A key that binds gives what it gave, whatever became of that.
  void repeat() {
    if (keys_.empty()) return;
    const auto& [key, bound] = *any_of(keys_);
    if (binds(bound)) repeat_of(key);
  }
  void repeat_of(const std::string& key) {
    Bound other = keys_.at(key);
    const auto again = ledger_.publish("q", other.contents, other.options, key);
    ASSERT_TRUE(again && again->duplicate && again->first == other.first)
        << "the key " << key << " doesn't bind";
    other.contents[0] += "x";
    const auto mismatch = ledger_.publish("q", other.contents, other.options, key);
    ASSERT_TRUE(!mismatch && mismatch.error().code == Code::kIdempotencyMismatch)
        << "the key " << key << " was used for something else";
  }

  void take() {
    const ConsumerId consumer{pick(3)};  // 0: nobody's
    Held held{ledger_.take("q", 1 + pick(5), consumer), {}, consumer};
    if (held.taken.lease == 0) return;
    ASSERT_EQ(held.taken.until_ms, ledger_.now + ledger_.lease_ms);
    for (const Piece& piece : held.taken.pieces) {
      for (std::uint32_t i = 0; i < piece.count; ++i) {
        const MessageId id = piece.first + i;
        check_delivery(id, std::string(piece.payload->message(piece.at + i)), piece.attempt);
        held.ids.insert(id);
      }
    }
    held_.emplace(held.taken.lease, std::move(held));
  }

  void check_delivery(MessageId id, const std::string& content, std::uint32_t attempt) {
    ASSERT_TRUE(messages_.contains(id)) << id << " was never published";
    const Message& message = messages_.at(id);
    ASSERT_EQ(content, message.content);
    ASSERT_LE(message.since, ledger_.durable()) << id << " is given before that is durable";
    ASSERT_EQ(message.settled.value, 0u) << id << " was settled";
    ASSERT_EQ(message.died.value, 0u) << id << " is dead";
    ASSERT_LE(std::max(message.start_ms, message.delayed_ms), ledger_.now)
        << id << " is given before its time";
    ASSERT_LE(attempt, kAttempts) << id << " is given once more than it may be";
    ASSERT_EQ(attempt, message.failures.size() + 1) << id << " has another count of attempts";
    ASSERT_TRUE(out_.insert(id).second) << id << " is given to two consumers";
    if (message.lane.empty()) return;
    ASSERT_TRUE(lanes_.insert(message.lane).second) << "two of lane " << message.lane;
    for (const auto& [earlier, other] : messages_) {
      if (earlier >= id || (message.ever_died && !blocks_)) break;
      ASSERT_TRUE(other.lane != message.lane || other.settled.value != 0 ||
                  (other.ever_died && !blocks_) || other.expires)
          << id << " goes before " << earlier;
    }
  }

  // No longer with its consumer.
  void back(MessageId id) {
    out_.erase(id);
    lanes_.erase(messages_.at(id).lane);
  }
  // The same, and what the log has said of it since `before` is that it came back, or died.
  void came_back(MessageId id, LogIndex before, bool counts, TimeMs delayed_ms = 0) {
    back(id);
    Message& message = messages_.at(id);
    message.since = {};
    for (std::uint64_t at = before.value; at < ledger_.last().value; ++at) {
      const Record record = decode(ledger_.out()[at]).value();
      const auto* returned = std::get_if<Returned>(&record.body);
      const auto* died = std::get_if<Died>(&record.body);
      if (returned == nullptr && died == nullptr) continue;
      for (const Range& range : returned != nullptr ? returned->ranges : died->ranges) {
        if (range.first <= id && id < range.end()) message.since = {at + 1};
      }
    }
    ASSERT_NE(message.since.value, 0u) << "no record says what became of " << id;
    message.delayed_ms = delayed_ms;
    if (counts) message.failures.push_back(message.since);
  }

  // 0: ack, 1: nack, 2: terminate; all of a lease or one message of it.
  void settle(int how) {
    if (held_.empty()) return;
    const auto at = any_of(held_);
    Held& held = at->second;
    std::set<MessageId> ids = held.ids;
    Ranges ranges;
    if (pick(2) == 0) {
      const MessageId one = *any_of(ids);
      ids = {one};
      ranges = {{one, 1}};
    }
    const LeaseKey key = ledger_.key("q", held.taken);
    const bool counts = pick(4) > 0;
    const TimeMs delay_ms = pick(2) == 0 ? 0 : static_cast<TimeMs>(pick(300));
    const LogIndex before = ledger_.last();
    Status done;
    if (how == 0) done = ledger_->ack(key, ranges, ledger_.now, ledger_.out());
    if (how == 1) {
      done = ledger_->nack(key, ranges, delay_ms, counts, "n", ledger_.now, ledger_.out());
    }
    if (how == 2) done = ledger_->terminate(key, ranges, "t", ledger_.now, ledger_.out());
    ASSERT_TRUE(done) << done.error().message;
    for (const MessageId id : ids) {
      if (how == 0) {
        back(id);
        messages_.at(id).settled = ledger_.last();
      } else {
        messages_.at(id).terminated |= how == 2;
        came_back(id, before, how == 2 || counts, delay_ms > 0 ? ledger_.now + delay_ms : 0);
      }
      held.ids.erase(id);
    }
    note_dead();
    // Twice never counts.
    if (!ranges.empty() || held.ids.empty()) {
      const Status again = ledger_->ack(key, {{*ids.begin(), 1}}, ledger_.now, ledger_.out());
      ASSERT_TRUE(!again && again.error().code == Code::kGone)
          << "the lease " << key.lease << " settles what it doesn't hold";
    }
    if (held.ids.empty()) {
      over_.push_back(at->first);
      held_.erase(at);
    }
  }

  void extend() {
    if (held_.empty()) return;
    Held& held = any_of(held_)->second;
    const TimeMs more_ms = 1 + static_cast<TimeMs>(pick(3'000));
    const auto until = ledger_->extend(ledger_.key("q", held.taken), more_ms, ledger_.now);
    ASSERT_TRUE(until) << until.error().message;
    ASSERT_EQ(*until, ledger_.now + more_ms);
    held.taken.until_ms = *until;
  }

  // Nothing can be done with a lease that has ended, also before a restart, or with another's.
  void use_what_is_not_theirs() {
    if (!over_.empty()) refused(ledger_.id("q"), *any_of(over_), {});
    if (held_.empty()) return;
    const auto& [lease, held] = *any_of(held_);
    for (const MessageId id : out_) {
      if (!held.ids.contains(id)) return refused(ledger_.id("q"), lease, {{id, 1}});
    }
  }
  void refused(QueueId queue, std::uint64_t lease, const Ranges& ranges) {
    const LeaseKey key{queue, lease};
    const LogIndex before = ledger_.last();
    std::vector<Status> all = {ledger_->ack(key, ranges, ledger_.now, ledger_.out()),
                               ledger_->nack(key, ranges, 0, true, "n", ledger_.now, ledger_.out()),
                               ledger_->terminate(key, ranges, "t", ledger_.now, ledger_.out())};
    if (ranges.empty()) {
      const auto extended = ledger_->extend(key, 1'000, ledger_.now);
      all.push_back(extended ? Status() : extended.error());
    }
    for (const Status& done : all) {
      ASSERT_TRUE(!done && done.error().code == Code::kGone)
          << "the lease " << lease << " settles what it doesn't hold";
    }
    ASSERT_EQ(ledger_.last(), before) << "what was refused has left a record";
  }

  void go_away() {
    const ConsumerId consumer{1 + pick(2)};
    const bool counts = pick(2) == 0;
    const LogIndex before = ledger_.last();
    ledger_->end_consumer(consumer, counts, ledger_.now, ledger_.out());
    ASSERT_EQ(ledger_->held(consumer), 0u);
    for (auto at = held_.begin(); at != held_.end();) {
      at = at->second.consumer == consumer ? ended(at, before, counts) : std::next(at);
    }
    note_dead();
  }
  std::map<std::uint64_t, Held>::iterator ended(std::map<std::uint64_t, Held>::iterator at,
                                                LogIndex before, bool counts) {
    for (const MessageId id : at->second.ids) came_back(id, before, counts);
    over_.push_back(at->first);
    return held_.erase(at);
  }

  void publish_as_somebody_else(const std::string& key) {
    ledger_.tenant = "u";
    const auto receipt = ledger_.publish("q", {"u's"}, {}, key);
    ledger_.tenant = "t";
    ASSERT_TRUE(receipt && !receipt->duplicate);
  }
  // Another tenant, with a queue of the same name and the same keys.
  void be_somebody_else() {
    const std::string key = std::to_string(last_key_);
    publish_as_somebody_else(their_keys_.insert(key).second ? key : "");
    ledger_.sync();
    ledger_.tenant = "u";
    const Taken taken = ledger_.take("q");
    ASSERT_GT(taken.messages, 0u);
    for (const Piece& piece : taken.pieces) {
      for (std::uint32_t i = 0; i < piece.count; ++i) {
        ASSERT_EQ(piece.payload->message(piece.at + i), "u's") << "another tenant's";
      }
    }
    ASSERT_EQ(ledger_->list("u").size(), 1u);
    const QueueId theirs = ledger_.id("q");
    ledger_.tenant = "t";
    ASSERT_NE(theirs, ledger_.id("q"));
    refused(ledger_.id("q"), taken.lease, {});
    if (!held_.empty()) refused(theirs, any_of(held_)->first, {});
    ASSERT_TRUE(ledger_->ack({theirs, taken.lease}, {}, ledger_.now, ledger_.out()));
  }

  void tick() {
    std::vector<std::uint64_t> over;
    for (const auto& [lease, held] : held_) {
      if (held.taken.until_ms <= ledger_.now) over.push_back(lease);
    }
    const LogIndex before = ledger_.last();
    ledger_.tick();
    for (const std::uint64_t lease : over) {
      refused(ledger_.id("q"), lease, {});
      ended(held_.find(lease), before, true);
    }
    note_dead();
  }

  // The ledger decides who dies; that it stays dead is checked by us.
  void note_dead() {
    for (const DeadEntry& entry : ledger_->dead_letters(ledger_.id("q"), 0, 100'000)) {
      Message& message = messages_.at(entry.id);
      ASSERT_EQ(message.settled.value, 0u);
      ASSERT_TRUE(message.terminated || message.failures.size() >= kAttempts)
          << entry.id << " is dead before its last attempt";
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
      if (revives) {
        revived(messages_.at(id));
      } else {
        messages_.at(id).died = {};
        messages_.at(id).settled = ledger_.last();
      }
    }
    ledger_.sync();
  }
  static void revived(Message& message) {  // durably
    message.died = {};
    message.since = message.published;
    message.delayed_ms = 0;
    message.failures.clear();
  }

  void crash() {
    // Keys are forgotten by the clock, so the log must have come to the present.
    publish_as_somebody_else("");
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
      std::erase_if(message.failures, [&](LogIndex failure) { return failure > durable; });
      message.died = {};
      message.since = message.published;
      message.delayed_ms = 0;
      ++at;
    }
    std::erase_if(keys_, [&](const auto& each) { return each.second.record > durable; });
    out_.clear();
    lanes_.clear();
    for (const auto& [lease, held] : held_) over_.push_back(lease);
    held_.clear();
    ledger_.crash();
    use_what_is_not_theirs();
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
        for (auto& [id, message] : messages_) {
          if (message.died.value != 0) revived(message);
        }
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
    be_somebody_else();
    EXPECT_EQ(ledger_->totals().messages, 0u);
    EXPECT_EQ(ledger_->totals().bytes, 0u);
    EXPECT_EQ(ledger_->totals().leased, 0u);
    EXPECT_EQ(ledger_->totals().memory_bytes, 0u);
    EXPECT_EQ(ledger_->snapshot(), ledger_.replayed());
  }

  std::mt19937_64 random_;
  const bool blocks_;  // a dead letter its lane
  TestLedger ledger_;
  std::map<MessageId, Message> messages_;
  int last_key_ = 0;
  std::map<std::string, Bound> keys_;
  std::set<std::string> their_keys_;
  std::map<std::uint64_t, Held> held_;
  std::vector<std::uint64_t> over_;  // leases that have ended
  std::set<MessageId> out_;          // with consumers
  std::set<std::string> lanes_;      // that have one out
};

TEST(QueueModel, RandomOperationsAndCrashes) {
  const char* given = std::getenv("WAYSTATION_SEED");
  const std::uint64_t first =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  const char* many = std::getenv("WAYSTATION_SEEDS");
  const int runs = many != nullptr ? std::atoi(many) : given != nullptr ? 1 : 200;
  for (int i = 0; i < runs && !HasFailure(); ++i) {
    const std::uint64_t seed = first + static_cast<std::uint64_t>(i);
    SCOPED_TRACE("WAYSTATION_SEED=" + std::to_string(seed));
    Model(seed).run(600);
    if (HasFailure()) std::cout << "seed: WAYSTATION_SEED=" << seed << "\n";
  }
}

}  // namespace
}  // namespace waystation::queue
