#include "queue/salvage.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <sstream>

#include "journal/checkpoint_store.h"
#include "journal/inspect.h"
#include "journal/test_support.h"
#include "queue/station.h"
#include "queue/testing.h"

namespace waystation::queue {
namespace {

// Of a log, a part of which is lost, what salvage makes.
struct Salvaged {
  Salvage salvage;
  std::vector<std::string> log;

  // `lost`: positions in `records`.
  Salvaged(const std::vector<std::string>& records, const std::set<std::size_t>& lost) {
    EXPECT_TRUE(salvage.begin([](LogIndex) { return false; },
                              [this](std::string record, TimeMs) {
                                log.push_back(std::move(record));
                                return Status();
                              }));
    for (std::size_t i = 0; i < records.size(); ++i) {
      if (lost.contains(i)) {
        salvage.hole(1);
        continue;
      }
      const auto taken = salvage.take(records[i]);
      EXPECT_TRUE(taken && *taken) << i;
    }
    const Status finished = salvage.finish();
    EXPECT_TRUE(finished) << finished.error().message;
  }
  const Queue* queue(const std::string& name) const {
    const auto found = salvage.ledger().find("t", name);
    return found ? &salvage.ledger().queues().at(*found) : nullptr;
  }
  std::string told() const {
    std::ostringstream out;
    salvage.tell(out, {}, {});
    return out.str();
  }
};

bool is_live(const Queue& queue, MessageId id) {
  const Frame* frame = queue.frame_of(id);
  return frame != nullptr && !frame->is_settled(id);
}

class QueueSalvage : public ::testing::Test {
 protected:
  // Gives the position of its record.
  std::size_t publish(const std::string& queue, const std::string& content,
                      const std::string& lane = "") {
    EXPECT_TRUE(ledger_.publish(queue, {content}, {{.lane = lane}}));
    ledger_.sync();
    return ledger_.out().size() - 1;
  }
  std::size_t take_and_ack(const std::string& queue) {
    EXPECT_TRUE(ledger_.ack(queue, ledger_.take(queue, 1)));
    ledger_.sync();
    return ledger_.out().size() - 1;
  }
  std::size_t terminate(const std::string& queue) {
    const Taken taken = ledger_.take(queue, 1);
    EXPECT_TRUE(
        ledger_->terminate(ledger_.key(queue, taken), {}, "no", ledger_.now, ledger_.out()));
    ledger_.sync();
    return ledger_.out().size() - 1;
  }
  Salvaged without(const std::set<std::size_t>& lost) { return {ledger_.out(), lost}; }

