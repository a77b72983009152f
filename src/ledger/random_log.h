// Makes long valid logs by doing random things to a ledger.
#pragma once

#include "base/check.h"
#include "ledger/testing.h"

namespace waystation::ledger::testing {

class RandomLog {
 public:
  RandomLog(Ledger& ledger, Random& random, std::vector<v1::Record>& log, TimeMs& now_ms,
            std::uint64_t& number)
      : ledger_(ledger), random_(random), log_(log), now_ms_(now_ms), number_(number) {}

  void start_epoch() {
    Proposal out;
    ledger_.start_epoch("test", now_ms_, out);
    take(out);
  }

  void step() {
    now_ms_ += static_cast<TimeMs>(random_.below(20));
    Proposal out;
    switch (random_.below(17)) {
      case 0:
      case 1:
      case 2:
        submit(out);
        break;
      case 3:
      case 4:
      case 5:
      case 6:
        lease(out);
        break;
      case 7:
        ledger_.worker_lost(worker(), "lost", now_ms_, out);
        break;
      case 8:
        if (const auto ids = ledger_.live(); !ids.empty() && random_.one_in(3)) {
          const RequestId id = random_.pick(ids);
          if (random_.one_in(3)) {
            ledger_.erase(id, "deleted", now_ms_, out);
          } else {
            ledger_.cancel(id, "cancelled", now_ms_, out);
          }
        }
        break;
      case 9:
        ledger_.expire(now_ms_, out);
        break;
      case 10:
        if (random_.one_in(3))
          ledger_.forget(now_ms_, LogIndex{random_.below(log_.size())}, 3, out);
        break;
      case 11:
        carry(out);
        break;
      case 12:
        if (random_.one_in(2)) deal_with_letter(out);
        break;
      default:
        output(random_.below(8), out);
        break;
    }
    take(out);
  }

  // Runs everything to its end.
  void drain() {
    for (int round = 0; round < 10'000 && !ledger_.live().empty(); ++round) {
      Proposal out;
      release_lanes(out);
      lease(out);
      output(0, out);
      take(out);
    }
    Proposal out;
    release_lanes(out);
    take(out);
  }

 private:
  WorkerId worker() { return WorkerId{1 + random_.below(3)}; }

  void take(Proposal& out) {
    for (v1::Record& record : out.records) log_.push_back(std::move(record));
  }

  void submit(Proposal& out) {
    v1::Envelope envelope = make_envelope(++number_, now_ms_);
    envelope.set_tenant(random_.one_in(4) ? "other" : "acme");
    envelope.set_model(random_.one_in(4) ? "large" : "small");
    if (!random_.one_in(3)) envelope.set_partitionkey("talk" + std::to_string(random_.below(3)));
    if (random_.one_in(3)) envelope.set_idempotencykey("key" + std::to_string(random_.below(9)));
    if (random_.one_in(5)) {
      envelope.set_expirytime_ms(now_ms_ + 1 + static_cast<TimeMs>(random_.below(500)));
    }
    envelope.set_priority(static_cast<std::int32_t>(random_.below(3)) - 1);
    const Terms terms{.detached = random_.one_in(2),
                      .stream_usage = random_.one_in(2),
                      .choices = 1 + static_cast<std::uint32_t>(random_.below(3)),
                      .compose = random_.one_in(4),
                      .locked = random_.one_in(6),
                      .block_on_dead = random_.one_in(2)};
    (void)ledger_.submit(envelope, terms, now_ms_, out);
  }

  void lease(Proposal& out) {
    const auto models = ledger_.order().models();
    if (models.empty()) return;
    const Runner runner{.worker = worker(),
                        .worker_name = "w",
                        .model = random_.one_in(6) ? "another" : "",
                        .fingerprint = random_.pick<std::string>({"a", "a", "b", ""})};
    ledger_.lease(*ledger_.order().next(random_.pick(models)), runner, now_ms_, out);
  }

