// One test per rule of a request's life. The names of the tests are the rules.
#include "ledger/ledger.h"

#include <gtest/gtest.h>

#include "ledger/testing_fixture.h"

namespace waystation::ledger {
namespace {

using testing::bytes_of;
using testing::kAnn;
using testing::kBob;
using testing::kStartMs;
using testing::LedgerTest;

// ---- Life ---------------------------------------------------------------------------------------

TEST_F(LedgerTest, ARequestIsQueuedRunsAndCompletes) {
  const RequestId id = submit();
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_QUEUED);
  EXPECT_EQ(next(), id);
  EXPECT_EQ(ledger->counts().live_bytes, 4u);
  now += 10;
  lease(id);
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_RUNNING);
  EXPECT_FALSE(next());
  EXPECT_EQ(last_start().worker, kAnn);
  EXPECT_EQ(last_start().assign.fence().epoch(), 1u);
  EXPECT_EQ(last_start().assign.fence().attempt(), 1u);
  EXPECT_EQ(last_start().assign.envelope().data(), "body");
  EXPECT_EQ(last_start().assign.envelope().attempt(), 1u);
  EXPECT_EQ(last_start().assign.resume_size(), 0);
  now += 10;
  EXPECT_TRUE(send(tokens_of(id, {5, 6}, "hi")));
  now += 10;
  finish(id);
  const Request& request = get(id);
  EXPECT_EQ(request.state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(request.finish_reason, "stop");
  EXPECT_EQ(request.usage.completion_tokens(), 3u);
  EXPECT_EQ(request.accepted_ms, kStartMs);
  EXPECT_EQ(request.first_token_ms, kStartMs + 20);
  EXPECT_EQ(request.ended_ms, kStartMs + 30);
  EXPECT_EQ(request.envelope, nullptr);
  ASSERT_EQ(request.attempts.size(), 1u);
  EXPECT_EQ(request.attempts[0].outcome(), "completed");
  EXPECT_EQ(request.attempts[0].worker_name(), "worker-1");
  const Counts counts = ledger->counts();
  EXPECT_EQ(counts.queued + counts.running, 0u);
  EXPECT_EQ(counts.retained, 1u);
  EXPECT_EQ(counts.live_bytes, 0u);
}

TEST_F(LedgerTest, AFinalFailureEndsARequestAtOnce) {
  for (const Code code : {Code::kInvalidArgument, Code::kContextLengthExceeded, Code::kTooLarge,
                          Code::kPermissionDenied}) {
    const RequestId id = submit();
    lease(id);
    fail(id, code);
    EXPECT_EQ(get(id).state, v1::REQUEST_STATE_FAILED);
    EXPECT_EQ(get(id).failure.code(), code_name(code));
    EXPECT_EQ(get(id).failed_attempts, 0u);
  }
}

TEST_F(LedgerTest, TimeInTheLogNeverGoesBack) {
  submit();
  now -= 1000;
  const auto accepted = ledger->submit(envelope(), {}, now, out);
  ASSERT_TRUE(accepted);
  EXPECT_EQ(accepted->accepted_ms, kStartMs);
  v1::Record late = out.records.back();
  late.set_time_ms(now);
  EXPECT_FALSE(ledger->apply(late, LogIndex{4}));
}

TEST_F(LedgerTest, WhatIsNotUtf8IsRefusedSinceItCouldNotBeReadBack) {
  v1::Envelope bad = envelope("\xff\xfe");
  EXPECT_EQ(refusal(bad), Code::kInvalidArgument);
  bad = envelope("好");
  bad.set_data("\xff");  // bytes may be anything
  submit(bad);
}

TEST_F(LedgerTest, AnIdMustBeNew) {
  v1::Envelope again = envelope();
  submit(again);
  EXPECT_EQ(refusal(again), Code::kInvalidArgument);
  again.set_id("no uuid");
  EXPECT_EQ(refusal(again), Code::kInvalidArgument);
}

// ---- Lanes --------------------------------------------------------------------------------------

TEST_F(LedgerTest, ALaneIsFirstInFirstOutWithOneInFlight) {
  const RequestId a = submit("talk");
  const RequestId b = submit("talk");
  const RequestId c = submit("talk");
  const RequestId other = submit("other talk");
  EXPECT_EQ(next(), a);
  lease(a);
  EXPECT_EQ(next(), other);
  lease(other, kBob);
  EXPECT_FALSE(next());
  // Through a retry: the lane waits for its first.
  lose();
  EXPECT_EQ(next(), a);
  lease(a);
  EXPECT_FALSE(next());
  finish(a);
  EXPECT_EQ(next(), b);
  // A middle one that leaves doesn't let others pass.
  lease(b);
  const RequestId d = submit("talk");
  ledger->cancel(c, "", now, out);
  EXPECT_FALSE(next());
  finish(b);
  EXPECT_EQ(next(), d);
}

TEST_F(LedgerTest, LanesOfTenantsAndOfRequestsWithoutConversationAreApart) {
  const RequestId a = submit("talk");
  v1::Envelope made = envelope("talk");
  made.set_tenant("other");
  const RequestId b = submit(made);
  const RequestId c = submit();
  const RequestId d = submit();
  for (const RequestId id : {a, b, c, d}) {
    ASSERT_EQ(next(), id);
    lease(id);
  }
  EXPECT_EQ(ledger->counts().running, 4u);
}

TEST_F(LedgerTest, AnIdWithANulByteDoesNotMeetAConversationsLane) {
  // The id's raw bytes read as a tenant, a NUL and a conversation.
  v1::Envelope first = envelope();
  first.set_id("61626300-0000-70c2-8000-000000000001");
  const RequestId a = submit(first);
  v1::Envelope second = envelope(a.to_bytes().substr(4));
  second.set_tenant("abc");
  submit(second);
  lease(a);
  EXPECT_TRUE(next());
}

TEST_F(LedgerTest, ARetryStandsBeforeEverythingYounger) {
  const RequestId a = submit();
  lease(a);
  const RequestId b = submit();
  EXPECT_EQ(next(), b);
  lose();
  EXPECT_EQ(next(), a);
  std::vector<RequestId> seen;
  ledger->order().visit("small", [&](RequestId id) {
    seen.push_back(id);
    return true;
  });
  EXPECT_EQ(seen, (std::vector<RequestId>{a, b}));
  EXPECT_EQ(ledger->live(), seen);
}

TEST_F(LedgerTest, QueuePositionCountsTheQueuedOfTheModel) {
  const RequestId a = submit();
  v1::Envelope made = envelope();
  made.set_model("large");
  const RequestId large = submit(made);
  const RequestId b = submit();
  EXPECT_EQ(ledger->queue_position(get(a)), 1u);
  EXPECT_EQ(ledger->queue_position(get(b)), 2u);
  EXPECT_EQ(ledger->queue_position(get(large)), 1u);
  EXPECT_EQ(ledger->order().models().size(), 2u);
  lease(a);
  EXPECT_EQ(ledger->queue_position(get(a)), 0u);
  EXPECT_EQ(ledger->queue_position(get(b)), 1u);
  finish(a);
  EXPECT_EQ(ledger->queue_position(get(a)), 0u);
}

// ---- Fencing ------------------------------------------------------------------------------------

TEST_F(LedgerTest, OnlyTheCurrentTripleAndItsWorkerAreHeard) {
  const RequestId id = submit();
  const RequestId queued = submit();
  lease(id);
  lose();
  lease(id);  // attempt 2
  const v1::Output good = tokens_of(id, {1});
  const auto unheard = [&](v1::Output output, WorkerId worker) {
    for (const char* kind : {"tokens", "finish", "failure", "dropped"}) {
      if (*kind == 'f' && kind[1] == 'i') output.set_finish_reason("stop");
      if (*kind == 'f' && kind[1] == 'a') output.mutable_failure()->set_code("internal");
      if (*kind == 'd') output.set_dropped(true);
      const std::string before = bytes_of(out) + state();
      EXPECT_FALSE(send(output, worker));
      EXPECT_EQ(bytes_of(out) + state(), before);
    }
  };
  unheard(good, kBob);
  v1::Output bad = good;
  bad.mutable_fence()->set_epoch(2);
  unheard(bad, kAnn);
  bad.mutable_fence()->set_epoch(0);
  unheard(bad, kAnn);
  for (const std::uint32_t attempt : {0u, 1u, 3u}) {
    bad = good;
    bad.mutable_fence()->set_attempt(attempt);
    unheard(bad, kAnn);
  }
  for (const std::string& request : {queued.to_bytes(), RequestId{}.to_bytes(), std::string("x")}) {
    bad = good;
    bad.mutable_fence()->set_request(request);
    unheard(bad, kAnn);
  }
  EXPECT_TRUE(send(good));
  finish(id);
  unheard(good, kAnn);  // ended
}

TEST_F(LedgerTest, ANewEpochRequeuesWhatRanAndFencesTheOldOne) {
  const RequestId a = submit("talk");
  const RequestId b = submit("talk");
  const RequestId c = submit();
  lease(a);
  lease(c, kBob);
  const v1::Output late = tokens_of(a, {9});
  EXPECT_TRUE(send(tokens_of(a, {1, 2}, "hi")));
  ledger->start_epoch("test", now, out);
  EXPECT_EQ(ledger->epoch(), Epoch{2});
  EXPECT_EQ(ledger->counts().queued, 3u);
  EXPECT_EQ(ledger->counts().running, 0u);
  EXPECT_FALSE(send(late));
  EXPECT_EQ(next(), a);
  EXPECT_EQ(get(a).failed_attempts, 0u);  // a restart isn't the request's fault
  EXPECT_EQ(get(a).attempts[0].outcome(), "server_restart");
  // The same worker number in the new epoch: the old fence stays deaf.
  lease(a);
  EXPECT_FALSE(send(late));
  EXPECT_EQ(last_start().assign.fence().epoch(), 2u);
  EXPECT_EQ(last_start().assign.fence().attempt(), 2u);
  EXPECT_EQ(last_start().assign.resume(0).token_ids_size(), 2);
  EXPECT_EQ(last_start().assign.resume(0).text().size(), 2u);
  EXPECT_EQ(get(a).attempts[1].resumed_tokens(), 2u);
  EXPECT_EQ(next(), c);
  finish(a);
  EXPECT_EQ(next(), b);
}

// ---- Idempotency --------------------------------------------------------------------------------

TEST_F(LedgerTest, AKeyAndABodyAreOneRequest) {
  const RequestId first = submit("", "key");
  const std::size_t records = out.records.size();
  for (int round = 0; round < 2; ++round) {
    now += 5;
    const auto again = ledger->submit(envelope("", "key"), {}, now, out);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->id, first);
    EXPECT_TRUE(again->duplicate);
    EXPECT_EQ(again->accepted_ms, kStartMs);
    if (round == 0) {
      EXPECT_EQ(out.records.size(), records);
      lease(first);
      finish(first);  // the second round meets the stored result
    }
  }
  const auto found = ledger->find_duplicate(envelope("", "key"), now);
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->id, first);
}