  TestLedger ledger_;
};

TEST_F(QueueSalvage, NothingLostChangesNothingButTheEpoch) {
  publish("q", "a", "lane");
  publish("q", "b", "lane");
  take_and_ack("q");
  const Salvaged salvaged = without({});
  EXPECT_EQ(salvaged.log.size(), ledger_.out().size() + 1);
  EXPECT_TRUE(salvaged.salvage.affected().empty());
  EXPECT_EQ(salvaged.salvage.ledger().epoch(), ledger_->epoch() + 1);
  EXPECT_EQ(salvaged.queue("q")->live, 1u);
}

TEST_F(QueueSalvage, AMessageWhoseEndIsLostIsDeliveredAgain) {
  publish("q", "a");
  const std::size_t lost = take_and_ack("q");
  publish("q", "b");
  const Salvaged salvaged = without({lost});
  EXPECT_EQ(salvaged.queue("q")->live, 2u);
  EXPECT_EQ(salvaged.salvage.doubtful(*salvaged.queue("q")), 1u);
  EXPECT_NE(salvaged.told().find("1 messages may be delivered though"), std::string::npos);
}

TEST_F(QueueSalvage, OthersKeepTheirNumbersWhenOneIsLost) {
  publish("q", "a");
  const std::size_t lost = publish("q", "b");
  publish("q", "c");
  const Salvaged salvaged = without({lost});
  const Queue& queue = *salvaged.queue("q");
  EXPECT_TRUE(is_live(queue, 1));
  EXPECT_FALSE(is_live(queue, 2));
  EXPECT_EQ(queue.frame_of(3)->payload->message(0), "c");
  EXPECT_NE(salvaged.told().find("queue 'q' of t: 1 messages are lost: 2\n"), std::string::npos)
      << salvaged.told();
}

TEST_F(QueueSalvage, ALaterMessageOfItsLaneShowsThatAnEndIsLost) {
  publish("q", "a", "lane");
  publish("q", "b", "lane");
  publish("q", "c", "lane");
  const std::size_t lost = take_and_ack("q");
  take_and_ack("q");
  const Salvaged salvaged = without({lost});
  const Queue& queue = *salvaged.queue("q");
  EXPECT_TRUE(queue.dead.contains(1));
  EXPECT_FALSE(is_live(queue, 2));
  EXPECT_TRUE(is_live(queue, 3) && !queue.dead.contains(3));
  EXPECT_NE(salvaged.told().find("1 are dead letters now"), std::string::npos) << salvaged.told();
}

TEST_F(QueueSalvage, WhatIsLostOfADeathIsShownByItsRevival) {
  publish("q", "a", "lane");
  publish("q", "b", "lane");
  const std::size_t lost = terminate("q");
  take_and_ack("q");
  EXPECT_TRUE(ledger_->revive(ledger_.id("q"), {1}, ledger_.now, ledger_.out()));
  const Salvaged salvaged = without({lost});
  const Queue& queue = *salvaged.queue("q");
  EXPECT_TRUE(is_live(queue, 1) && !queue.dead.contains(1));
  EXPECT_TRUE(salvaged.salvage.affected().at(queue.id).turn_over.empty());
}

TEST_F(QueueSalvage, WhatIsLostOfARevivalIsShownByADelivery) {
  publish("q", "a");
  terminate("q");
  EXPECT_TRUE(ledger_->revive(ledger_.id("q"), {1}, ledger_.now, ledger_.out()));
  const std::size_t lost = ledger_.out().size() - 1;
  ledger_.sync();
  EXPECT_TRUE(ledger_.nack("q", ledger_.take("q")));
  const Salvaged salvaged = without({lost});
  EXPECT_FALSE(salvaged.queue("q")->dead.contains(1));
}

TEST_F(QueueSalvage, MessagesOfAQueueThatNobodyKnows) {
  publish("other", "a");
  const std::size_t created = ledger_.out().size();
  publish("q", "b");
  publish("q", "c");
  const Salvaged salvaged = without({created});
  EXPECT_EQ(salvaged.queue("q"), nullptr);
  EXPECT_NE(salvaged.queue("other"), nullptr);
  EXPECT_NE(salvaged.told().find("its creation is lost, and with it 2 messages"), std::string::npos)
      << salvaged.told();
}

TEST_F(QueueSalvage, ANewQueueOfTheNameShowsThatTheOldOneWasDeleted) {
  publish("q", "a");
  const std::size_t deleted = ledger_.out().size();
  ledger_->remove(ledger_.id("q"), ledger_.now, ledger_.out());
  publish("q", "b");
  const Salvaged salvaged = without({deleted});
  ASSERT_NE(salvaged.queue("q"), nullptr);
  EXPECT_EQ(salvaged.queue("q")->frame_of(1)->payload->message(0), "b");
  EXPECT_EQ(salvaged.salvage.ledger().queues().size(), 1u);
}

// ---- Random logs --------------------------------------------------------------------------------

class RandomQueues {
 public:
  explicit RandomQueues(std::uint64_t seed) : random_(seed) {}
  std::uint64_t pick(std::uint64_t below) { return random_() % below; }
  bool one_in(std::uint64_t n) { return pick(n) == 0; }

  void step() {
    const std::string name(1, static_cast<char>('p' + pick(2)));
    switch (pick(10)) {
      case 0:
      case 1:
      case 2:
        publish(name);
        break;
      case 3:
        ledger.now += static_cast<TimeMs>(pick(300));
        ledger.tick();
        break;
      case 4:
        manage(name);
        break;
      default:
        if (ledger->find(ledger.tenant, name)) consume(name);
    }
    if (one_in(2)) ledger.sync();
  }
  TestLedger ledger;

