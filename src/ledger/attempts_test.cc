// What several attempts at one answer add up to: its tokens, its error, its vectors.
#include "ledger/attempts.h"

#include <gtest/gtest.h>

#include "ledger/testing_fixture.h"

namespace waystation::ledger {
namespace {

using testing::kAnn;
using testing::kBob;

class AttemptsTest : public testing::LedgerTest {};

// ---- The tokens of an answer that several made ------------------------------------------------

v1::Usage usage_of(std::uint32_t prompt, std::uint32_t completion) {
  v1::Usage usage;
  usage.set_prompt_tokens(prompt);
  usage.set_completion_tokens(completion);
  return usage;
}

TEST_F(AttemptsTest, AnUpstreamThatGoesOnAddsItsTokensToThoseThatWereThere) {
  const RequestId id = submit(envelope(), true);
  lease(id, kAnn, "a");
  v1::Output first = tokens_of(id, {1, 2, 3}, "one two three");
  first.set_started(true);
  first.set_prompt_tokens(10);
  first.set_cached_prompt_tokens(4);
  EXPECT_TRUE(send(first));
  lose();
  lease(id, kBob, "");
  v1::Output last = output_of(id);
  last.set_text(" four");
  last.set_text_tokens(1);
  last.set_finish_reason("stop");
  *last.mutable_usage() = usage_of(13, 2);  // the three are in its prompt, with the template's
  last.mutable_usage()->set_reasoning_tokens(1);
  EXPECT_TRUE(send(last, kBob));
  EXPECT_EQ(get(id).usage.prompt_tokens(), 10u);
  EXPECT_EQ(get(id).usage.cached_prompt_tokens(), 4u);
  EXPECT_EQ(get(id).usage.completion_tokens(), 5u);
  EXPECT_EQ(get(id).usage.reasoning_tokens(), 1u);
}

TEST_F(AttemptsTest, WithoutTheFirstOnesPromptItIsTheSecondOnesWithoutTheAnswer) {
  const RequestId id = submit();
  lease(id, kAnn, "");
  for (int i = 0; i < 3; ++i) {
    v1::Output piece = output_of(id);
    piece.set_text("word ");
    piece.set_text_tokens(1);
    EXPECT_TRUE(send(piece));
  }
  lose();
  lease(id, kBob, "");
  v1::Output last = output_of(id);
  last.set_finish_reason("stop");
  *last.mutable_usage() = usage_of(13, 2);
  EXPECT_TRUE(send(last, kBob));
  EXPECT_EQ(get(id).usage.prompt_tokens(), 10u);
  EXPECT_EQ(get(id).usage.completion_tokens(), 5u);
}

TEST_F(AttemptsTest, WithoutTheUpstreamsCountsOursStand) {
  const RequestId id = submit();
  lease(id, kAnn, "");
  v1::Output piece = output_of(id);
  piece.set_text("a word");
  piece.set_text_tokens(2);
  EXPECT_TRUE(send(piece));
  finish(id);
  EXPECT_EQ(get(id).usage.completion_tokens(), 3u);
}

TEST_F(AttemptsTest, OneThatBeginsAnewCountsForItself) {
  const RequestId id = submit();
  lease(id, kAnn, "");
  lose();
  lease(id, kBob, "");
  v1::Output last = output_of(id);
  last.set_text("all");
  last.set_finish_reason("stop");
  *last.mutable_usage() = usage_of(13, 2);
  EXPECT_TRUE(send(last, kBob));
  EXPECT_EQ(get(id).usage.prompt_tokens(), 13u);
  EXPECT_EQ(get(id).usage.completion_tokens(), 2u);
}

TEST_F(AttemptsTest, ACheckpointKnowsWhatTheAttemptsBeforeHadUsed) {
  const RequestId id = submit();
  lease(id, kAnn, "a");
  EXPECT_TRUE(send(tokens_of(id, {1, 2, 3}, "one two three")));
  lose();
  lease(id, kBob, "");
  Ledger copy{Limits{}};
  ASSERT_TRUE(copy.restore(ledger->snapshot()));
  v1::Output last = output_of(id);
  last.set_finish_reason("stop");
  *last.mutable_usage() = usage_of(13, 2);
  Proposal theirs;
  EXPECT_TRUE(copy.output(kBob, last, now, theirs));
  EXPECT_EQ(copy.find(id)->usage.completion_tokens(), 5u);
  EXPECT_TRUE(send(last, kBob));
}

TEST_F(AttemptsTest, TextWithoutIdsIsPrefilledEvenByTheOneThatMadeIt) {
  const RequestId id = submit();
  lease(id, kAnn, "upstream:far");
  v1::Output piece = output_of(id);
  piece.set_text("half");
  EXPECT_TRUE(send(piece));
  fail(id, Code::kUnavailable);
  lease(id, kAnn, "upstream:far");
  EXPECT_EQ(get(id).attempts.back().continuation(), "prefill");
  EXPECT_EQ(get(id).attempts.back().prefilled_bytes(), 4u);
}

// ---- Who broke, and who couldn't go on --------------------------------------------------------

TEST_F(AttemptsTest, AnErrorInMidAnswerNamesWhoBrokeAndWhoCouldNotGoOn) {
  const auto ending_with = [&](auto break_it) {
    const RequestId id = submit();
    lease(id, kAnn, "a");
    EXPECT_TRUE(send(tokens_of(id, {1}, "half")));
    break_it(id);
    lease(id, kBob, "b");
    ledger->take_back(kBob, last_start().assign.fence(), "it pauses", now, out);
    lease(id, kAnn, "b");
    v1::Output refusal = output_of(id);
    refusal.mutable_failure()->set_code("upstream_error");
    refusal.mutable_failure()->set_message("it can't be continued by far-1");
    EXPECT_TRUE(send(refusal));
    return get(id).failure.message();
  };
  EXPECT_EQ(ending_with([&](RequestId) { lose(); }), "killed; it can't be continued by far-1");
  EXPECT_EQ(ending_with([&](RequestId id) { fail(id, Code::kUnavailable); }),
            "it said no; it can't be continued by far-1");
  EXPECT_EQ(ending_with([&](RequestId) { ledger->start_epoch("test", now, out); }),
            "the server was restarted; it can't be continued by far-1");
  EXPECT_EQ(ending_with([&](RequestId) { ledger->worker_left(kAnn, now, out); }),
            "it can't be continued by far-1");
}

TEST_F(AttemptsTest, ARequestsOwnFaultIsSaidAlone) {
  const RequestId id = submit();
  lease(id);
  fail(id, Code::kUnavailable);
  lease(id);
  fail(id, Code::kUpstream);  // nothing had begun
  EXPECT_EQ(get(id).failure.message(), "it said no");
  const RequestId begun = submit();
  lease(begun);
  EXPECT_TRUE(send(tokens_of(begun, {1}, "half")));
  fail(begun, Code::kUnavailable);
  lease(begun);
  fail(begun, Code::kInvalidArgument);
  EXPECT_EQ(get(begun).failure.message(), "it said no");
}

// ---- Vectors come whole -----------------------------------------------------------------------

TEST_F(AttemptsTest, VectorsWithoutTheirEndAreNotKeptSoThatARetryDoesNotDoubleThem) {
  const RequestId id = submit();
  lease(id);
  v1::Output half = output_of(id);
  half.add_embeddings("0123");
  EXPECT_TRUE(send(half));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_QUEUED);
  EXPECT_EQ(get(id).attempts.back().outcome(), "engine_error");
  EXPECT_NE(get(id).attempts.back().detail().find("embeddings"), std::string::npos);
  lease(id);
  v1::Output whole = output_of(id);
  whole.add_embeddings("0123");
  whole.set_finish_reason("stop");
  EXPECT_TRUE(send(whole));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_COMPLETED);
  int vectors = 0;
  for (const v1::Record& record : out.records) {
    for (const v1::Event& event : record.appended().events()) vectors += event.embeddings_size();
  }
  EXPECT_EQ(vectors, 1);
}

}  // namespace
}  // namespace waystation::ledger