TEST_F(LedgerTest, AKeyWithAnotherBodyIsAMismatch) {
  submit("", "key");
  v1::Envelope other = envelope("", "key");
  other.set_fingerprint("another");
  EXPECT_EQ(refusal(other), Code::kIdempotencyMismatch);
  other.set_tenant("other");  // another tenant's keys are its own
  submit(other);
}

TEST_F(LedgerTest, OnlyAcceptanceBindsAKey) {
  v1::Envelope late = envelope("", "key");
  late.set_expirytime_ms(now);
  EXPECT_EQ(refusal(late), Code::kExpired);
  v1::Envelope other = envelope("", "key");
  other.set_fingerprint("another");
  const auto accepted = ledger->submit(other, {}, now, out);
  ASSERT_TRUE(accepted);
  EXPECT_FALSE(accepted->duplicate);
}

TEST_F(LedgerTest, AKeyBindsForItsTimeAndMayThenBeBoundAgain) {
  const RequestId first = submit("", "key");
  now += ledger->limits().idempotency_ttl_ms - 1;
  EXPECT_EQ(submit("", "key"), first);
  now += 1;
  const RequestId second = submit("", "key");
  EXPECT_NE(second, first);
  EXPECT_EQ(submit("", "key"), second);
  // Forgetting the first leaves the second's binding.
  ledger->cancel(first, "", now, out);
  now += ledger->limits().retain_ms - 1;
  ledger->forget(now, ledger->index(), 10, out);
  EXPECT_EQ(ledger->find(first), nullptr);
  EXPECT_EQ(submit("", "key"), second);
}