 private:
  void publish(const std::string& name) {
    std::vector<std::string> contents(1 + pick(4));
    std::vector<MessageOptions> options(one_in(3) ? 0 : contents.size());
    for (MessageOptions& each : options) {
      if (one_in(2)) each.lane = std::string(1, static_cast<char>('a' + pick(3)));
      each.priority = static_cast<Priority>(pick(3));
      if (one_in(6)) each.not_before_ms = ledger.now + static_cast<TimeMs>(pick(300));
      if (one_in(9)) each.deadline_ms = ledger.now + 1 + static_cast<TimeMs>(pick(2000));
    }
    for (std::string& each : contents) each = "message " + std::to_string(pick(1'000'000));
    EXPECT_TRUE(ledger.publish(name, contents, options,
                               one_in(4) ? "key " + std::to_string(pick(1'000'000)) : ""));
  }
  void consume(const std::string& name) {
    const Taken taken = ledger.take(name, 1 + pick(5));
    if (taken.lease == 0) return;
    const LeaseKey key = ledger.key(name, taken);
    Status done;
    switch (pick(5)) {
      case 0:
        done = ledger.nack(name, taken, {}, static_cast<TimeMs>(pick(200)));
        break;
      case 1:
        done = ledger->terminate(key, {}, "no", ledger.now, ledger.out());
        break;
      case 2:
        return;  // its lease runs out
      default:
        done = ledger->ack(key, {}, ledger.now, ledger.out());
    }
    EXPECT_TRUE(done) << done.error().message;
  }
  void manage(const std::string& name) {
    const auto queue = ledger->find(ledger.tenant, name);
    if (!queue) return;
    switch (pick(8)) {
      case 0:
        if (one_in(8)) ledger->remove(*queue, ledger.now, ledger.out());
        return;
      case 1:
        ledger->configure(*queue, {.attempts_max = 3, .dead_blocks = one_in(3)}, ledger.now,
                          ledger.out());
        return;
      case 2:
        EXPECT_TRUE(ledger->discard(*queue, {}, ledger.now, ledger.out()));
        return;
      case 3:
        EXPECT_TRUE(ledger->revive(*queue, {}, ledger.now, ledger.out()));
        return;
      default:
        return;
    }
  }
  std::mt19937_64 random_;
};

// What the records that are left say of each message.
struct Book {
  struct Entry {
    std::string content, lane;
    bool settled = false, acked = false, died = false, revived = false;
  };
  std::map<std::pair<QueueId, MessageId>, Entry> messages;
  std::set<QueueId> created, deleted;

