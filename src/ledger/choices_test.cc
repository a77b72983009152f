// Requests with several choices, and what an answer has besides text. The names are the rules.
#include <gtest/gtest.h>

#include "ledger/testing_fixture.h"
#include "base/utf8.h"

namespace waystation::ledger {
namespace {

using testing::bytes_of;
using testing::kAnn;
using testing::kBob;
using Lines = std::vector<std::string>;

class ChoicesTest : public testing::LedgerTest {
 protected:
  RequestId submit_choices(std::uint32_t choices, bool stream_usage = false) {
    return submit(envelope(), Terms{.stream_usage = stream_usage, .choices = choices});
  }
  const v1::Attempt& last_attempt(RequestId id) { return get(id).attempts.back(); }
  // The attempt was ended here, for the worker's fault; `told`: it was told to stop.
  void expect_fault(RequestId id, std::uint32_t failed, bool told) {
    EXPECT_EQ(get(id).state, v1::REQUEST_STATE_QUEUED);
    EXPECT_EQ(last_attempt(id).outcome(), "engine_error");
    EXPECT_EQ(get(id).failed_attempts, failed);
    EXPECT_FALSE(get(id).suspect);  // the worker lives
    EXPECT_EQ(std::holds_alternative<StopWork>(out.effects.back()), told);
    if (told) {
      EXPECT_EQ(last_stop().fence.attempt(), last_attempt(id).number());
    }
  }
};

// ---- Order --------------------------------------------------------------------------------------

TEST_F(ChoicesTest, AllStartsComeFirstThenTheChoicesMixedThenTheUsage) {
  const RequestId id = submit_choices(2, true);
  lease(id);
  EXPECT_EQ(last_start().assign.choices(), 2u);
  v1::Output first = text_of(id, 1, "b");
  first.set_started(true);
  first.set_prompt_tokens(5);
  EXPECT_TRUE(send(first));
  EXPECT_TRUE(send(text_of(id, 0, "a")));
  EXPECT_TRUE(send(finish_of(id, 1, true)));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_RUNNING);
  EXPECT_TRUE(send(text_of(id, 0, "aa")));
  EXPECT_TRUE(send(finish_of(id, 0, false)));
  EXPECT_EQ(events(id), (Lines{"START 0", "START 1", "DELTA 1 b", "DELTA 0 a", "FINISH 1 stop",
                               "DELTA 0 aa", "FINISH 0 stop", "USAGE 0"}));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(get(id).usage.prompt_tokens(), 5u);  // once, not for each choice
  EXPECT_EQ(get(id).usage.completion_tokens(), 3u);
  EXPECT_EQ(out.effects.size(), 1u);  // nobody to stop
}

TEST_F(ChoicesTest, AChoiceThatSaysNothingStillHasItsStartAndFinish) {
  const RequestId id = submit_choices(3);
  lease(id);
  EXPECT_TRUE(send(finish_of(id, 2, true)));
  EXPECT_TRUE(send(finish_of(id, 0, true)));
  v1::Output last = finish_of(id, 1, false);
  last.set_finish_reason("length");
  EXPECT_TRUE(send(last));
  EXPECT_EQ(events(id), (Lines{"START 0", "START 1", "START 2", "FINISH 2 stop", "FINISH 0 stop",
                               "FINISH 1 length"}));
  EXPECT_EQ(get(id).finish_reason, "stop");  // the first choice's
}

TEST_F(ChoicesTest, ARequestHasOneToFourThousandChoices) {
  EXPECT_EQ(refusal(envelope(), Terms{.choices = 0}), Code::kInvalidArgument);
  EXPECT_EQ(refusal(envelope(), Terms{.choices = kChoicesMax + 1}), Code::kInvalidArgument);
  const auto refused = ledger->submit(envelope(), Terms{.choices = 0}, now, out);
  EXPECT_EQ(refused.error().param, "n");
  submit_choices(kChoicesMax);
}

TEST_F(ChoicesTest, ARecordWithAChoiceTooManyDoesNotFit) {
  const RequestId id = submit_choices(2);
  lease(id);
  for (const std::uint32_t choice : {1u, 2u, ~0u}) {
    Ledger victim{Limits{}};
    ASSERT_TRUE(victim.restore(ledger->snapshot()));
    v1::Record record;
    record.set_time_ms(now);
    v1::Appended& appended = *record.mutable_appended();
    appended.set_request(id.to_bytes());
    appended.set_attempt(1);
    appended.add_events()->set_choice(choice);
    EXPECT_EQ(victim.apply(record, LogIndex{out.records.size() + 1}).has_value(), choice < 2);
    EXPECT_EQ(victim.find(id)->event_count, choice < 2 ? 1u : 0u);
  }
}

// ---- Workers that break the rules ---------------------------------------------------------------

TEST_F(ChoicesTest, WritingToAChoiceThatIsNotThereIsTheWorkersFault) {
  const RequestId id = submit_choices(2);
  lease(id);
  EXPECT_TRUE(send(text_of(id, 2, "x")));
  expect_fault(id, 1, true);
  EXPECT_TRUE(events(id).empty());
  lease(id);
  EXPECT_TRUE(send(finish_of(id, 7, false)));
  expect_fault(id, 2, false);  // it said itself that it has ended
  lease(id);
  EXPECT_TRUE(send(finish_of(id, 7, true)));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_DEAD);
  EXPECT_EQ(last_stop().fence.attempt(), 3u);
}

