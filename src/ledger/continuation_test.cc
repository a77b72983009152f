// How a next attempt goes on, who goes first, and what counts against a request.
#include <gtest/gtest.h>

#include "ledger/testing_fixture.h"

namespace waystation::ledger {
namespace {

using testing::bytes_of;
using testing::kAnn;
using testing::kBob;

class ContinuationTest : public testing::LedgerTest {
 protected:
  const v1::Attempt& last_attempt(RequestId id) { return get(id).attempts.back(); }
  const v1::ChoiceProgress& resume() { return last_start().assign.resume(0); }
  RequestId submit_with(std::int32_t priority, std::string conversation = "") {
    v1::Envelope made = envelope(std::move(conversation));
    made.set_priority(priority);
    return submit(made);
  }
  std::vector<RequestId> order() {
    std::vector<RequestId> seen;
    ledger->order().visit("small", [&](RequestId id) {
      seen.push_back(id);
      return true;
    });
    return seen;
  }
};

// ---- From tokens, from text, from nothing -------------------------------------------------------

TEST_F(ContinuationTest, TheSameModelGoesOnFromTheVeryTokens) {
  const RequestId id = submit();
  lease(id, kAnn, "a");
  EXPECT_EQ(last_attempt(id).continuation(), "");
  EXPECT_TRUE(send(tokens_of(id, {1, 2}, "hi")));
  lose();
  lease(id, kBob, "a");
  EXPECT_EQ(last_attempt(id).continuation(), "exact");
  EXPECT_EQ(last_attempt(id).resumed_tokens(), 2u);
  EXPECT_EQ(last_attempt(id).prefilled_bytes(), 0u);
  EXPECT_EQ(resume().token_ids_size(), 2);
  EXPECT_EQ(resume().text(), "hi");
}

TEST_F(ContinuationTest, AnotherModelGoesOnFromTheTextAndFromThenOnThereIsOnlyText) {
  const RequestId id = submit();
  lease(id, kAnn, "a");
  EXPECT_TRUE(send(tokens_of(id, {1, 2}, "hi")));
  lose();
  lease(id, kBob, "b");
  EXPECT_EQ(last_attempt(id).continuation(), "prefill");
  EXPECT_EQ(last_attempt(id).prefilled_bytes(), 2u);
  EXPECT_EQ(last_attempt(id).regenerated_tokens(), 2u);
  EXPECT_EQ(last_attempt(id).resumed_tokens(), 0u);
  EXPECT_EQ(resume().token_ids_size(), 0);
  EXPECT_EQ(resume().text(), "hi");
  EXPECT_EQ(get(id).token_fingerprint, "");
  EXPECT_EQ(get(id).answer_fingerprint, "b");
  // Its own ids would be half an answer's: they aren't kept, for nobody.
  EXPECT_TRUE(send(tokens_of(id, {3}, " you"), kBob));
  lose(kBob);
  for (const char* fingerprint : {"b", "a", ""}) {
    lease(id, kAnn, fingerprint);
    EXPECT_EQ(last_attempt(id).continuation(), "prefill");
    EXPECT_EQ(last_attempt(id).prefilled_bytes(), 6u);
    EXPECT_EQ(last_attempt(id).regenerated_tokens(), 0u);
    EXPECT_EQ(resume().text(), "hi you");
    EXPECT_EQ(resume().token_ids_size(), 0);
    ledger->worker_left(kAnn, now, out);
  }
  lease(id);
  finish(id);
  EXPECT_EQ(get(id).usage.completion_tokens(), 4u);  // all that were made
}

TEST_F(ContinuationTest, WithoutAFingerprintTokenIdsMeanNothing) {
  const RequestId id = submit();
  lease(id, kAnn, "");
  EXPECT_TRUE(send(tokens_of(id, {1, 2}, "hi")));
  EXPECT_TRUE(get(id).choices[0].token_ids.empty());
  lose();
  lease(id, kBob, "");
  EXPECT_EQ(last_attempt(id).continuation(), "prefill");
  EXPECT_EQ(resume().text(), "hi");
}

TEST_F(ContinuationTest, WithNothingToGoOnFromItIsRestarted) {
  const RequestId id = submit();
  lease(id, kAnn, "a");
  v1::Output started = output_of(id);
  started.set_started(true);
  EXPECT_TRUE(send(started));
  lose();
  lease(id, kBob, "b");
  EXPECT_EQ(last_attempt(id).continuation(), "restarted");
  EXPECT_EQ(last_start().assign.resume_size(), 0);
  EXPECT_EQ(get(id).token_fingerprint, "b");  // the ids will be b's
  EXPECT_TRUE(send(tokens_of(id, {5}, "x"), kBob));
  lose(kBob);
  lease(id, kBob, "b");
  EXPECT_EQ(last_attempt(id).continuation(), "exact");
}

TEST_F(ContinuationTest, AFallbackIsNamedInTheAttemptAndTheAssignment) {
  const RequestId id = submit();
  ledger->lease(id, Runner{.worker = kAnn, .model = "other", .fingerprint = "b"}, now, out);
  EXPECT_EQ(last_start().assign.model(), "other");
  EXPECT_EQ(last_start().assign.envelope().model(), "small");  // as it was asked for
  EXPECT_EQ(last_attempt(id).model(), "other");
  lose();
  lease(id);
  EXPECT_EQ(last_start().assign.model(), "small");
  EXPECT_EQ(last_attempt(id).model(), "");
}

// ---- What counts against a request --------------------------------------------------------------

TEST_F(ContinuationTest, OnlyAWorkersDeathThatCountsMakesASuspect) {
  const RequestId id = submit();
  lease(id);
  fail(id, Code::kInternal);
  EXPECT_EQ(get(id).failed_attempts, 1u);
  EXPECT_FALSE(get(id).suspect);
  lease(id);
  EXPECT_TRUE(send(tokens_of(id, {1})));
  lose();
  EXPECT_FALSE(get(id).suspect);
  lease(id);
  ledger->worker_left(kAnn, now, out);
  EXPECT_FALSE(get(id).suspect);
  lease(id);
  ledger->start_epoch("test", now, out);
  EXPECT_FALSE(get(id).suspect);
  lease(id);
  lose();
  EXPECT_TRUE(get(id).suspect);
  EXPECT_EQ(get(id).failed_attempts, 2u);
  const v1::LedgerSnapshot snapshot = ledger->snapshot();
  Ledger copy{Limits{}};
  ASSERT_TRUE(copy.restore(snapshot));
  EXPECT_TRUE(copy.find(id)->suspect);
}

TEST_F(ContinuationTest, AnAttemptThatWasNeverSentCountsAgainstNothing) {
  const RequestId id = submit();
  const RequestId other = submit();
  for (int i = 0; i < 5; ++i) {
    lease(id);
    const v1::Fence fence = last_start().assign.fence();
    ASSERT_EQ(ledger->running_on(kAnn).size(), 1u);
    EXPECT_EQ(ledger->running_on(kAnn)[0].SerializeAsString(), fence.SerializeAsString());
    ledger->take_back(kAnn, fence, "never sent", now, out);
    EXPECT_TRUE(ledger->running_on(kAnn).empty());
    EXPECT_EQ(get(id).state, v1::REQUEST_STATE_QUEUED);
    EXPECT_EQ(last_attempt(id).outcome(), "returned");
    EXPECT_EQ(last_attempt(id).detail(), "never sent");
    const std::string before = bytes_of(out) + state();
    ledger->take_back(kAnn, fence, "again", now, out);
    EXPECT_EQ(bytes_of(out) + state(), before);
  }
  EXPECT_EQ(get(id).failed_attempts, 0u);
  EXPECT_FALSE(get(id).suspect);
  lease(other, kBob);
  const v1::Fence fence = last_start().assign.fence();
  const std::string before = bytes_of(out) + state();
  ledger->take_back(kAnn, fence, "another's", now, out);
  EXPECT_EQ(bytes_of(out) + state(), before);
}

// ---- Who goes first -----------------------------------------------------------------------------

TEST_F(ContinuationTest, AHigherPriorityGoesFirstAndAgeDecidesBetweenEquals) {
  const RequestId flex = submit_with(-1);
  const RequestId normal = submit_with(0);
  const RequestId urgent = submit_with(1);
  const RequestId normal_too = submit_with(0);
  EXPECT_EQ(order(), (std::vector{urgent, normal, normal_too, flex}));
  EXPECT_EQ(ledger->queue_position(get(urgent)), 1u);
  EXPECT_EQ(ledger->queue_position(get(normal)), 2u);
  EXPECT_EQ(ledger->queue_position(get(flex)), 4u);
  EXPECT_EQ(ledger->live(), (std::vector{flex, normal, urgent, normal_too}));  // by acceptance
  lease(urgent);
  lose();
  EXPECT_EQ(next(), urgent);  // its retry stands where it stood
}

TEST_F(ContinuationTest, PriorityDoesNotOvertakeWithinALane) {
  const RequestId first = submit_with(-1, "talk");
  const RequestId urgent = submit_with(1, "talk");
  EXPECT_EQ(order(), (std::vector{first}));
  lease(first);
  finish(first);
  EXPECT_EQ(next(), urgent);
}

TEST(LanePlaceTest, AgeOutweighsPriorityInTheEnd) {
  constexpr std::uint64_t kStep = 1'000'000;
  EXPECT_LT(lane_place(0, LogIndex{5}), lane_place(0, LogIndex{6}));
  EXPECT_LT(lane_place(1, LogIndex{kStep}), lane_place(0, LogIndex{1}));
  EXPECT_EQ(lane_place(1, LogIndex{kStep + 1}), lane_place(0, LogIndex{1}));
  EXPECT_GT(lane_place(1, LogIndex{kStep + 2}), lane_place(0, LogIndex{1}));
  // Steps beyond the tenth are worth nothing more: nobody's number makes another wait for ever.
  EXPECT_EQ(lane_place(1'000'000, LogIndex{1}), lane_place(10, LogIndex{1}));
  EXPECT_EQ(lane_place(-1'000'000, LogIndex{1}), lane_place(-10, LogIndex{1}));
  EXPECT_LT(lane_place(1, LogIndex{1ull << 62}), lane_place(0, LogIndex{1ull << 62}));
}

// ---- Locked conversations -----------------------------------------------------------------------

TEST_F(ContinuationTest, ALockedTurnIsRefusedWhileAnotherIsLive) {
  const Terms locked{.locked = true};
  const RequestId first = submit(envelope("talk"), locked);
  EXPECT_EQ(refusal(envelope("talk"), locked), Code::kConversationLocked);
  lease(first);
  EXPECT_EQ(refusal(envelope("talk"), locked), Code::kConversationLocked);
  submit(envelope("other talk"), locked);
  submit(envelope(), locked);
  submit(envelope(), locked);  // no conversation: a lane of its own
  v1::Envelope others = envelope("talk");
  others.set_tenant("other");
  submit(others, locked);
  const RequestId second = submit("talk");  // who may wait, waits
  finish(first);
  EXPECT_EQ(refusal(envelope("talk"), locked), Code::kConversationLocked);
  ledger->cancel(second, "", now, out);
  submit(envelope("talk"), locked);
}

TEST_F(ContinuationTest, ALockedTurnWithAKnownKeyIsTheEarlierRequest) {
  const Terms locked{.locked = true};
  const RequestId first = submit(envelope("talk", "key"), locked);
  EXPECT_EQ(submit(envelope("talk", "key"), locked), first);
}

// ---- The cache's view ---------------------------------------------------------------------------

TEST_F(ContinuationTest, CacheableIsWhatRunsOrHasCompletedByAcceptance) {
  const auto submit_cacheable = [&](const char* key) {
    v1::Envelope made = envelope();
    made.set_cachekey(key);
    return submit(made);
  };
  const RequestId done = submit_cacheable("k1");
  const RequestId failed = submit_cacheable("k2");
  const RequestId cancelled = submit_cacheable("k3");
  submit();
  const RequestId running = submit_cacheable("k1");
  lease(done);
  finish(done);
  lease(failed);
  fail(failed, Code::kInvalidArgument);
  ledger->cancel(cancelled, "", now, out);
  lease(running);
  const auto ids = [](const Ledger& of) {
    std::vector<std::pair<RequestId, std::string>> all;
    for (const Request* request : of.cacheable()) all.emplace_back(request->id, request->cache_key);
    return all;
  };
  const std::vector<std::pair<RequestId, std::string>> expected = {{done, "k1"}, {running, "k1"}};
  EXPECT_EQ(ids(*ledger), expected);
  Ledger copy{Limits{}};
  ASSERT_TRUE(copy.restore(ledger->snapshot()));
  EXPECT_EQ(ids(copy), expected);
  EXPECT_EQ(copy.find(done)->answer_fingerprint, "sha");
}

// ---- Checkpoints --------------------------------------------------------------------------------

TEST_F(ContinuationTest, ACheckpointHoldsWhatANextAttemptNeeds) {
  v1::Envelope made = envelope("talk");
  made.set_priority(1);
  made.set_api("responses");
  made.set_cachekey("k");
  const RequestId id = submit(made, Terms{.detached = true, .choices = 2, .compose = true});
  lease(id, kAnn, "a");
  EXPECT_TRUE(send(text_of(id, 1, "好")));
  v1::Output output = text_of(id, 0, "");
  output.set_reasoning("hm");
  output.add_tool_calls()->set_name("f");
  EXPECT_TRUE(send(output));
  EXPECT_TRUE(send(finish_of(id, 1, true)));
  const v1::LedgerSnapshot snapshot = ledger->snapshot();
  Ledger copy{Limits{}};
  ASSERT_TRUE(copy.restore(snapshot));
  EXPECT_EQ(bytes_of(copy.snapshot()), bytes_of(snapshot));
  const Request& request = *copy.find(id);
  EXPECT_EQ(request.api, "responses");
  EXPECT_TRUE(request.compose);
  EXPECT_EQ(request.priority, 1);
  Proposal theirs;
  copy.worker_lost(kAnn, "killed", now, theirs);
  const Runner runner{.worker = kBob, .worker_name = "worker-2", .fingerprint = "a"};
  copy.lease(id, runner, now, theirs);
  const std::size_t before = out.records.size();
  lose();
  lease(id, kBob, "a");
  const Proposal ours{
      {out.records.begin() + static_cast<std::ptrdiff_t>(before), out.records.end()},
      {out.effects.back()}};
  EXPECT_EQ(bytes_of(theirs), bytes_of(ours));
  EXPECT_EQ(last_start().assign.resume(0).reasoning(), "hm");
  EXPECT_EQ(last_start().assign.resume(1).finish_reason(), "stop");
}

TEST_F(ContinuationTest, ACheckpointOfAnOlderVersionIsRefusedWithAWayOut) {
  v1::LedgerSnapshot old = ledger->snapshot();
  EXPECT_EQ(old.version(), 2u);
  for (const std::uint32_t version : {0u, 1u, 3u}) {
    old.set_version(version);
    const Status status = Ledger{Limits{}}.restore(old);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Code::kCorruption);
    EXPECT_NE(status.error().message.find("version " + std::to_string(version)), std::string::npos);
    EXPECT_NE(status.error().message.find("reads version 2; use the one that wrote it"),
              std::string::npos);
  }
}

TEST_F(ContinuationTest, ACheckpointWithChoicesThatCannotBeIsRefused) {
  const RequestId id = submit(envelope(), Terms{.choices = 2});
  lease(id);
  const RequestId done = submit();
  lease(done);
  finish(done);
  const v1::LedgerSnapshot good = ledger->snapshot();
  const auto refused = [&](auto change) {
    v1::LedgerSnapshot bad = good;
    change(*bad.mutable_requests(0), *bad.mutable_requests(1));
    return !Ledger{Limits{}}.restore(bad);
  };
  using One = v1::RequestSnapshot;
  EXPECT_FALSE(refused([](One&, One&) {}));
  EXPECT_TRUE(refused([](One& live, One&) { live.add_choices(); }));
  EXPECT_TRUE(refused([](One& live, One&) { live.mutable_choices()->RemoveLast(); }));
  EXPECT_TRUE(refused([](One& live, One&) { live.mutable_accepted()->set_choices(3); }));
  EXPECT_TRUE(refused([](One& live, One&) { live.mutable_accepted()->set_choices(~0u); }));
  EXPECT_TRUE(refused([](One&, One& ended) { ended.add_choices(); }));
}

}  // namespace
}  // namespace waystation::ledger
