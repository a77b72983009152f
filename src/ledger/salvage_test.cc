#include "ledger/salvage.h"

#include <gtest/gtest.h>

#include "ledger/random_log.h"

namespace waystation::ledger {
namespace {

using testing::kStartMs;
using testing::make_envelope;
using testing::Random;

constexpr Limits kSmall{.live_requests_max = 30, .idempotency_ttl_ms = 500, .retain_ms = 300};
constexpr WorkerId kWorker{1};

// Of a log, a part of which is lost, what salvage makes.
struct Salvaged {
  std::vector<v1::Record> log;
  std::unique_ptr<Salvage> salvage;

  explicit Salvaged(
      v1::LedgerSnapshot base = Ledger(kSmall).snapshot(),
      const std::function<bool(LogIndex)>& is_lost = [](LogIndex) { return false; }) {
    auto begun =
        Salvage::begin(std::move(base), is_lost, [this](LogIndex, const v1::Record& record) {
          log.push_back(record);
          return Status();
        });
    EXPECT_TRUE(begun) << begun.error().message;
    salvage = std::make_unique<Salvage>(std::move(*begun));
  }
  // `lost`: positions in `records`.
  void take_all(const std::vector<v1::Record>& records, const std::set<std::size_t>& lost) {
    for (std::size_t i = 0; i < records.size(); ++i) {
      if (lost.contains(i)) {
        salvage->hole(1);
      } else {
        EXPECT_TRUE(salvage->take(records[i]));
      }
    }
    EXPECT_TRUE(salvage->finish());
  }
  const Request* find(std::uint64_t number) const {
    return salvage->ledger().find(*RequestId::parse(make_envelope(number, kStartMs).id()));
  }
};

// Makes a log by hand.
class SalvageTest : public ::testing::Test {
 protected:
  SalvageTest() : ledger_(kSmall) { ledger_.start_epoch("test", kStartMs, out_); }
  RequestId submit(std::uint64_t number, const std::string& conversation = "") {
    const auto accepted =
        ledger_.submit(make_envelope(number, kStartMs, conversation), {}, kStartMs, out_);
    EXPECT_TRUE(accepted);
    return accepted->id;
  }
  void lease(RequestId id) {
    ledger_.lease(id, {.worker = kWorker, .fingerprint = "a"}, kStartMs, out_);
  }
  void output(RequestId id, std::uint32_t token, bool finish = false) {
    v1::Output output;
    output.mutable_fence()->set_epoch(ledger_.epoch().value);
    output.mutable_fence()->set_request(id.to_bytes());
    output.mutable_fence()->set_attempt(ledger_.find(id)->attempt);
    output.add_token_ids(token);
    output.set_text("t");
    if (finish) output.set_finish_reason("stop");
    EXPECT_TRUE(ledger_.output(kWorker, output, kStartMs, out_));
  }
  std::size_t here() const { return out_.records.size(); }
  Ledger ledger_;
  Proposal out_;
};

TEST_F(SalvageTest, NothingLostChangesNothingButTheEpoch) {
  const RequestId id = submit(1);
  lease(id);
  output(id, 1, true);
  Salvaged salvaged;
  salvaged.take_all(out_.records, {});
  ASSERT_EQ(salvaged.log.size(), out_.records.size() + 1);
  EXPECT_EQ(salvaged.salvage->ledger().epoch().value, 2u);
  EXPECT_TRUE(salvaged.salvage->affected().empty());
  EXPECT_EQ(salvaged.find(1)->state, v1::REQUEST_STATE_COMPLETED);
}

TEST_F(SalvageTest, AGapInTheEventsEndsTheRequest) {
  const RequestId id = submit(1);
  lease(id);
  output(id, 1);
  const std::size_t lost = here();
  output(id, 2);
  output(id, 3, true);
  Salvaged salvaged;
  salvaged.take_all(out_.records, {lost});
  const Request* request = salvaged.find(1);
  EXPECT_EQ(request->state, v1::REQUEST_STATE_FAILED);
  EXPECT_EQ(request->failure.code(), "lost_in_salvage");
  EXPECT_EQ(request->event_count, 2u);  // its start and one delta
  EXPECT_EQ(salvaged.salvage->affected().at(id).fate, Affected::Fate::kFailed);
}

TEST_F(SalvageTest, AWholeAnswerWithoutItsEndIsCompleted) {
  const RequestId id = submit(1);
  lease(id);
  output(id, 1, true);
  Salvaged salvaged;
  salvaged.take_all(out_.records, {here() - 1});
  EXPECT_EQ(salvaged.find(1)->state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_TRUE(salvaged.salvage->affected().empty());
}

TEST_F(SalvageTest, ALostEndIsNoEndlessRequest) {
  const RequestId id = submit(1);
  lease(id);
  output(id, 1);
  const std::size_t from = here();
  output(id, 2, true);
  Salvaged salvaged;
  salvaged.take_all(out_.records, {from, from + 1});
  EXPECT_EQ(salvaged.find(1)->failure.code(), "lost_in_salvage");
}

TEST_F(SalvageTest, RecordsAboutAnUnknownRequestAreLeftOut) {
  const std::size_t lost = here();
  const RequestId id = submit(1);
  lease(id);
  output(id, 1, true);
  const RequestId other = submit(2);
  lease(other);
  output(other, 1, true);
  Salvaged salvaged;
  salvaged.take_all(out_.records, {lost});
  EXPECT_EQ(salvaged.find(1), nullptr);
  EXPECT_EQ(salvaged.salvage->affected().at(id).fate, Affected::Fate::kUnknown);
  EXPECT_EQ(salvaged.salvage->affected().at(id).records_dropped, 3u);
  EXPECT_EQ(salvaged.find(2)->state, v1::REQUEST_STATE_COMPLETED);
}

TEST_F(SalvageTest, WhatWaitedGoesOn) {
  const RequestId id = submit(1);
  submit(2);
  const std::size_t lost = here();
  submit(3);
  lease(id);
  output(id, 1, true);
  Salvaged salvaged;
  salvaged.take_all(out_.records, {lost});
  EXPECT_EQ(salvaged.find(1)->state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(salvaged.find(2)->state, v1::REQUEST_STATE_QUEUED);
  EXPECT_EQ(salvaged.salvage->affected().begin()->second.fate, Affected::Fate::kUnproven);
}

TEST_F(SalvageTest, ALaterTurnOfALaneProvesThatTheEarlierHadEnded) {
  const RequestId first = submit(1, "talk");
  const RequestId second = submit(2, "talk");
  lease(first);
  const std::size_t from = here();
  output(first, 1, true);
  const std::size_t to = here();
  lease(second);
  output(second, 1, true);
  Salvaged salvaged;
  std::set<std::size_t> lost;
  for (std::size_t i = from; i < to; ++i) lost.insert(i);
  salvaged.take_all(out_.records, lost);
  EXPECT_EQ(salvaged.find(1)->failure.code(), "lost_in_salvage");
  EXPECT_EQ(salvaged.find(2)->state, v1::REQUEST_STATE_COMPLETED);
}

TEST_F(SalvageTest, ALostRestartCostsNoRequest) {
  const RequestId id = submit(1);
  lease(id);
  output(id, 1);
  const std::size_t lost = here();
  ledger_.start_epoch("test", kStartMs, out_);
  lease(id);
  output(id, 2, true);
  Salvaged salvaged;
  salvaged.take_all(out_.records, {lost});
  EXPECT_EQ(salvaged.find(1)->state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(salvaged.find(1)->event_count, ledger_.find(id)->event_count);
  EXPECT_GT(salvaged.salvage->ledger().epoch(), ledger_.epoch());
}

TEST_F(SalvageTest, ADeletionAfterALostEndIsKept) {
  const RequestId id = submit(1);
  const std::size_t lost = here();
  ledger_.erase(id, "deleted", kStartMs, out_);
  Salvaged salvaged;
  salvaged.take_all(out_.records, {lost});
  EXPECT_TRUE(salvaged.find(1)->erased);
}

TEST_F(SalvageTest, ACheckpointsRequestWithoutItsEventsHasFailed) {
  const RequestId id = submit(1);
  lease(id);
  const LogIndex at{here() + 1};
  output(id, 1, true);
  const RequestId other = submit(2);
  lease(other);
  output(other, 1, true);
  Salvaged salvaged(ledger_.snapshot(), [at](LogIndex index) { return index == at; });
  salvaged.take_all({}, {});
  EXPECT_EQ(salvaged.find(1)->failure.code(), "lost_in_salvage");
  EXPECT_EQ(salvaged.find(1)->event_count, 0u);
  EXPECT_EQ(salvaged.find(2)->state, v1::REQUEST_STATE_COMPLETED);
}

// ---- Dead letters: a lane with a letter, and two that wait behind it

class SalvageLettersTest : public SalvageTest {
 protected:
  SalvageLettersTest() {
    for (std::uint64_t number = 1; number <= 3; ++number) {
      const auto accepted = ledger_.submit(make_envelope(number, kStartMs, "talk"),
                                           {.block_on_dead = true}, kStartMs, out_);
      EXPECT_TRUE(accepted);
      ids_.push_back(accepted->id);
    }
    while (ledger_.find(ids_[0])->live()) {
      lease(ids_[0]);
      died_ = here() + 1;
      ledger_.worker_lost(kWorker, "killed", kStartMs, out_);
    }
  }
  void requeue() {
    dealt_with_ = here();
    const RequestId id = *RequestId::parse(make_envelope(4, kStartMs).id());
    EXPECT_TRUE(ledger_.requeue(ids_[0], make_envelope(1, kStartMs, "talk"), id, kStartMs, out_));
    run(id);
  }
  void run(RequestId id) {
    lease(id);
    output(id, 1, true);
  }
  bool completed(const Salvaged& salvaged, std::uint64_t number) {
    const Request* request = salvaged.find(number);
    return request != nullptr && request->state == v1::REQUEST_STATE_COMPLETED;
  }

  std::vector<RequestId> ids_;
  std::size_t died_ = 0;        // the record of its end
  std::size_t dealt_with_ = 0;  // the record of what was done with it
};

TEST_F(SalvageLettersTest, ALaneThatWentOnHadBeenReleased) {
  EXPECT_TRUE(ledger_.discard(ids_[0], kStartMs, out_));
  dealt_with_ = here() - 1;
  run(ids_[1]);
  Salvaged salvaged;
  salvaged.take_all(out_.records, {dealt_with_});
  EXPECT_TRUE(salvaged.find(1)->discarded);
  EXPECT_TRUE(completed(salvaged, 2));
  EXPECT_EQ(salvaged.find(3)->state, v1::REQUEST_STATE_QUEUED);
}

TEST_F(SalvageLettersTest, WhatIsLostOfItsDeathIsProvenByWhatWasMadeOfIt) {
  requeue();
  Salvaged salvaged;
  salvaged.take_all(out_.records, {died_});
  EXPECT_EQ(salvaged.find(1)->state, v1::REQUEST_STATE_DEAD);
  EXPECT_EQ(salvaged.find(1)->requeued_as, salvaged.find(4)->id);
  EXPECT_TRUE(completed(salvaged, 4));
  EXPECT_EQ(salvaged.find(2)->state, v1::REQUEST_STATE_QUEUED);
}

TEST_F(SalvageLettersTest, WhatWasMadeOfAnUnknownLetterStillComesFirst) {
  requeue();
  Salvaged salvaged;
  salvaged.take_all(out_.records, {1});  // its acceptance
  EXPECT_EQ(salvaged.find(1), nullptr);
  EXPECT_TRUE(completed(salvaged, 4));
  EXPECT_EQ(salvaged.find(2)->state, v1::REQUEST_STATE_QUEUED);
  EXPECT_EQ(salvaged.find(3)->state, v1::REQUEST_STATE_QUEUED);
}

bool names(const v1::Record& record, const std::string& id) {
  switch (record.body_case()) {
    case v1::Record::kAccepted:
      return RequestId::parse(record.accepted().envelope().id())->to_bytes() == id ||
             record.accepted().requeue_of() == id;
    case v1::Record::kLeased:
      return record.leased().request() == id;
    case v1::Record::kAppended:
      return record.appended().request() == id;
    case v1::Record::kAttemptEnded:
      return record.attempt_ended().request() == id;
    case v1::Record::kSettled:
      return record.settled().request() == id;
    case v1::Record::kCarried:
      return record.carried().request() == id;
    case v1::Record::kErased:
      return record.erased().request() == id;
    case v1::Record::kDiscarded:
      return record.discarded().request() == id;
    case v1::Record::kForgotten:
      return std::ranges::count(record.forgotten().requests(), id) > 0;
    default:
      return false;
  }
}

std::string text_of(const testing::Audit::Entry& entry) {
  std::string all;
  for (const v1::Event& event : entry.events) all += event.SerializeAsString() + '|';
  return all;
}

// Random logs with random holes. What comes out can be applied to an empty ledger and keeps every
// rule that the audit knows; and a request of which no record is lost, and which had ended, has the
// same end and the same events.
TEST(SalvageRandomTest, AnyHole) {
  std::size_t untouched = 0;
  std::size_t failed = 0;
  for (const std::uint64_t seed : testing::seeds(1, 400)) {
    SCOPED_TRACE("WAYSTATION_SEED=" + std::to_string(seed));
    Random random(seed);
    Ledger ledger(kSmall);
    std::vector<v1::Record> log;
    TimeMs now_ms = kStartMs;
    std::uint64_t number = 0;
    testing::RandomLog driver(ledger, random, log, now_ms, number);
    driver.start_epoch();
    for (int i = 0; i < 200; ++i) {
      driver.step();
      if (random.one_in(60)) driver.start_epoch();
    }
    driver.drain();
    std::set<std::size_t> lost;
    for (std::uint64_t holes = 1 + random.below(3); holes > 0; --holes) {
      const std::size_t at = random.below(log.size());
      for (std::size_t i = at; i < std::min(log.size(), at + 1 + random.below(12)); ++i)
        lost.insert(i);
    }
    Salvaged salvaged;
    salvaged.take_all(log, lost);

    testing::Audit before;
    EXPECT_EQ(before.read_all(log), "");
    testing::Audit after;
    for (const v1::Record& record : salvaged.log) {
      const std::string fault = after.read(record);
      // A failed attempt may be lost of a request that died of three.
      EXPECT_TRUE(fault.empty() || fault.starts_with("dead with fewer")) << fault;
    }
    Ledger again(kSmall);
    for (std::size_t i = 0; i < salvaged.log.size(); ++i) {
      const Status applied = again.apply(salvaged.log[i], LogIndex{i + 1});
      ASSERT_TRUE(applied) << applied.error().message;
    }
    EXPECT_EQ(again.snapshot().SerializeAsString(),
              salvaged.salvage->ledger().snapshot().SerializeAsString());
    for (const auto& [id, entry] : before.entries) {
      const bool touched =
          std::ranges::any_of(lost, [&, &id = id](std::size_t i) { return names(log[i], id); });
      if (touched) {
        const auto at = salvaged.salvage->affected().find(*RequestId::from_bytes(id));
        failed +=
            at != salvaged.salvage->affected().end() && at->second.fate == Affected::Fate::kFailed;
        continue;
      }
      ++untouched;
      ASSERT_TRUE(after.entries.contains(id));
      EXPECT_EQ(after.entries[id].state, entry.state);
      EXPECT_EQ(text_of(after.entries[id]), text_of(entry));
    }
    if (::testing::Test::HasFailure()) return;
  }
  if (!testing::other_seeds()) {
    EXPECT_GT(untouched, 10'000u);  // both happen, or this test tests nothing
    EXPECT_GT(failed, 100u);
  }
}

}  // namespace
}  // namespace waystation::ledger