TEST_F(ChoicesTest, NothingFollowsAChoicesFinish) {
  const RequestId id = submit_choices(2);
  lease(id);
  EXPECT_TRUE(send(finish_of(id, 0, true)));
  EXPECT_TRUE(send(text_of(id, 0, "more")));
  expect_fault(id, 1, true);
  lease(id);
  EXPECT_TRUE(send(finish_of(id, 0, true)));  // twice
  expect_fault(id, 2, true);
  EXPECT_EQ(events(id), (Lines{"START 0", "START 1", "FINISH 0 stop"}));
}

TEST_F(ChoicesTest, EndingBeforeEveryChoiceHasFinishedIsTheWorkersFault) {
  const RequestId id = submit_choices(2);
  lease(id);
  EXPECT_TRUE(send(finish_of(id, 1, false)));
  expect_fault(id, 1, false);
  // What it brought is kept: the next attempt has only the other choice to do.
  lease(id);
  ASSERT_EQ(last_start().assign.resume_size(), 2);
  EXPECT_EQ(last_start().assign.resume(1).finish_reason(), "stop");
  EXPECT_EQ(last_start().assign.resume(0).ByteSizeLong(), 0u);
  EXPECT_TRUE(send(finish_of(id, 0, false)));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_COMPLETED);
}

TEST_F(ChoicesTest, WhatIsNotUtf8IsTheWorkersFaultSinceItCouldNotBeReadBack) {
  const std::string bad = "\xe9\xa9";  // a piece of a character
  const RequestId id = submit_choices(1);
  lease(id);
  EXPECT_TRUE(send(text_of(id, 0, bad)));
  expect_fault(id, 1, true);
  lease(id);
  v1::Output call = output_of(id);
  call.add_tool_calls()->set_arguments(bad);
  EXPECT_TRUE(send(call));
  expect_fault(id, 2, true);
  lease(id);
  v1::Output failed = output_of(id);
  failed.mutable_failure()->set_code("too_large");
  failed.mutable_failure()->set_message(bad);
  EXPECT_TRUE(send(failed));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_FAILED);
  EXPECT_EQ(get(id).failure.code(), "too_large");
  for (const v1::Record& record : out.records) {
    EXPECT_TRUE(v1::Record().ParseFromString(record.SerializeAsString()));
  }
}