  void read(const std::string& bytes) {
    const Record record = decode(bytes).value();
    if (const auto* body = std::get_if<Created>(&record.body)) created.insert(body->queue);
    if (const auto* body = std::get_if<Deleted>(&record.body)) deleted.insert(body->queue);
    if (const auto* body = std::get_if<Published>(&record.body)) {
      for (std::size_t i = 0; i < body->payload->count(); ++i) {
        Entry& entry = messages[{body->queue, body->first + i}];
        entry.content = body->payload->message(i);
        if (!body->options.empty()) {
          entry.lane = body->options[body->options.size() == 1 ? 0 : i].lane;
        }
      }
    }
    if (const auto* body = std::get_if<Settled>(&record.body)) {
      each(body->queue, body->ranges, [&](Entry& entry) {
        entry.settled = true;
        entry.acked = body->outcome == Outcome::kAcked;
      });
    }
    if (const auto* body = std::get_if<Died>(&record.body)) {
      each(body->queue, body->ranges, [](Entry& entry) { entry.died = true; });
    }
    if (const auto* body = std::get_if<Revived>(&record.body)) {
      each(body->queue, body->ranges, [](Entry& entry) { entry.revived = true; });
    }
  }
  template <typename F>
  void each(QueueId queue, const Ranges& ranges, F f) {
    for (const Range& range : ranges) {
      for (MessageId id = range.first; id < range.end(); ++id) {
        const auto at = messages.find({queue, id});
        if (at != messages.end()) f(at->second);
      }
    }
  }
};

std::vector<std::uint64_t> seeds(std::uint64_t count) {
  const char* given = std::getenv("WAYSTATION_SEED");
  std::vector<std::uint64_t> all;
  if (given != nullptr) return {std::strtoull(given, nullptr, 10)};
  for (std::uint64_t seed = 1; seed <= count; ++seed) all.push_back(seed);
  return all;
}

// Whatever is lost: the new log is one that a server can start from; each message that is there is
// there with its content until a record says that it was settled; and no lane goes back to before
// what was delivered.
TEST(QueueSalvageModel, AnyHoles) {
  std::size_t kept = 0, turned = 0;
  for (const std::uint64_t seed : seeds(300)) {
    SCOPED_TRACE("WAYSTATION_SEED=" + std::to_string(seed));
    RandomQueues random(seed);
    for (int i = 0; i < 150; ++i) {
      random.step();
      if (random.one_in(60)) {
        random.ledger.sync();
        random.ledger.crash();
      }
    }
    const std::vector<std::string>& log = random.ledger.out();
    std::set<std::size_t> lost;
    for (std::uint64_t holes = 1 + random.pick(4); holes > 0; --holes) {
      std::size_t at = random.pick(log.size());
      for (std::uint64_t left = 1 + random.pick(6); left > 0; --left) lost.insert(at++);
    }
    Book whole, left;
    for (std::size_t i = 0; i < log.size(); ++i) {
      whole.read(log[i]);
      if (!lost.contains(i)) left.read(log[i]);
    }
    const Salvaged salvaged(log, lost);
    const Ledger& ledger = salvaged.salvage.ledger();
    Ledger follower(Limits{});
    for (std::size_t i = 0; i < salvaged.log.size(); ++i) {
      const Status applied = follower.apply(salvaged.log[i], {i + 1});
      ASSERT_TRUE(applied) << applied.error().message;
    }
    ASSERT_EQ(follower.snapshot(), ledger.snapshot());
    EXPECT_GT(ledger.epoch(), random.ledger->epoch());

    for (const auto& [key, entry] : left.messages) {
      const auto& [queue_id, id] = key;
      const auto queue = ledger.queues().find(queue_id);
      if (queue == ledger.queues().end()) {
        EXPECT_TRUE(whole.deleted.contains(queue_id) || !left.created.contains(queue_id));
        continue;
      }
      if (!left.created.contains(queue_id)) continue;
      ASSERT_EQ(is_live(queue->second, id), !entry.settled) << id << "\n" << salvaged.told();
      if (entry.settled) continue;
      ++kept;
      const Frame& frame = *queue->second.frame_of(id);
      EXPECT_EQ(frame.payload->message(id - frame.first), entry.content);
      const auto affected = salvaged.salvage.affected().find(queue_id);
      const bool turn_over =
          affected != salvaged.salvage.affected().end() && affected->second.turn_over.contains(id);
      turned += turn_over;
      EXPECT_TRUE(!queue->second.dead.contains(id) || entry.died || turn_over) << id;
      if (turn_over) {  // only one about which something is missing
        const auto& truth = whole.messages.at(key);
        EXPECT_TRUE(truth.settled || truth.died) << id;
      }
      if (entry.lane.empty() || queue->second.dead.contains(id)) continue;
      for (auto later = left.messages.upper_bound(key);
           later != left.messages.end() && later->first.first == queue_id; ++later) {
        if (later->second.lane != entry.lane || !later->second.acked) continue;
        EXPECT_TRUE(entry.died || entry.revived || whole.messages.at(later->first).died)
            << id << " would be delivered after " << later->first.second;
      }
    }
    if (::testing::Test::HasFailure()) return;
  }
  if (std::getenv("WAYSTATION_SEED") == nullptr) {
    EXPECT_GT(kept, 3000u);
    EXPECT_GT(turned, 30u);
  }
}

// ---- Folders ------------------------------------------------------------------------------------

class QueueSalvageFolder : public journal::JournalTest {
 protected:
  QueueSalvageFolder() {
    segment_bytes_ = 2048;
    compress_above_ = 1u << 30;
  }
  void write_log(RandomQueues& random) {
    open();
    std::size_t written = 0;
    const auto flush = [&] {
      const auto& log = random.ledger.out();
      if (written == log.size()) return;
      append_durably({log.begin() + static_cast<std::ptrdiff_t>(written), log.end()},
                     random.ledger.now);
      written = log.size();
    };
    for (int i = 0; i < 150; ++i) {
      random.step();
      if (random.one_in(2)) flush();
      if (!random.one_in(70)) continue;
      flush();
      ASSERT_TRUE(journal_->write_checkpoint({random.ledger.last(), random.ledger->snapshot()}));
      if (random.one_in(2)) {
        ASSERT_TRUE(journal_->remove_below(random.ledger->oldest_needed()));
      }
    }
    random.ledger.sync();
    flush();
    kill();
  }
  void damage(RandomQueues& random) {
    std::vector<std::string> files;
    for (const std::string& path : disk_.paths()) {
      if (path.ends_with(".segment") || (random.one_in(4) && path.ends_with(".ckpt"))) {
        files.push_back(path);
      }
    }
    if (files.empty()) return;
    damage_file(files[random.pick(files.size())], [&](std::uint64_t n) { return random.pick(n); });
  }
  Status run(bool dry_run = false) {
    out_.str("");
    return salvage(disk_,
                   {.dir = journal::kDir,
                    .to = "/new",
                    .dry_run = dry_run,
                    .new_journal_id = 99,
                    .segment_bytes = 4096},
                   out_);
  }
  std::ostringstream out_;
};

// Every payload of what goes on can be read where the new journal says, as it was published.
TEST_F(QueueSalvageFolder, AnyDamage) {
  std::size_t messages = 0, nothing = 0;
  for (const std::uint64_t seed : seeds(150)) {
    SCOPED_TRACE("WAYSTATION_SEED=" + std::to_string(seed));
    RandomQueues random(seed);
    journal_.reset();
    for (const std::string& path : disk_.paths()) ASSERT_TRUE(disk_.remove(path));
    write_log(random);
    for (std::uint64_t i = 1 + random.pick(3); i > 0; --i) damage(random);
    const Status saved = run();
    if (!saved) {
      ++nothing;
      continue;
    }
    std::ostringstream verdict;
    ASSERT_TRUE(journal::verify(disk_, "/new", verdict)) << verdict.str() << out_.str();
    watcher_ = std::make_unique<journal::Watcher>();
    auto o = options(*watcher_);
    o.dir = "/new";
    auto opened = journal::FileJournal::open(std::move(o));
    ASSERT_TRUE(opened) << opened.error().message << "\n" << out_.str();
    journal_ = std::move(*opened);

    Book whole;
    for (const std::string& record : random.ledger.out()) whole.read(record);
    Ledger ledger(Limits{.memory_bytes_max = 0, .queue_memory_bytes_min = 0});
    const auto checkpoint = journal_->newest_checkpoint();
    ASSERT_TRUE(checkpoint && *checkpoint);
    ASSERT_TRUE(ledger.restore((*checkpoint)->state, (*checkpoint)->index));
    for (const auto& [id, queue] : ledger.queues()) {
      for (const auto& [first, frame] : queue.frames) {
        const auto payload = read_payload(*journal_, frame.record);
        ASSERT_TRUE(payload) << payload.error().message << "\n" << out_.str();
        ASSERT_EQ((*payload)->count(), frame.count);
        for (std::uint32_t i = 0; i < frame.count; ++i, ++messages) {
          EXPECT_EQ((*payload)->message(i), whole.messages.at({id, first + i}).content);
        }
      }
    }
    if (HasFailure()) return;
  }
  if (std::getenv("WAYSTATION_SEED") == nullptr) {
    EXPECT_GT(messages, 500u);
    EXPECT_LT(nothing, 50u);
  }
}

TEST_F(QueueSalvageFolder, ADryRunWritesNothing) {
  RandomQueues random(3);
  write_log(random);
  disk_.flip_bit(segment_path(1), journal::kSegmentHeaderBytes + journal::kBatchHeaderBytes + 3, 2);
  ASSERT_TRUE(run(true));
  EXPECT_NE(out_.str().find("would keep "), std::string::npos) << out_.str();
  for (const std::string& file : disk_.paths()) EXPECT_FALSE(file.starts_with("/new")) << file;
}

}  // namespace
}  // namespace waystation::queue
