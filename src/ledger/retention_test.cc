// What the ledger refuses, keeps, forgets and finds.
#include <gtest/gtest.h>

#include "ledger/testing_fixture.h"

namespace waystation::ledger {
namespace {

using testing::bytes_of;
using testing::kAnn;
using testing::kBob;
using testing::kStartMs;
using testing::make_envelope;

class RetentionTest : public testing::LedgerTest {
 protected:
  // A request that ended at `now`.
  RequestId ended(std::string key = "") {
    const RequestId id = submit("", std::move(key));
    lease(id);
    finish(id);
    return id;
  }
  void forget(LogIndex below = {}, std::size_t count_max = 100) {
    ledger->forget(now, below, count_max, out);
  }
  bool kept(RequestId id) { return ledger->find(id) != nullptr; }
  Code answer(RequestId id, const std::string& tenant = "acme") {
    const auto found = ledger->find(tenant, id);
    return found ? Code::kInternal : found.error().code;
  }
};

// ---- Limits -------------------------------------------------------------------------------------

TEST_F(RetentionTest, TooManyLiveRequestsAreRefused) {
  use({.live_requests_max = 3});
  const RequestId a = submit();
  lease(a);  // running ones count
  submit();
  submit("", "key");
  EXPECT_EQ(refusal(envelope()), Code::kQueueFull);
  const auto full = ledger->submit(envelope(), Terms{}, now, out);
  EXPECT_GT(full.error().retry_after_ms, 0);
  submit("", "key");  // a duplicate needs no room
  finish(a);
  submit();  // ended ones don't count
}

TEST_F(RetentionTest, TooManyBytesAreRefused) {
  use({.live_bytes_max = 10});
  const RequestId a = submit();
  submit();
  EXPECT_EQ(refusal(envelope()), Code::kQueueFull);
  v1::Envelope small = envelope();
  small.set_data("12");
  submit(small);
  EXPECT_EQ(ledger->counts().live_bytes, 10u);
  ledger->cancel(a, "", now, out);
  EXPECT_EQ(ledger->counts().live_bytes, 6u);
  submit();
}

TEST_F(RetentionTest, AFloodLeavesRoomForRequestsOfPriority) {
  use({.live_requests_max = 32, .live_bytes_max = 1000});
  for (int i = 0; i < 30; ++i) submit();
  v1::Envelope flex = envelope();
  flex.set_priority(-1);
  EXPECT_EQ(refusal(envelope()), Code::kQueueFull);
  EXPECT_EQ(refusal(flex), Code::kQueueFull);
  v1::Envelope first = envelope();
  first.set_priority(1);
  submit(first);
  first.set_id(envelope().id());
  submit(first);
  first.set_id(envelope().id());
  EXPECT_EQ(refusal(first), Code::kQueueFull) << "the limit is everybody's";

  use({.live_bytes_max = 32});
  v1::Envelope large = envelope();
  large.set_data(std::string(30, 'x'));
  submit(large);
  v1::Envelope small = envelope();
  small.set_data("12");
  EXPECT_EQ(refusal(small), Code::kQueueFull);
  small.set_priority(1);
  submit(small);
}

TEST_F(RetentionTest, ALongLaneIsRefusedAndOthersAreNot) {
  use({.lane_requests_max = 2});
  submit("talk");
  submit("talk");
  EXPECT_EQ(refusal(envelope("talk")), Code::kQueueFull);
  submit("other");
  submit();
  v1::Envelope others = envelope("talk");
  others.set_tenant("other");
  submit(others);
}

TEST_F(RetentionTest, ARefusalBindsNoKey) {
  use({.live_requests_max = 1});
  const RequestId a = submit();
  EXPECT_EQ(refusal(envelope("", "key")), Code::kQueueFull);
  ledger->cancel(a, "", now, out);
  v1::Envelope other = envelope("", "key");
  other.set_fingerprint("another");
  submit(other);
}

// ---- Forgetting ---------------------------------------------------------------------------------

TEST_F(RetentionTest, EndedRequestsAreForgottenAfterTheirTimeOldestFirst) {
  const RequestId a = ended();
  now += 10;
  const RequestId b = ended();
  const RequestId live = submit();
  now = kStartMs + ledger->limits().retain_ms - 1;
  forget();
  EXPECT_TRUE(kept(a));
  now += 1;
  forget();
  EXPECT_FALSE(kept(a));
  EXPECT_TRUE(kept(b));
  now += 1000;
  const RequestId c = ended();
  forget({}, 0);
  EXPECT_TRUE(kept(b));
  forget({}, 1);
  EXPECT_FALSE(kept(b));
  EXPECT_TRUE(kept(c));
  now += 10 * ledger->limits().retain_ms;
  forget();
  EXPECT_FALSE(kept(c));
  EXPECT_TRUE(kept(live));
  const std::size_t records = out.records.size();
  forget();
  EXPECT_EQ(out.records.size(), records);  // nothing to forget, nothing written
  EXPECT_EQ(ledger->counts().retained, 0u);
}

TEST_F(RetentionTest, AKeyThatStillBindsProtectsItsRequest) {
  use({.idempotency_ttl_ms = 1000, .retain_ms = 100});
  const RequestId id = ended("key");
  now += 999;
  forget(ledger->index());
  EXPECT_TRUE(kept(id));
  EXPECT_EQ(submit("", "key"), id);
  now += 1;
  forget();
  EXPECT_FALSE(kept(id));
  EXPECT_NE(submit("", "key"), id);
}

TEST_F(RetentionTest, BelowAnIndexYoungerOnesAreForgottenToo) {
  const RequestId live = submit();
  const RequestId keyed = ended("key");
  const RequestId a = ended();
  const LogIndex below = get(a).stored_index;
  const RequestId b = ended();
  forget(below);
  EXPECT_TRUE(kept(a));
  forget(LogIndex{below.value + 1});
  EXPECT_FALSE(kept(a));
  EXPECT_TRUE(kept(b));
  EXPECT_TRUE(kept(live));
  EXPECT_TRUE(kept(keyed));
  // By age and by index at once: each only once.
  now += ledger->limits().retain_ms;
  forget(LogIndex{ledger->index().value + 1});
  EXPECT_FALSE(kept(b));
  EXPECT_FALSE(kept(keyed));
  EXPECT_EQ(out.records.back().forgotten().requests_size(), 2);
}

TEST_F(RetentionTest, AModelIsKnownWhileARequestForItIs) {
  EXPECT_FALSE(ledger->knows_model("small"));
  ended();
  EXPECT_TRUE(ledger->knows_model("small"));
  forget(LogIndex{ledger->index().value + 1});
  EXPECT_FALSE(ledger->knows_model("small"));
}

// ---- Finding ------------------------------------------------------------------------------------

TEST_F(RetentionTest, AForgottenRequestIsGoneAndAnUnknownOneNotFound) {
  const RequestId id = ended();
  now += 5000;
  const RequestId young = RequestId::make(now, 0, 999);
  EXPECT_EQ(answer(RequestId::make(kStartMs - 1, 0, 999)), Code::kNotFound);
  forget(LogIndex{ledger->index().value + 1});
  EXPECT_EQ(answer(id), Code::kGone);
  EXPECT_EQ(answer(young), Code::kNotFound);
}

TEST_F(RetentionTest, AnotherTenantsRequestIsAnsweredLikeAnUnknownOne) {
  const RequestId old = submit();
  EXPECT_EQ(*ledger->find("acme", old), &get(old));
  EXPECT_EQ(answer(old, "other"), Code::kNotFound);
  now += 10;
  ended();
  forget(LogIndex{ledger->index().value + 1});
  now += 10;
  const RequestId young = submit();
  EXPECT_EQ(answer(old, "other"), answer(RequestId::make(old.time_ms(), 0, 999), "other"));
  EXPECT_EQ(answer(young, "other"), Code::kNotFound);
  EXPECT_EQ(*ledger->find("acme", old), &get(old));  // live: its age doesn't matter
}

// ---- Erasing ------------------------------------------------------------------------------------

TEST_F(RetentionTest, AnErasedRequestIsGoneAndItsKeyStillBinds) {
  const RequestId id = ended("key");
  const LogIndex before = ledger->index();
  ledger->erase(id, "", now, out);
  EXPECT_EQ(answer(id), Code::kGone);
  EXPECT_EQ(answer(id, "other"), Code::kNotFound);
  EXPECT_EQ(refusal(envelope("", "key")), Code::kGone);
  v1::Envelope other = envelope("", "key");
  other.set_fingerprint("another");
  EXPECT_EQ(refusal(other), Code::kIdempotencyMismatch);
  // What was in it is neither in memory nor needed on the disk.
  EXPECT_TRUE(get(id).positions.empty());
  EXPECT_EQ(get(id).event_count, 0u);
  EXPECT_GT(get(id).stored_index, before);
  const std::size_t records = out.records.size();
  ledger->erase(id, "", now, out);
  EXPECT_EQ(out.records.size(), records);
  // A checkpoint knows it, and so does its retention.
  const v1::LedgerSnapshot snapshot = ledger->snapshot();
  ledger = std::make_unique<Ledger>(Limits{});
  ASSERT_TRUE(ledger->restore(snapshot));
  EXPECT_EQ(answer(id), Code::kGone);
  EXPECT_EQ(refusal(envelope("", "key")), Code::kGone);
  now += ledger->limits().idempotency_ttl_ms + ledger->limits().retain_ms;
  forget();
  EXPECT_FALSE(kept(id));
  submit("", "key");
}

TEST_F(RetentionTest, ErasingALiveRequestCancelsIt) {
  const RequestId running = submit("talk");
  const RequestId waiting = submit("talk");
  lease(running);
  ledger->erase(running, "deleted", now, out);
  EXPECT_EQ(answer(running), Code::kGone);
  EXPECT_EQ(get(running).state, v1::REQUEST_STATE_CANCELLED);
  EXPECT_TRUE(std::holds_alternative<StopWork>(out.effects.back()));
  EXPECT_EQ(next(), waiting);
}

// ---- Carrying -----------------------------------------------------------------------------------

TEST_F(RetentionTest, CarryingMovesARequestToTheTail) {
  EXPECT_EQ(ledger->oldest_needed(), LogIndex{});
  const RequestId a = submit();
  const RequestId b = submit("talk");
  const RequestId c = submit("talk");
  lease(a);
  EXPECT_TRUE(send(tokens_of(a, {1}, "x")));
  EXPECT_EQ(ledger->oldest_needed(), get(a).accepted_index);
  EXPECT_EQ(ledger->stored_below(get(c).stored_index, 10), (std::vector{a, b}));
  EXPECT_EQ(ledger->stored_below(get(c).stored_index, 1), (std::vector{a}));
  std::vector<v1::Event> events;
  for (const v1::Event& event : out.records.back().appended().events()) events.push_back(event);
  ledger->carry(a, events, std::nullopt, now, out);
  ledger->carry(b, {}, std::nullopt, now, out);
  const v1::Carried& carried = out.records[out.records.size() - 2].carried();
  EXPECT_EQ(carried.events_size(), 2);
  EXPECT_EQ(carried.request(), a.to_bytes());
  EXPECT_EQ(ledger->oldest_needed(), get(c).stored_index);
  EXPECT_EQ(ledger->stored_below(LogIndex{ledger->index().value + 1}, 10), (std::vector{c, a, b}));
  // Its events are found in the new record, its lane and its run are untouched.
  ASSERT_EQ(get(a).positions.size(), 1u);
  EXPECT_EQ(get(a).positions[0].first, 0u);
  EXPECT_EQ(get(a).positions[0].index, get(a).stored_index);
  EXPECT_TRUE(get(b).positions.empty());
  EXPECT_EQ(next(), b);
  finish(a);
  EXPECT_EQ(get(a).event_count, 4u);
  EXPECT_EQ(get(a).positions.size(), 2u);
}

// ---- Checkpoints --------------------------------------------------------------------------------

TEST_F(RetentionTest, ACheckpointHoldsEverythingACommandDependsOn) {
  const RequestId old = ended();
  forget(LogIndex{ledger->index().value + 1});
  const RequestId done = ended("key");
  v1::Envelope made = envelope("talk");
  made.set_expirytime_ms(now + 100);
  const RequestId running = submit(made, true);
  const RequestId waiting = submit("talk");
  lease(running, kBob);
  EXPECT_TRUE(send(tokens_of(running, {1, 2}, "好"), kBob));
  const v1::LedgerSnapshot snapshot = ledger->snapshot();
  ledger = std::make_unique<Ledger>(Limits{});
  ASSERT_TRUE(ledger->restore(snapshot));
  EXPECT_EQ(state(), bytes_of(snapshot));
  EXPECT_EQ(answer(old), Code::kGone);
  EXPECT_EQ(submit("", "key"), done);
  EXPECT_EQ(ledger->next_expiry_ms(), now + 100);
  EXPECT_FALSE(next());
  EXPECT_EQ(ledger->counts().live_bytes, 8u);
  finish(running, kBob);
  EXPECT_EQ(next(), waiting);
  EXPECT_EQ(get(running).usage.completion_tokens(), 3u);
}

TEST_F(RetentionTest, ARecordThatDoesNotFitIsRefused) {
  const RequestId id = submit("talk");
  const RequestId second = submit("talk");
  lease(id);
  const v1::LedgerSnapshot before = ledger->snapshot();
  const auto refused = [&](auto change) {
    Ledger victim{Limits{}};
    EXPECT_TRUE(victim.restore(before));
    v1::Record record;
    record.set_time_ms(now);
    change(record);
    const Status status = victim.apply(record, LogIndex{before.index() + 1});
    return !status && status.error().code == Code::kCorruption;
  };
  const auto settled = [&](int state) {
    return [&, state](v1::Record& record) {
      record.mutable_settled()->set_request(id.to_bytes());
      record.mutable_settled()->set_state(static_cast<v1::RequestState>(state));
    };
  };
  EXPECT_FALSE(refused(settled(v1::REQUEST_STATE_CANCELLED)));
  for (const int state : {0, 1, 2, 8, 99, -1}) EXPECT_TRUE(refused(settled(state)));
  const auto leased = [](RequestId of, std::uint32_t attempt) {
    return [=](v1::Record& record) {
      record.mutable_leased()->set_request(of.to_bytes());
      record.mutable_leased()->set_attempt(attempt);
    };
  };
  EXPECT_TRUE(refused(leased(second, 1)));  // not the first of its lane
  EXPECT_TRUE(refused(leased(id, 2)));      // runs
  const auto appended = [&](std::uint64_t first, std::uint32_t attempt, int events) {
    return [=](v1::Record& record) {
      record.mutable_appended()->set_request(id.to_bytes());
      record.mutable_appended()->set_first_sequence(first);
      record.mutable_appended()->set_attempt(attempt);
      for (int i = 0; i < events; ++i) record.mutable_appended()->add_events();
    };
  };
  EXPECT_FALSE(refused(appended(0, 1, 1)));
  EXPECT_TRUE(refused(appended(1, 1, 1)));
  EXPECT_TRUE(refused(appended(0, 2, 1)));
  EXPECT_TRUE(refused(appended(0, 1, 0)));
  for (const std::uint64_t epoch : {0ull, 1ull, ~0ull}) {
    EXPECT_TRUE(
        refused([=](v1::Record& record) { record.mutable_epoch_started()->set_epoch(epoch); }));
  }
  EXPECT_TRUE(refused([&](v1::Record& record) {
    record.mutable_forgotten()->add_requests(id.to_bytes());  // live
  }));
  EXPECT_TRUE(refused([&](v1::Record& record) {
    record.mutable_erased()->set_request(id.to_bytes());  // live
  }));
  EXPECT_TRUE(refused([&](v1::Record& record) {
    record.mutable_carried()->set_request(id.to_bytes());
    record.mutable_carried()->add_events();  // one too many
  }));
  EXPECT_TRUE(refused([](v1::Record&) {}));
}

class BadCheckpointTest : public RetentionTest {
 protected:
  BadCheckpointTest() {
    const RequestId done = ended();
    const RequestId running = submit("talk");
    submit("talk");
    lease(running);
    EXPECT_TRUE(send(tokens_of(running, {1})));
    EXPECT_TRUE(send(tokens_of(running, {2})));
    good = ledger->snapshot();
    EXPECT_TRUE(Ledger{Limits{}}.restore(good));
    EXPECT_TRUE(kept(done));
  }
  // Whether a checkpoint is refused after a change to it.
  template <typename Change>
  bool refused(Change change) {
    v1::LedgerSnapshot bad = good;
    change(bad, *bad.mutable_requests(0), *bad.mutable_requests(1), *bad.mutable_requests(2));
    const Status status = Ledger{Limits{}}.restore(bad);
    return !status && status.error().code == Code::kCorruption;
  }
  v1::LedgerSnapshot good;  // requests: ended, running, queued
};

TEST_F(BadCheckpointTest, IsRefused) {
  using All = v1::LedgerSnapshot;
  using One = v1::RequestSnapshot;
  EXPECT_FALSE(refused([](All&, One&, One&, One&) {}));
  EXPECT_TRUE(refused([](All& all, One&, One&, One&) { all.set_version(1); }));
  EXPECT_TRUE(refused([](All& all, One&, One&, One&) { all.set_last_time_ms(-1); }));
  EXPECT_TRUE(refused([](All& all, One&, One&, One&) { all.set_index(3); }));
  EXPECT_TRUE(refused([](All& all, One&, One&, One&) { all.set_index(~0ull); }));
  EXPECT_TRUE(refused([](All& all, One&, One&, One&) { all.set_epoch(~0ull); }));
  EXPECT_TRUE(refused([](All&, One& a, One& b, One&) { b.set_id(a.id()); }));
  EXPECT_TRUE(refused([](All&, One& a, One&, One&) { a.set_id("short"); }));
  EXPECT_TRUE(refused([](All&, One&, One& b, One& c) { b.Swap(&c); }));
  EXPECT_TRUE(
      refused([](All&, One&, One& b, One& c) { c.set_accepted_index(b.accepted_index()); }));
  EXPECT_TRUE(refused([](All&, One& a, One&, One& c) {
    a.clear_event_count();
    a.clear_position_sequence_delta();
    a.clear_position_index_delta();
    a.set_stored_index(c.stored_index());  // two at one place
  }));
  EXPECT_TRUE(refused([](All&, One& a, One&, One&) { a.set_accepted_index(0); }));
  EXPECT_TRUE(refused([](All&, One& a, One&, One&) { a.set_state(v1::RequestState(0)); }));
  EXPECT_TRUE(refused([](All&, One& a, One&, One&) { a.set_state(v1::RequestState(99)); }));
  EXPECT_TRUE(refused([](All&, One& a, One&, One&) { a.set_accepted_ms(-1); }));
  EXPECT_TRUE(refused([](All&, One&, One& b, One& c) {  // two run in a lane
    c.set_state(v1::REQUEST_STATE_RUNNING);
    c.set_attempt(1);
    *c.mutable_attempts() = b.attempts();
  }));
  EXPECT_TRUE(refused([](All&, One&, One& b, One&) { b.clear_attempts(); }));
  EXPECT_TRUE(refused([](All&, One&, One&, One& c) { c.set_failed_attempts(3); }));
  EXPECT_TRUE(refused([](All&, One&, One& b, One&) {
    b.mutable_accepted()->mutable_envelope()->set_id("another");
  }));
  EXPECT_TRUE(refused([](All&, One&, One& b, One&) { b.set_event_count(1); }));
  EXPECT_TRUE(refused([](All&, One&, One& b, One&) { b.clear_position_index_delta(); }));
  EXPECT_TRUE(refused([](All&, One&, One& b, One&) { b.set_position_sequence_delta(1, 0); }));
  EXPECT_TRUE(refused([](All&, One&, One& b, One&) { b.set_position_index_delta(1, 0); }));
  EXPECT_TRUE(refused([](All&, One&, One& b, One&) { b.set_position_index_delta(1, 1000); }));
}

}  // namespace
}  // namespace waystation::ledger