// ---- Ends: deadline, cancel ---------------------------------------------------------------------

TEST_F(LedgerTest, ADeadlineEndsWhatIsQueuedOrRuns) {
  v1::Envelope made = envelope("talk");
  made.set_expirytime_ms(now + 100);
  const RequestId running = submit(made);
  made = envelope("talk");
  made.set_expirytime_ms(now + 50);
  const RequestId queued = submit(made);
  const RequestId patient = submit("talk");
  lease(running);
  EXPECT_EQ(ledger->next_expiry_ms(), now + 50);
  ledger->expire(now + 49, out);
  EXPECT_EQ(ledger->counts().queued, 2u);
  now += 50;
  ledger->expire(now, out);
  EXPECT_EQ(get(queued).state, v1::REQUEST_STATE_EXPIRED);
  EXPECT_EQ(out.effects.size(), 1u);  // nobody to stop
  EXPECT_EQ(ledger->next_expiry_ms(), now + 50);
  now += 60;
  ledger->expire(now, out);
  EXPECT_EQ(get(running).state, v1::REQUEST_STATE_EXPIRED);
  EXPECT_EQ(get(running).failure.code(), "expired");
  EXPECT_EQ(last_stop().worker, kAnn);
  EXPECT_EQ(last_stop().fence.request(), running.to_bytes());
  EXPECT_EQ(ledger->next_expiry_ms(), 0);
  EXPECT_EQ(next(), patient);
}