TEST(Utf8Test, IsAsRfc3629HasIt) {
  for (const char* good : {"", "a", "é", "驿", "😀", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf",
                           "\xee\x80\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80", "a驿b"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  for (const char* bad :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe9\xa9",
        "\xe9\xa9"
        "a",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xf0\x9f\x98"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
  EXPECT_TRUE(is_utf8(std::string_view("\0a", 2)));
}

TEST_F(ChoicesTest, MoreAfterTheLastFinishIsNotWaitedFor) {
  const RequestId id = submit_choices(1);
  lease(id);
  EXPECT_TRUE(send(finish_of(id, 0, true)));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(last_stop().fence.request(), id.to_bytes());  // so that its credit comes back
}

TEST_F(ChoicesTest, WhatIsSaidOfTheWholeAttemptWritesToNoChoice) {
  const RequestId id = submit_choices(2);
  lease(id);
  EXPECT_TRUE(send(finish_of(id, 0, true)));
  // Choice 0 is the field's default: a dropped attempt isn't an offence against it.
  v1::Output dropped = output_of(id);
  dropped.set_dropped(true);
  EXPECT_TRUE(send(dropped));
  EXPECT_EQ(last_attempt(id).outcome(), "returned");
  EXPECT_EQ(get(id).failed_attempts, 0u);
  lease(id);
  v1::Output started = output_of(id);
  started.set_started(true);
  EXPECT_TRUE(send(started));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_RUNNING);
  EXPECT_TRUE(send(text_of(id, 1, "b")));
  EXPECT_TRUE(send(finish_of(id, 1, false)));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_COMPLETED);
}

// ---- Going on -----------------------------------------------------------------------------------

TEST_F(ChoicesTest, EachChoiceGoesOnFromWhereItWas) {
  const RequestId id = submit_choices(3);
  lease(id);
  EXPECT_TRUE(send(text_of(id, 0, "a")));
  EXPECT_TRUE(send(text_of(id, 2, "c")));
  EXPECT_TRUE(send(finish_of(id, 2, true)));
  lose();
  lease(id, kBob);
  const v1::Assign& assign = last_start().assign;
  ASSERT_EQ(assign.resume_size(), 3);
  EXPECT_EQ(assign.resume(0).text(), "a");
  EXPECT_EQ(assign.resume(0).token_ids_size(), 1);
  EXPECT_EQ(assign.resume(0).finish_reason(), "");
  EXPECT_EQ(assign.resume(1).ByteSizeLong(), 0u);
  EXPECT_EQ(assign.resume(2).text(), "c");
  EXPECT_EQ(assign.resume(2).finish_reason(), "stop");
  EXPECT_EQ(last_attempt(id).continuation(), "exact");
  EXPECT_EQ(last_attempt(id).resumed_tokens(), 2u);
  EXPECT_TRUE(send(finish_of(id, 1, true), kBob));
  EXPECT_TRUE(send(finish_of(id, 0, false), kBob));
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_COMPLETED);
}

TEST_F(ChoicesTest, AnAttemptThatOnlyFinishedAChoiceHasBegun) {
  const RequestId id = submit_choices(2);
  lease(id);
  EXPECT_TRUE(send(finish_of(id, 1, true)));
  EXPECT_TRUE(get(id).begun());
  lose();
  EXPECT_EQ(get(id).failed_attempts, 1u);  // but it brought no token
  lease(id);
  EXPECT_EQ(last_start().assign.resume_size(), 2);
  EXPECT_EQ(last_attempt(id).continuation(), "exact");
}

TEST_F(ChoicesTest, ALogCutBeforeTheEndOfSeveralChoicesGetsItAtTheNextStart) {
  const RequestId id = submit_choices(2);
  lease(id);
  v1::Output last = finish_of(id, 0, true);
  last.set_finish_reason("length");
  EXPECT_TRUE(send(last));
  const std::vector<v1::Record> half = out.records;
  EXPECT_TRUE(send(finish_of(id, 1, false)));
  ASSERT_TRUE(out.records.back().has_settled());
  const auto restart_on = [&](std::vector<v1::Record> log) {
    ledger = std::make_unique<Ledger>(Limits{});
    for (std::size_t i = 0; i < log.size(); ++i) {
      ASSERT_TRUE(ledger->apply(log[i], LogIndex{i + 1}));
    }
    out = {std::move(log), {}};
    ledger->start_epoch("test", now, out);
  };
  restart_on({out.records.begin(), out.records.end() - 1});
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_COMPLETED);
  EXPECT_EQ(get(id).finish_reason, "length");
  restart_on(half);  // only one had finished
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_QUEUED);
  lease(id);
  EXPECT_EQ(last_start().assign.resume(0).finish_reason(), "length");
}

// ---- More than text -----------------------------------------------------------------------------

