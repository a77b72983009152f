// Dead letters: blocked lanes, requeueing, discarding.
#include "ledger/testing_fixture.h"

namespace waystation::ledger {
namespace {

using testing::bytes_of;

constexpr Terms kBlock{.block_on_dead = true};

class DeadLettersTest : public testing::LedgerTest {
 protected:
  // Runs the head of a lane until it is dead.
  void kill(RequestId id) {
    while (get(id).live()) {
      lease(id);
      lose();
    }
    EXPECT_EQ(get(id).state, v1::REQUEST_STATE_DEAD);
  }
  RequestId ask(const std::string& conversation, const Terms& terms = kBlock) {
    return submit(envelope(conversation), terms);
  }
  RequestId dead(const std::string& conversation, const Terms& terms = kBlock) {
    const RequestId id = ask(conversation, terms);
    kill(id);
    return id;
  }
  Result<Accepted> try_requeue(RequestId id) {
    v1::Envelope body = testing::make_envelope(0, now, get(id).conversation);
    body.set_id(id.to_string());
    body.set_idempotencykey(get(id).idempotency_key);
    return ledger->requeue(id, body, RequestId::make(now, 0, ++number), now, out);
  }
  RequestId requeue(RequestId id) {
    const auto made = try_requeue(id);
    EXPECT_TRUE(made) << made.error().message;
    EXPECT_FALSE(made->duplicate);
    return made->id;
  }
  void discard(RequestId id) { EXPECT_TRUE(ledger->discard(id, now, out)); }
  // Goes on with a ledger made from a checkpoint.
  void restore() {
    const v1::LedgerSnapshot snapshot = ledger->snapshot();
    auto restored = std::make_unique<Ledger>(ledger->limits());
    ASSERT_TRUE(restored->restore(snapshot));
    EXPECT_EQ(bytes_of(restored->snapshot()), bytes_of(snapshot));
    ledger = std::move(restored);
  }
};

TEST_F(DeadLettersTest, ALaneGoesOnUnlessItIsToBlock) {
  dead("talk", {});
  const RequestId after = ask("talk", {});
  EXPECT_EQ(next(), after);
  EXPECT_EQ(ledger->counts().open_letters, 1u);
  EXPECT_EQ(ledger->counts().blocked_lanes, 0u);
}

TEST_F(DeadLettersTest, ABlockedLaneRunsNothingUntilItsLetterIsDiscarded) {
  const RequestId first = ask("talk");
  const RequestId second = ask("talk");
  kill(first);
  const RequestId third = ask("talk");
  const RequestId other = ask("elsewhere");
  EXPECT_EQ(next(), other);
  lease(other);
  EXPECT_EQ(next(), std::nullopt);
  EXPECT_TRUE(get(first).blocks_lane());
  EXPECT_EQ(ledger->counts().blocked_lanes, 1u);
  EXPECT_EQ(ledger->counts().queued, 2u);
  restore();
  EXPECT_EQ(next(), std::nullopt);
  discard(first);
  const std::size_t records = out.records.size();
  discard(first);
  EXPECT_EQ(out.records.size(), records);
  EXPECT_EQ(next(), second);
  lease(second);
  finish(second);
  EXPECT_EQ(next(), third);
  EXPECT_EQ(ledger->counts().open_letters, 0u);
}

TEST_F(DeadLettersTest, TheNewRequestTakesThePlaceOfTheOneThatBlocks) {
  const RequestId first = ask("talk");
  const RequestId second = ask("talk");
  kill(first);
  const RequestId made = requeue(first);
  EXPECT_EQ(next(), made);
  EXPECT_EQ(get(first).requeued_as, made);
  EXPECT_EQ(get(made).requeue_of, first);
  EXPECT_EQ(get(made).place, get(first).place);
  restore();
  EXPECT_EQ(next(), made);
  kill(made);  // and again
  EXPECT_EQ(next(), std::nullopt);
  restore();
  EXPECT_EQ(next(), std::nullopt);
  const RequestId again = requeue(made);
  EXPECT_EQ(next(), again);
  lease(again);
  finish(again);
  EXPECT_EQ(next(), second);
}

TEST_F(DeadLettersTest, WhatBlocksNothingIsRequeuedAtTheEnd) {
  const RequestId first = dead("talk", {});
  const RequestId second = ask("talk", {});
  const RequestId alone = dead("", kBlock);
  EXPECT_FALSE(get(alone).blocks_lane());
  const RequestId made = requeue(first);
  EXPECT_EQ(next(), second);
  lease(second);
  finish(second);
  EXPECT_EQ(next(), made);
  lease(made);
  const RequestId anew = requeue(alone);
  EXPECT_EQ(next(), anew);
}

TEST_F(DeadLettersTest, TheNewRequestIsLikeTheFirstButForItsNameAndItsKey) {
  v1::Envelope body = envelope("talk", "key");
  body.set_expirytime_ms(now + 60'000);
  body.set_priority(1);
  const RequestId id = submit(body, {.stream_usage = true, .choices = 2, .block_on_dead = true});
  kill(id);
  now += 300'000;
  const auto made = ledger->requeue(id, body, RequestId::make(now, 0, ++number), now, out);
  ASSERT_TRUE(made);
  const v1::Accepted& accepted = out.records.back().accepted();
  EXPECT_EQ(accepted.envelope().causationid(), id.to_string());
  EXPECT_EQ(accepted.envelope().correlationid(), id.to_string());
  EXPECT_EQ(accepted.envelope().data(), body.data());
  EXPECT_EQ(accepted.envelope().idempotencykey(), "");
  EXPECT_EQ(accepted.envelope().expirytime_ms(), now + 60'000);
  EXPECT_EQ(accepted.envelope().time_ms(), now);
  EXPECT_TRUE(accepted.detached());
  const Request& request = get(made->id);
  EXPECT_TRUE(request.stream_usage && request.block_on_dead);
  EXPECT_EQ(request.choice_count, 2u);
  EXPECT_EQ(request.priority, 1);
  // I6: the key names the dead one, for as long as it binds.
  const auto same = ledger->find_duplicate(body, now);
  ASSERT_TRUE(same && *same);
  EXPECT_EQ((*same)->id, id);
}

TEST_F(DeadLettersTest, RequeueingTwiceMakesOneRequest) {
  const RequestId id = dead("talk");
  const RequestId made = requeue(id);
  const std::size_t records = out.records.size();
  lease(made);
  finish(made);
  const auto again = try_requeue(id);
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->duplicate);
  EXPECT_EQ(again->id, made);
  EXPECT_EQ(out.records.size(), records + 3);  // of the run alone
  const auto discarded = ledger->discard(id, now, out);
  ASSERT_FALSE(discarded);
  EXPECT_EQ(discarded.error().code, Code::kConflict);
}

TEST_F(DeadLettersTest, OnlyOpenLettersAreRequeued) {
  const RequestId queued = ask("talk");
  lease(queued);
  finish(queued);
  EXPECT_EQ(try_requeue(queued).error().code, Code::kConflict);
  EXPECT_NE(try_requeue(queued).error().message.find("is completed"), std::string::npos);
  EXPECT_EQ(ledger->discard(queued, now, out).error().code, Code::kConflict);
  const RequestId thrown = dead("talk");
  discard(thrown);
  EXPECT_EQ(try_requeue(thrown).error().code, Code::kConflict);
  const RequestId turn = dead("talk", {.compose = true, .block_on_dead = true});
  EXPECT_EQ(try_requeue(turn).error().code, Code::kConflict);
  EXPECT_EQ(next(), std::nullopt);
  discard(turn);
}

TEST_F(DeadLettersTest, ErasingIsDealingWithIt) {
  const RequestId id = dead("talk");
  const RequestId waits = ask("talk");
  EXPECT_EQ(next(), std::nullopt);
  ledger->erase(id, "deleted", now, out);
  EXPECT_EQ(next(), waits);
  EXPECT_EQ(ledger->counts().open_letters, 0u);
  EXPECT_TRUE(ledger->dead_letters("acme", std::nullopt, 10)->empty());
}

TEST_F(DeadLettersTest, WhatWaitsInABlockedLaneCanStillEnd) {
  const RequestId id = dead("talk");
  v1::Envelope late = envelope("talk");
  late.set_expirytime_ms(now + 100);
  const RequestId expires = submit(late, kBlock);
  const RequestId cancelled = ask("talk");
  const RequestId stays = ask("talk");
  now += 200;
  ledger->expire(now, out);
  ledger->cancel(cancelled, "", now, out);
  EXPECT_EQ(get(expires).state, v1::REQUEST_STATE_EXPIRED);
  EXPECT_EQ(get(cancelled).state, v1::REQUEST_STATE_CANCELLED);
  EXPECT_EQ(next(), std::nullopt);
  EXPECT_EQ(next(), std::nullopt);
  discard(id);
  EXPECT_EQ(next(), stays);
}

TEST_F(DeadLettersTest, WhatBlocksKeepsItsRoomSoThatItsRequeueingIsNeverRefused) {
  use({.live_requests_max = 3, .lane_requests_max = 2});
  const RequestId id = dead("talk");
  (void)ask("talk");
  EXPECT_EQ(refusal(envelope("talk")), Code::kQueueFull);  // the lane is full
  EXPECT_EQ(refusal(envelope("talk"), {.locked = true}), Code::kConversationLocked);
  (void)ask("other");
  EXPECT_EQ(refusal(envelope("")), Code::kQueueFull);  // and so is all
  EXPECT_EQ(ledger->counts().live_bytes, 3 * get(id).data_bytes);
  (void)requeue(id);
  EXPECT_EQ(ledger->counts().live_bytes, 3 * get(id).data_bytes);
  EXPECT_EQ(refusal(envelope("")), Code::kQueueFull);
}

TEST_F(DeadLettersTest, WhatBlocksNothingNeedsRoomOfItsOwn) {
  use({.live_requests_max = 2});
  const RequestId id = dead("talk", {});
  (void)ask("");
  (void)ask("");
  EXPECT_EQ(try_requeue(id).error().code, Code::kQueueFull);
}

TEST_F(DeadLettersTest, WhatBlocksIsNotForgotten) {
  const RequestId blocks = dead("talk");
  const RequestId open = dead("", {});
  now += 48 * 3600 * 1000;
  ledger->forget(now, LogIndex{}, 100, out);
  ledger->forget(now, ledger->index(), 100, out);
  EXPECT_NE(ledger->find(blocks), nullptr);
  EXPECT_EQ(ledger->find(open), nullptr);
  EXPECT_EQ(ledger->counts().open_letters, 1u);
  discard(blocks);
  ledger->forget(now, LogIndex{}, 100, out);
  EXPECT_EQ(ledger->find(blocks), nullptr);
}

// A body is needed for as long as it can be run: of live requests, which may die, and of letters.
TEST_F(DeadLettersTest, CarryingTakesTheBodyAlong) {
  const RequestId live = ask("");
  ledger->carry(live, {}, std::nullopt, now, out);
  EXPECT_EQ(out.records.back().carried().envelope().data(), "body");
  const RequestId id = dead("talk");
  v1::Envelope body;
  body.set_id(id.to_string());
  ledger->carry(id, {}, body, now, out);
  EXPECT_TRUE(out.records.back().carried().has_envelope());
  discard(id);
  ledger->carry(id, {}, body, now, out);
  EXPECT_FALSE(out.records.back().carried().has_envelope());
}

TEST_F(DeadLettersTest, AreListedNewestFirstForTheirTenantAlone) {
  std::vector<RequestId> ids;
  for (int i = 0; i < 3; ++i) {
    now += 10;
    ids.push_back(dead("", {}));
  }
  discard(ids[1]);
  const auto all = ledger->dead_letters("acme", std::nullopt, 10);
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 3u);
  EXPECT_EQ(all->front()->id, ids[2]);
  const auto rest = ledger->dead_letters("acme", ids[2], 1);
  ASSERT_TRUE(rest);
  ASSERT_EQ(rest->size(), 1u);
  EXPECT_EQ(rest->front()->id, ids[1]);
  EXPECT_TRUE(ledger->dead_letters("other", std::nullopt, 10)->empty());
  EXPECT_EQ(ledger->dead_letters("other", ids[2], 10).error().code, Code::kInvalidArgument);
  EXPECT_EQ(ledger->dead_letters("acme", ask(""), 10).error().code, Code::kInvalidArgument);
}

// I7: the policy of a request is its record's, whatever the next server is told.
TEST_F(DeadLettersTest, ARecordThatDoesNotFitIsRefused) {
  const RequestId id = dead("talk");
  const auto misfits = [&](v1::Record record) {
    record.set_time_ms(now);
    const std::string before = state();
    const Status applied = ledger->apply(record, LogIndex{ledger->index().value + 1});
    EXPECT_EQ(state(), before);
    return !applied && applied.error().code == Code::kCorruption;
  };
  v1::Record forget;
  forget.mutable_forgotten()->add_requests(id.to_bytes());
  EXPECT_TRUE(misfits(forget));
  v1::Record elsewhere;
  *elsewhere.mutable_accepted()->mutable_envelope() = envelope("other lane");
  elsewhere.mutable_accepted()->set_requeue_of(id.to_bytes());
  EXPECT_TRUE(misfits(elsewhere));
  discard(id);
  v1::Record again;
  again.mutable_discarded()->set_request(id.to_bytes());
  EXPECT_TRUE(misfits(again));
}

}  // namespace
}  // namespace waystation::ledger