  void release_lanes(Proposal& out) {
    for (const RequestId id : ledger_.blocking()) {
      CHECK(ledger_.discard(id, now_ms_, out));
    }
  }

  void deal_with_letter(Proposal& out) {
    const auto letters = ledger_.dead_letters("acme", std::nullopt, 20);
    if (letters->empty()) return;
    const Request& letter = *random_.pick(*letters);
    if (random_.one_in(3)) {
      (void)ledger_.discard(letter.id, now_ms_, out);
      return;
    }
    v1::Envelope envelope = make_envelope(0, now_ms_, letter.conversation, letter.tenant);
    envelope.set_model(letter.model);
    envelope.set_priority(letter.priority);
    const RequestId new_id = RequestId::make(now_ms_, 0, ++number_);
    (void)ledger_.requeue(letter.id, std::move(envelope), new_id, now_ms_, out);
  }

  void carry(Proposal& out) {
    std::vector<const v1::RequestSnapshot*> all;
    const v1::LedgerSnapshot snapshot = ledger_.snapshot();
    for (const auto& request : snapshot.requests()) all.push_back(&request);
    if (all.empty()) return;
    const v1::RequestSnapshot& request = *random_.pick(all);
    if (request.event_count() > 1'000'000) return;  // a damaged checkpoint says so
    std::vector<v1::Event> events(request.event_count());
    ledger_.carry(*RequestId::from_bytes(request.id()), events, std::nullopt, now_ms_, out);
  }

  // Of a random running request. `kind` 0: the finish of a choice.
  void output(std::uint64_t kind, Proposal& out) {
    std::vector<const Request*> running;
    for (const RequestId id : ledger_.live()) {
      const Request* request = ledger_.find(id);
      if (request->state == v1::REQUEST_STATE_RUNNING) running.push_back(request);
    }
    if (running.empty()) return;
    const Request& request = *random_.pick(running);
    std::vector<std::uint32_t> open;
    for (std::uint32_t choice = 0; choice < request.choice_count; ++choice) {
      if (request.choices[choice].finish_reason.empty()) open.push_back(choice);
    }
    v1::Output output;
    output.mutable_fence()->set_epoch(ledger_.epoch().value);
    output.mutable_fence()->set_request(request.id.to_bytes());
    output.mutable_fence()->set_attempt(request.attempt);
    output.set_choice(open.empty() ? 0 : random_.pick(open));
    if (random_.one_in(40)) output.set_choice(static_cast<std::uint32_t>(random_.below(4)));
    if (kind == 0) {
      output.set_finish_reason("stop");
      output.set_more(open.size() > 1 || random_.one_in(40));
      if (random_.one_in(40)) output.set_more(false);
      if (random_.one_in(8)) output.mutable_usage()->set_completion_tokens(9);
    }
    if (kind == 1) output.mutable_failure()->set_code(random_.one_in(4) ? "too_large" : "internal");
    if (kind == 2) output.set_dropped(true);
    if (kind == 3) output.set_started(true);
    if (kind > 3 || random_.one_in(2)) {
      output.add_token_ids(static_cast<std::uint32_t>(random_.below(1000)));
      output.set_text("word");
    }
    if (random_.one_in(12)) {
      v1::ToolCallDelta& call = *output.add_tool_calls();
      call.set_index(static_cast<std::uint32_t>(random_.below(2)));
      call.set_arguments("{}");
    }
    if (random_.one_in(12)) output.set_reasoning("hm");
    if (random_.one_in(40)) {
      ledger_.take_back(request.worker, output.fence(), "never sent", now_ms_, out);
    }
    (void)ledger_.output(request.worker, output, now_ms_, out);
  }

  Ledger& ledger_;
  Random& random_;
  std::vector<v1::Record>& log_;
  TimeMs& now_ms_;
  std::uint64_t& number_;
};

}  // namespace waystation::ledger::testing