TEST_F(LedgerTest, CancelEndsWhatIsLiveAndLeavesWhatEnded) {
  const RequestId queued = submit();
  ledger->cancel(queued, "not wanted", now, out);
  EXPECT_EQ(get(queued).state, v1::REQUEST_STATE_CANCELLED);
  EXPECT_EQ(get(queued).failure.message(), "not wanted");
  EXPECT_TRUE(out.effects.empty());
  EXPECT_FALSE(next());
  const RequestId running = submit();
  lease(running);
  const v1::Output late = tokens_of(running, {1});
  ledger->cancel(running, "", now, out);
  EXPECT_EQ(get(running).state, v1::REQUEST_STATE_CANCELLED);
  EXPECT_EQ(get(running).attempts[0].outcome(), "cancelled");
  EXPECT_EQ(last_stop().fence.attempt(), 1u);
  EXPECT_FALSE(send(late));
  const std::string before = bytes_of(out) + state();
  ledger->cancel(running, "again", now, out);
  ledger->cancel(RequestId{}, "unknown", now, out);
  EXPECT_EQ(bytes_of(out) + state(), before);
}

// ---- Poison -------------------------------------------------------------------------------------

TEST_F(LedgerTest, ThreeLostAttemptsWithoutATokenAreDeathAndTheLaneGoesOn) {
  const RequestId id = submit("talk");
  const RequestId after = submit("talk");
  for (int attempt = 1; attempt <= 3; ++attempt) {
    EXPECT_EQ(get(id).suspect, attempt > 1);
    lease(id);
    v1::Output started = output_of(id);
    started.set_started(true);
    EXPECT_TRUE(send(started));  // a start is no token
    lose();
  }
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_DEAD);
  EXPECT_EQ(get(id).failure.code(), "dead");
  EXPECT_NE(get(id).failure.message().find("killed"), std::string::npos);
  EXPECT_EQ(get(id).attempts.size(), 3u);
  EXPECT_EQ(next(), after);
}

