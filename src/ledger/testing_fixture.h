// A ledger with a clock and a log, and short names for what tests do to it.
#pragma once

#include <gtest/gtest.h>

#include "ledger/testing.h"

namespace waystation::ledger::testing {

inline constexpr WorkerId kAnn{1};
inline constexpr WorkerId kBob{2};

class LedgerTest : public ::testing::Test {
 protected:
  LedgerTest() { use({}); }

  // After each test: its log, applied to a new ledger, gives the same state, and is sound.
  ~LedgerTest() override {
    Ledger replay{ledger->limits()};
    std::uint64_t index = 0;
    for (const v1::Record& record : out.records) {
      const Status status = replay.apply(record, LogIndex{++index});
      EXPECT_TRUE(status) << status.error().message;
    }
    EXPECT_EQ(bytes_of(replay.snapshot()), state());
    EXPECT_EQ(testing::Audit().read_all(out.records), "");
  }

  void use(Limits limits) {
    ledger = std::make_unique<Ledger>(limits);
    out = {};
    ledger->start_epoch("test", now, out);
  }

  v1::Envelope envelope(std::string conversation = "", std::string key = "") {
    v1::Envelope made = make_envelope(++number, now, std::move(conversation));
    made.set_idempotencykey(std::move(key));
    made.set_fingerprint("print");
    return made;
  }
  RequestId submit(v1::Envelope made, const Terms& terms) {
    const auto accepted = ledger->submit(std::move(made), terms, now, out);
    EXPECT_TRUE(accepted) << accepted.error().message;
    return accepted ? accepted->id : RequestId{};
  }
  RequestId submit(v1::Envelope made, bool stream_usage = false) {
    return submit(std::move(made), Terms{.stream_usage = stream_usage});
  }
  RequestId submit(std::string conversation = "", std::string key = "") {
    return submit(envelope(std::move(conversation), std::move(key)));
  }
  // The code of a refusal, which must leave no trace.
  Code refusal(v1::Envelope made, const Terms& terms = {}) {
    const std::string before = state();
    const std::size_t records = out.records.size();
    const auto accepted = ledger->submit(std::move(made), terms, now, out);
    EXPECT_EQ(out.records.size(), records);
    EXPECT_EQ(state(), before);
    return accepted ? Code::kInternal : accepted.error().code;
  }

  void lease(RequestId id, WorkerId worker = kAnn, std::string fingerprint = "sha") {
    const Runner runner{.worker = worker,
                        .worker_name = "worker-" + std::to_string(worker.value),
                        .fingerprint = std::move(fingerprint)};
    ledger->lease(id, runner, now, out);
  }
  v1::Output output_of(RequestId id) {
    v1::Output output;
    output.mutable_fence()->set_epoch(ledger->epoch().value);
    output.mutable_fence()->set_request(id.to_bytes());
    output.mutable_fence()->set_attempt(get(id).attempt);
    return output;
  }
  v1::Output tokens_of(RequestId id, std::vector<std::uint32_t> tokens, std::string text = "t") {
    v1::Output output = output_of(id);
    output.mutable_token_ids()->Add(tokens.begin(), tokens.end());
    output.set_text(std::move(text));
    return output;
  }
  v1::Output text_of(RequestId id, std::uint32_t choice, std::string text) {
    v1::Output output = tokens_of(id, {choice}, std::move(text));
    output.set_choice(choice);
    return output;
  }
  // The end of one choice; `more`: others go on.
  v1::Output finish_of(RequestId id, std::uint32_t choice, bool more) {
    v1::Output output = output_of(id);
    output.set_choice(choice);
    output.set_finish_reason("stop");
    output.set_more(more);
    return output;
  }
  bool send(const v1::Output& output, WorkerId worker = kAnn) {
    return ledger->output(worker, output, now, out);
  }
  void finish(RequestId id, WorkerId worker = kAnn) {
    v1::Output output = tokens_of(id, {7});
    output.set_finish_reason("stop");
    EXPECT_TRUE(send(output, worker));
  }
  void fail(RequestId id, Code code) {
    v1::Output output = output_of(id);
    output.mutable_failure()->set_code(std::string(code_name(code)));
    output.mutable_failure()->set_message("it said no");
    EXPECT_TRUE(send(output));
  }
  void lose(WorkerId worker = kAnn) { ledger->worker_lost(worker, "killed", now, out); }

  const Request& get(RequestId id) { return *ledger->find(id); }
  std::optional<RequestId> next() { return ledger->order().next("small"); }
  // All events of a request, as "START 0", "DELTA 1 text", …
  std::vector<std::string> events(RequestId id) {
    std::vector<std::string> lines;
    for (const v1::Record& record : out.records) {
      if (record.appended().request() != id.to_bytes()) continue;
      for (const v1::Event& event : record.appended().events()) {
        std::string line = v1::EventKind_Name(event.kind()).substr(sizeof("EVENT_KIND_") - 1) +
                           " " + std::to_string(event.choice());
        if (!event.text().empty()) line += " " + event.text();
        if (!event.finish_reason().empty()) line += " " + event.finish_reason();
        lines.push_back(std::move(line));
      }
    }
    return lines;
  }
  std::string state() { return bytes_of(ledger->snapshot()); }
  const StartWork& last_start() { return std::get<StartWork>(out.effects.back()); }
  const StopWork& last_stop() { return std::get<StopWork>(out.effects.back()); }

  TimeMs now = kStartMs;
  std::uint64_t number = 0;
  std::unique_ptr<Ledger> ledger;
  Proposal out;
};

}  // namespace waystation::ledger::testing