TEST_F(ChoicesTest, PiecesOfAToolCallAreJoinedByIndex) {
  const RequestId id = submit_choices(1);
  lease(id);
  const auto call = [&](std::uint32_t index, const char* call_id, const char* name,
                        const char* arguments) {
    v1::Output output = output_of(id);
    v1::ToolCallDelta& delta = *output.add_tool_calls();
    delta.set_index(index);
    delta.set_id(call_id);
    delta.set_name(name);
    delta.set_arguments(arguments);
    EXPECT_TRUE(send(output));
  };
  call(0, "call_a", "weather", "{\"city\":");
  call(1, "call_b", "time", "");
  call(0, "", "", "\"Oslo\"}");
  call(1, "", "", "{}");
  v1::Output thinking = output_of(id);
  thinking.set_reasoning("perhaps");
  EXPECT_TRUE(send(thinking));
  lose();
  EXPECT_EQ(get(id).failed_attempts, 0u);  // all of that is progress
  lease(id);
  const v1::ChoiceProgress& resume = last_start().assign.resume(0);
  ASSERT_EQ(resume.tool_calls_size(), 2);
  EXPECT_EQ(resume.tool_calls(0).id(), "call_a");
  EXPECT_EQ(resume.tool_calls(0).name(), "weather");
  EXPECT_EQ(resume.tool_calls(0).arguments(), "{\"city\":\"Oslo\"}");
  EXPECT_EQ(resume.tool_calls(1).id(), "call_b");
  EXPECT_EQ(resume.tool_calls(1).arguments(), "{}");
  EXPECT_EQ(resume.reasoning(), "perhaps");
  v1::Output last = finish_of(id, 0, false);
  last.set_finish_reason("tool_calls");
  EXPECT_TRUE(send(last));
  EXPECT_EQ(get(id).finish_reason, "tool_calls");
  EXPECT_TRUE(get(id).choices.empty());  // the answer stands in the journal
}

TEST_F(ChoicesTest, ReasoningTokensAndLogprobsAreKeptWithTheirDelta) {
  const RequestId id = submit_choices(1, true);
  lease(id);
  v1::Output output = tokens_of(id, {1, 2, 3}, "");
  output.set_reasoning("hm");
  output.set_reasoning_tokens(3);
  output.add_logprobs()->set_token("h");
  EXPECT_TRUE(send(output));
  const v1::Event& delta = out.records.back().appended().events(1);
  EXPECT_EQ(delta.reasoning(), "hm");
  EXPECT_EQ(delta.logprobs(0).token(), "h");
  finish(id);
  EXPECT_EQ(get(id).usage.reasoning_tokens(), 3u);
  EXPECT_EQ(get(id).usage.completion_tokens(), 4u);
}

TEST_F(ChoicesTest, EmbeddingsAreOneDelta) {
  const RequestId id = submit_choices(1);
  lease(id);
  v1::Output output = finish_of(id, 0, false);
  output.set_prompt_tokens(9);
  output.add_embeddings(std::string("\0\0\x80\x3f", 4));
  output.add_embeddings(std::string("\0\0\0\0", 4));
  EXPECT_TRUE(send(output));
  EXPECT_EQ(events(id), (Lines{"START 0", "DELTA 0", "FINISH 0 stop"}));
  const v1::Appended& appended = out.records[out.records.size() - 2].appended();
  EXPECT_EQ(appended.events(1).embeddings_size(), 2);
  EXPECT_EQ(get(id).usage.prompt_tokens(), 9u);
  EXPECT_EQ(get(id).usage.completion_tokens(), 0u);
}

TEST_F(ChoicesTest, AWorkersOwnCountsTakeThePlaceOfOurs) {
  const RequestId id = submit_choices(2, true);
  lease(id);
  EXPECT_TRUE(send(text_of(id, 0, "a")));
  EXPECT_TRUE(send(finish_of(id, 0, true)));
  v1::Output last = finish_of(id, 1, false);
  last.mutable_usage()->set_prompt_tokens(100);
  last.mutable_usage()->set_completion_tokens(50);
  last.mutable_usage()->set_reasoning_tokens(20);
  EXPECT_TRUE(send(last));
  const v1::Appended& appended = out.records[out.records.size() - 2].appended();
  EXPECT_EQ(appended.events(1).kind(), v1::EVENT_KIND_USAGE);
  EXPECT_EQ(appended.events(1).usage().completion_tokens(), 50u);
  EXPECT_EQ(get(id).usage.prompt_tokens(), 100u);
  EXPECT_EQ(get(id).usage.reasoning_tokens(), 20u);
}

TEST_F(ChoicesTest, TheFailureOfAnUpstreamIsFinal) {
  const RequestId id = submit_choices(2);
  lease(id);
  EXPECT_TRUE(send(text_of(id, 0, "a")));
  fail(id, Code::kUpstream);
  EXPECT_EQ(get(id).state, v1::REQUEST_STATE_FAILED);
  EXPECT_EQ(get(id).failure.code(), "upstream_error");
}

}  // namespace
}  // namespace waystation::ledger