TEST_F(LedgerTest, ALostAttemptWithANewTokenDoesNotCount) {
  const RequestId id = submit();
  for (int attempt = 1; attempt <= 5; ++attempt) {
    lease(id);
    EXPECT_TRUE(send(tokens_of(id, {1})));
    lose();
    EXPECT_EQ(get(id).failed_attempts, 0u);
  }
  lease(id);  // tokens of earlier attempts don't help this one
  lose();
  EXPECT_EQ(get(id).failed_attempts, 1u);
}

TEST_F(LedgerTest, AnEngineErrorCountsAndAReturnDoesNot) {
  const RequestId id = submit();
  for (int i = 0; i < 5; ++i) {
    lease(id);
    v1::Output dropped = output_of(id);
    dropped.set_dropped(true);
    EXPECT_TRUE(send(dropped));
    EXPECT_EQ(get(id).state, v1::REQUEST_STATE_QUEUED);
    EXPECT_EQ(get(id).attempts.back().outcome(), "returned");
  }
  EXPECT_EQ(get(id).failed_attempts, 0u);
  for (std::uint32_t i = 1; i <= 3; ++i) {
    lease(id);
    EXPECT_TRUE(send(tokens_of(id, {1})));
    fail(id, Code::kInternal);
    EXPECT_EQ(get(id).failed_attempts, i);
  }
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_DEAD);
}

TEST_F(LedgerTest, LosingAWorkerEndsAllItsAttemptsAndNoOthers) {
  const RequestId a = submit();
  const RequestId b = submit();
  const RequestId c = submit();
  lease(a);
  lease(b, kBob);
  lease(c);
  lose();
  EXPECT_EQ(get(a).state, v1::REQUEST_STATE_QUEUED);
  EXPECT_EQ(get(b).state, v1::REQUEST_STATE_RUNNING);
  EXPECT_EQ(get(c).state, v1::REQUEST_STATE_QUEUED);
  const std::size_t records = out.records.size();
  lose();
  EXPECT_EQ(out.records.size(), records);
}

// ---- Events -------------------------------------------------------------------------------------

TEST_F(LedgerTest, EventsAreNumberedFromTheStartThroughAttempts) {
  const RequestId id = submit(envelope(), true);
  lease(id);
  v1::Output output = tokens_of(id, {1, 2}, "ab");
  output.set_started(true);
  output.set_prompt_tokens(11);
  output.set_cached_prompt_tokens(4);
  EXPECT_TRUE(send(output));
  v1::Appended appended = out.records.back().appended();
  EXPECT_EQ(appended.first_sequence(), 0u);
  ASSERT_EQ(appended.events_size(), 2);
  EXPECT_EQ(appended.events(0).kind(), v1::EVENT_KIND_START);
  EXPECT_EQ(appended.events(0).usage().prompt_tokens(), 11u);
  EXPECT_EQ(appended.events(1).text(), "ab");
  lose();
  lease(id);
  output = output_of(id);
  output.set_started(true);  // a second start is no event
  const std::size_t records = out.records.size();
  EXPECT_TRUE(send(output));
  EXPECT_EQ(out.records.size(), records);
  EXPECT_TRUE(send(tokens_of(id, {3}, "")));  // a token inside a character
  EXPECT_EQ(out.records.back().appended().first_sequence(), 2u);
  finish(id);
  appended = out.records[out.records.size() - 2].appended();
  EXPECT_EQ(appended.first_sequence(), 3u);
  ASSERT_EQ(appended.events_size(), 3);
  EXPECT_EQ(appended.events(1).finish_reason(), "stop");
  EXPECT_EQ(appended.events(2).kind(), v1::EVENT_KIND_USAGE);
  EXPECT_EQ(appended.events(2).usage().prompt_tokens(), 11u);
  EXPECT_EQ(appended.events(2).usage().cached_prompt_tokens(), 4u);
  EXPECT_EQ(appended.events(2).usage().completion_tokens(), 4u);
  EXPECT_EQ(get(id).usage.completion_tokens(), 4u);
  EXPECT_EQ(get(id).event_count, 6u);
  ASSERT_EQ(get(id).positions.size(), 3u);
  EXPECT_EQ(get(id).positions[2].first, 3u);
  EXPECT_EQ(get(id).positions[2].index, LogIndex{out.records.size() - 1});
}

TEST_F(LedgerTest, AnAnswerInOneOutputHasAllItsEvents) {
  const RequestId id = submit(envelope(), true);
  lease(id);
  v1::Output output = tokens_of(id, {1}, "a");
  output.set_prompt_tokens(3);
  output.set_finish_reason("length");
  EXPECT_TRUE(send(output));
  const v1::Appended& appended = out.records[out.records.size() - 2].appended();
  ASSERT_EQ(appended.events_size(), 4);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(appended.events(i).kind(), (std::vector{v1::EVENT_KIND_START, v1::EVENT_KIND_DELTA,
                                                      v1::EVENT_KIND_FINISH,
                                                      v1::EVENT_KIND_USAGE}[i]));
  }
  EXPECT_EQ(appended.events(3).usage().prompt_tokens(), 3u);
  EXPECT_EQ(appended.events(3).usage().completion_tokens(), 1u);
  EXPECT_EQ(get(id).usage.prompt_tokens(), 3u);
  EXPECT_EQ(get(id).finish_reason, "length");
}

TEST_F(LedgerTest, NothingFollowsAFinishEvenWhenAWorkerSaysBoth) {
  const RequestId id = submit();
  lease(id);
  v1::Output output = tokens_of(id, {1});
  output.set_finish_reason("stop");
  output.set_dropped(true);
  EXPECT_TRUE(send(output));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_COMPLETED);
}

TEST_F(LedgerTest, ALogCutBeforeATerminalRecordGetsItAtTheNextStart) {
  const RequestId done = submit();
  lease(done);
  finish(done);
  ASSERT_TRUE(out.records.back().has_settled());
  Proposal cut{{out.records.begin(), out.records.end() - 1}, {}};
  const RequestId poison = submit();
  for (int i = 0; i < 3; ++i) {
    lease(poison);
    lose();
  }
  ASSERT_EQ(get(poison).state, v1::REQUEST_STATE_DEAD);
  Proposal cut_later{{out.records.begin(), out.records.end() - 1}, {}};
  for (Proposal* log : {&cut, &cut_later}) {
    ledger = std::make_unique<Ledger>(Limits{});
    for (std::size_t i = 0; i < log->records.size(); ++i) {
      ASSERT_TRUE(ledger->apply(log->records[i], LogIndex{i + 1}));
    }
    out = *log;
    EXPECT_EQ(ledger->counts().running + ledger->counts().queued, 1u);
    ledger->start_epoch("test", now, out);
    EXPECT_EQ(ledger->counts().running + ledger->counts().queued, 0u);
    EXPECT_FALSE(next());
  }
  EXPECT_EQ(get(done).state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(get(done).finish_reason, "stop");
  EXPECT_EQ(get(done).usage.completion_tokens(), 1u);
  EXPECT_EQ(get(poison).state, v1::REQUEST_STATE_DEAD);
}

}  // namespace
}  // namespace waystation::ledger
