// Random operations against a naive model (model.h), and I7: the same records, the same state.
// WAYSTATION_SEED=n replays one run, WAYSTATION_SEEDS=n makes n of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "ledger/model.h"
#include "ledger/random_log.h"

namespace waystation::ledger {
namespace {

using testing::Audit;
using testing::bytes_of;
using testing::kStartMs;
using testing::make_envelope;
using testing::Model;
using testing::ModelRequest;
using testing::Random;

constexpr Limits kSmall{.live_requests_max = 18,
                        .live_bytes_max = 60,
                        .lane_requests_max = 4,
                        .attempts_max = 3,
                        .idempotency_ttl_ms = 500,
                        .retain_ms = 300};
constexpr int kSteps = 3000;
const std::vector<std::string> kModels = {"small", "large"};

std::unique_ptr<Ledger> replayed(const std::vector<v1::Record>& log, std::size_t count) {
  auto ledger = std::make_unique<Ledger>(kSmall);
  for (std::size_t i = 0; i < count; ++i) {
    const Status status = ledger->apply(log[i], LogIndex{i + 1});
    EXPECT_TRUE(status) << "record " << i + 1 << ": " << status.error().message;
  }
  return ledger;
}

// One run: each command goes to the ledger, to a twin that was made from its snapshot, and to the
// model; all three must agree.
class RandomRun {
 public:
  explicit RandomRun(std::uint64_t seed) : random_(seed) {
    ledger_ = std::make_unique<Ledger>(kSmall);
    twin_ = std::make_unique<Ledger>(kSmall);
    start_epoch();
  }

  void step() {
    now_ms_ += static_cast<TimeMs>(random_.below(12));
    if (random_.one_in(50)) now_ms_ -= 40;  // a wall clock may
    switch (random_.below(31)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
        submit();
        break;
      case 6:
      case 7:
      case 8:
      case 9:
      case 10:
        lease();
        break;
      case 11:
        lose_worker();
        break;
      case 12:
        cancel();
        break;
      case 13:
        expire();
        break;
      case 14:
        forget();
        break;
      case 15:
        carry();
        break;
      case 16:
        if (random_.one_in(8)) start_epoch();
        if (random_.one_in(8)) crash();
        break;
      case 17:
        take_back();
        break;
      case 18:
        if (random_.one_in(3)) erase();
        break;
      case 19:
        requeue();
        break;
      case 20:
        if (random_.one_in(2)) discard();
        break;
      default:
        output();
        break;
    }
    if (random_.one_in(100)) renew_twin();
    if (random_.one_in(200)) check_replay();
    history_.push_back({model_, log_.size(), now_ms_});
    if (history_.size() > 20) history_.pop_front();
    check();
  }

 private:
  template <typename Command>
  void both(Command command) {
    Proposal out;
    Proposal twin_out;
    command(*ledger_, out);
    command(*twin_, twin_out);
    EXPECT_EQ(bytes_of(out), bytes_of(twin_out)) << "a restored ledger went another way";
    for (const v1::Record& record : out.records) {
      EXPECT_EQ(audit_.read(record), "") << record.DebugString();
      log_.push_back(record);
    }
    effects_ = std::move(out.effects);
  }

  ModelRequest* any(bool (*which)(const ModelRequest&)) {
    std::vector<ModelRequest*> all;
    for (ModelRequest& request : model_.requests) {
      if (which(request)) all.push_back(&request);
    }
    return all.empty() ? nullptr : random_.pick(all);
  }
  static bool is_running(const ModelRequest& request) {
    return request.state == v1::REQUEST_STATE_RUNNING;
  }
  static RequestId id_of(const ModelRequest& request) { return *RequestId::from_bytes(request.id); }

  void start_epoch() {
    model_.start_epoch(now_ms_);
    both([&](Ledger& ledger, Proposal& out) { ledger.start_epoch("test", now_ms_, out); });
  }

  void submit() {
    v1::Envelope envelope = make_envelope(++number_, now_ms_);
    envelope.set_tenant(random_.one_in(3) ? "other" : "acme");
    envelope.set_model(random_.pick(kModels));
    envelope.set_data(std::string(random_.below(12), 'x'));
    if (!random_.one_in(3)) envelope.set_partitionkey("talk" + std::to_string(random_.below(3)));
    if (random_.one_in(3)) envelope.set_idempotencykey("key" + std::to_string(random_.below(5)));
    envelope.set_fingerprint(random_.one_in(4) ? "b" : "a");
    if (random_.one_in(4)) {
      envelope.set_expirytime_ms(now_ms_ - 10 + static_cast<TimeMs>(random_.below(300)));
    }
    envelope.set_priority(static_cast<std::int32_t>(random_.below(3)) - 1);
    Terms terms{.detached = random_.one_in(2),
                .stream_usage = random_.one_in(2),
                .choices = 1 + static_cast<std::uint32_t>(random_.below(3)),
                .compose = random_.one_in(4),
                .locked = random_.one_in(4),
                .block_on_dead = random_.one_in(2)};
    if (random_.one_in(40)) terms.choices = random_.one_in(2) ? 0 : kChoicesMax + 1;
    const Model::Answer expected = model_.submit(envelope, terms, now_ms_, kSmall);
    both([&](Ledger& ledger, Proposal& out) {
      const auto accepted = ledger.submit(envelope, terms, now_ms_, out);
      ASSERT_EQ(accepted.has_value(), !expected.refused) << "a refusal or not";
      if (!accepted) {
        EXPECT_EQ(accepted.error().code, expected.code);
      } else {
        EXPECT_EQ(accepted->duplicate, !expected.duplicate.empty());
        EXPECT_EQ(accepted->duplicate ? accepted->id.to_bytes() : "", expected.duplicate);
      }
    });
  }

  void lease() {
    const auto next = ledger_->order().next(random_.pick(kModels));
    if (!next) return;
    const Runner runner{.worker = WorkerId{1 + random_.below(4)},
                        .model = random_.one_in(5) ? "another" : "",
                        .fingerprint = random_.pick<std::string>({"a", "a", "a", "b", ""})};
    both([&](Ledger& ledger, Proposal& out) { ledger.lease(*next, runner, now_ms_, out); });
    ModelRequest& request = *model_.by_id(next->to_bytes());
    model_.lease(request, runner.worker.value, runner.fingerprint, now_ms_);
    ASSERT_EQ(effects_.size(), 1u);
    const auto* start = std::get_if<StartWork>(&effects_[0]);
    ASSERT_TRUE(start != nullptr);
    EXPECT_EQ(start->worker, runner.worker);
    const v1::Assign& assign = start->assign;
    EXPECT_EQ(assign.envelope().data(), request.envelope.data());
    EXPECT_EQ(assign.model(), runner.model.empty() ? request.envelope.model() : runner.model);
    EXPECT_EQ(assign.choices(), request.choices);
    ASSERT_EQ(assign.resume_size(), request.begun() ? static_cast<int>(request.choices) : 0);
    for (int choice = 0; choice < assign.resume_size(); ++choice) {
      EXPECT_EQ(assign.resume(choice).DebugString(),
                request.progress(static_cast<std::uint32_t>(choice)).DebugString());
    }
  }

  // What a worker may send, and what only a broken one sends.
  v1::Output make_output(const ModelRequest& request) {
    v1::Output output;
    output.mutable_fence()->set_epoch(model_.epoch - (random_.one_in(30) ? 1 : 0));
    output.mutable_fence()->set_request(request.id);
    output.mutable_fence()->set_attempt(request.attempt - (random_.one_in(30) ? 1 : 0));
    std::vector<std::uint32_t> open;
    for (std::uint32_t choice = 0; choice < request.choices; ++choice) {
      if (!request.finished(choice)) open.push_back(choice);
    }
    if (random_.one_in(3)) {
      output.set_started(true);
      output.set_prompt_tokens(static_cast<std::uint32_t>(random_.below(100)));
      output.set_cached_prompt_tokens(static_cast<std::uint32_t>(random_.below(9)));
    }
    if (!open.empty()) output.set_choice(random_.pick(open));
    if (random_.one_in(25)) output.set_choice(static_cast<std::uint32_t>(random_.below(5)));
    for (std::uint64_t i = random_.below(3); i > 0; --i) {
      output.add_token_ids(static_cast<std::uint32_t>(random_.below(100)));
    }
    if (random_.one_in(2)) output.set_text("word");
    if (random_.one_in(6)) output.set_reasoning("hm");
    if (random_.one_in(6))
      output.set_reasoning_tokens(static_cast<std::uint32_t>(random_.below(4)));
    for (std::uint64_t i = random_.one_in(6) ? 2 : 0; i > 0; --i) {
      v1::ToolCallDelta& call = *output.add_tool_calls();
      call.set_index(static_cast<std::uint32_t>(random_.below(3)));
      if (random_.one_in(3)) call.set_id("call_" + std::to_string(random_.below(9)));
      if (random_.one_in(3)) call.set_name("f");
      if (random_.one_in(2)) call.set_arguments("{\"a\":");
    }
    if (random_.one_in(4)) output.set_text_tokens(1 + static_cast<std::uint32_t>(random_.below(3)));
    if (random_.one_in(20)) output.add_embeddings("\x01\x02\x03\x04");
    if (random_.one_in(6)) output.add_logprobs()->set_logprob(-1);
    switch (random_.below(12)) {
      case 0:
      case 1:
      case 2:
        output.set_finish_reason(random_.one_in(2) ? "stop" : "tool_calls");
        output.set_more(open.size() > 1);
        break;
      case 3:
        output.mutable_failure()->set_code("internal");
        break;
      case 4:
        if (random_.one_in(2)) output.mutable_failure()->set_code("invalid_argument");
        break;
      case 5:
        output.set_dropped(true);
        break;
      default:
        break;
    }
    if (random_.one_in(25)) output.set_more(!output.more());
    if (random_.one_in(8)) {
      output.mutable_usage()->set_prompt_tokens(static_cast<std::uint32_t>(random_.below(50)));
      output.mutable_usage()->set_completion_tokens(static_cast<std::uint32_t>(random_.below(50)));
    }
    return output;
  }

  void output() {
    ModelRequest* request =
        random_.one_in(10) ? any([](const ModelRequest&) { return true; }) : any(is_running);
    if (request == nullptr) return;
    const v1::Output output = make_output(*request);
    const std::uint64_t worker = random_.one_in(30) ? 9 : request->worker;
    const Model::Heard expected = model_.output(worker, output, now_ms_, kSmall);
    both([&](Ledger& ledger, Proposal& out) {
      EXPECT_EQ(ledger.output(WorkerId{worker}, output, now_ms_, out), expected.heard);
    });
    ASSERT_EQ(effects_.size(), expected.stop ? 1u : 0u);
    if (!expected.stop) return;
    const auto* stop = std::get_if<StopWork>(&effects_[0]);
    ASSERT_TRUE(stop != nullptr);
    EXPECT_EQ(stop->worker.value, worker);
    EXPECT_EQ(stop->fence.SerializeAsString(), output.fence().SerializeAsString());
  }

  void take_back() {
    ModelRequest* request = any(is_running);
    if (request == nullptr) return;
    const WorkerId worker{request->worker};
    std::vector<std::string> fences;
    for (const v1::Fence& fence : ledger_->running_on(worker)) fences.push_back(fence.request());
    std::vector<std::string> expected;
    for (const ModelRequest& other : model_.requests) {
      if (is_running(other) && other.worker == worker.value) expected.push_back(other.id);
    }
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(fences, expected);
    v1::Fence fence = make_output(*request).fence();  // sometimes not the current one
    model_.take_back(worker.value, fence, now_ms_, kSmall);
    both([&](Ledger& ledger, Proposal& out) {
      ledger.take_back(worker, fence, "never sent", now_ms_, out);
    });
  }

  void lose_worker() {
    const WorkerId worker{1 + random_.below(4)};
    model_.worker_lost(worker.value, now_ms_, kSmall);
    both([&](Ledger& ledger, Proposal& out) { ledger.worker_lost(worker, "lost", now_ms_, out); });
  }

  void cancel() {
    ModelRequest* request = any([](const ModelRequest&) { return true; });
    if (request == nullptr) return;
    model_.cancel(*request, now_ms_);
    both([&](Ledger& ledger, Proposal& out) { ledger.cancel(id_of(*request), "", now_ms_, out); });
  }

  void erase() {
    ModelRequest* request = any([](const ModelRequest&) { return true; });
    if (request == nullptr) return;
    model_.erase(*request, now_ms_);
    both([&](Ledger& ledger, Proposal& out) { ledger.erase(id_of(*request), "", now_ms_, out); });
  }

  // Mostly a dead one, and mostly one that nobody has dealt with.
  ModelRequest* any_letter() {
    if (random_.one_in(8)) return any([](const ModelRequest&) { return true; });
    if (random_.one_in(4)) {
      return any([](const ModelRequest& r) { return r.state == v1::REQUEST_STATE_DEAD; });
    }
    return any([](const ModelRequest& request) { return request.letter(); });
  }

  void requeue() {
    ModelRequest* letter = any_letter();
    if (letter == nullptr || letter->erased) return;
    const v1::Envelope envelope = letter->envelope;
    const RequestId id = id_of(*letter);
    const RequestId new_id = RequestId::make(now_ms_, 0, ++number_);
    const Model::Answer expected =
        model_.requeue(id.to_bytes(), new_id.to_bytes(), now_ms_, kSmall);
    both([&](Ledger& ledger, Proposal& out) {
      const auto made = ledger.requeue(id, envelope, new_id, now_ms_, out);
      ASSERT_EQ(made.has_value(), !expected.refused);
      if (!made) {
        EXPECT_EQ(made.error().code, expected.code);
        return;
      }
      EXPECT_EQ(made->duplicate, !expected.duplicate.empty());
      EXPECT_EQ(made->id.to_bytes(),
                expected.duplicate.empty() ? new_id.to_bytes() : expected.duplicate);
    });
    ++(expected.refused ? refused_ : expected.duplicate.empty() ? requeued_ : requeued_again_);
  }

  void discard() {
    ModelRequest* letter = any_letter();
    if (letter == nullptr || letter->erased) return;
    const Model::Answer expected = model_.discard(*letter, now_ms_);
    both([&](Ledger& ledger, Proposal& out) {
      const Status done = ledger.discard(id_of(*letter), now_ms_, out);
      EXPECT_EQ(done.has_value(), !expected.refused);
      EXPECT_TRUE(done || done.error().code == Code::kConflict);
    });
    discarded_ += !expected.refused;
  }

  void expire() {
    model_.expire(now_ms_);
    both([&](Ledger& ledger, Proposal& out) { ledger.expire(now_ms_, out); });
  }

  void forget() {
    const LogIndex below{random_.one_in(2) ? 0 : random_.below(model_.index)};
    model_.forget(now_ms_, below.value, kSmall);
    both([&](Ledger& ledger, Proposal& out) { ledger.forget(now_ms_, below, 10'000, out); });
  }

  void carry() {
    ModelRequest* request = any([](const ModelRequest&) { return true; });
    if (request == nullptr) return;
    model_.carry(*request, now_ms_);
    const std::vector<v1::Event>& events = audit_.entries[request->id].events;
    both([&](Ledger& ledger, Proposal& out) {
      ledger.carry(id_of(*request), events, std::nullopt, now_ms_, out);
    });
  }

  // The log is cut after one of the last commands; a new server starts on what is left.
  void crash() {
    if (history_.empty()) return;
    const Past past = history_[random_.below(history_.size())];
    history_.clear();
    log_.resize(past.log_size);
    model_ = past.model;
    ledger_ = replayed(log_, log_.size());
    twin_ = replayed(log_, log_.size());
    audit_ = Audit();
    EXPECT_EQ(audit_.read_all(log_), "");
    start_epoch();
  }

  void renew_twin() {
    const v1::LedgerSnapshot snapshot = ledger_->snapshot();
    twin_ = std::make_unique<Ledger>(kSmall);
    const Status status = twin_->restore(snapshot);
    ASSERT_TRUE(status) << status.error().message;
    EXPECT_EQ(bytes_of(twin_->snapshot()), bytes_of(snapshot));
  }

  void check_replay() {
    EXPECT_EQ(bytes_of(replayed(log_, log_.size())->snapshot()), bytes_of(ledger_->snapshot()));
  }

  void check() {
    Counts counts;
    std::vector<RequestId> live;
    std::vector<std::pair<std::uint64_t, RequestId>> stored;
    TimeMs next_expiry_ms = 0;
    for (const ModelRequest& request : model_.requests) {
      counts.queued += request.state == v1::REQUEST_STATE_QUEUED;
      counts.running += request.state == v1::REQUEST_STATE_RUNNING;
      counts.retained += !request.live();
      counts.open_letters += request.letter();
      counts.blocked_lanes += request.blocks();
      if (request.live() || request.blocks()) counts.live_bytes += request.envelope.data().size();
      stored.emplace_back(request.stored, id_of(request));
      check_request(request);
      if (!request.live()) continue;
      live.push_back(id_of(request));
      const TimeMs expiry_ms = request.envelope.expirytime_ms();
      if (expiry_ms != 0 && (next_expiry_ms == 0 || expiry_ms < next_expiry_ms)) {
        next_expiry_ms = expiry_ms;
      }
    }
    EXPECT_EQ(ledger_->counts().queued, counts.queued);
    EXPECT_EQ(ledger_->counts().running, counts.running);
    EXPECT_EQ(ledger_->counts().retained, counts.retained);
    EXPECT_EQ(ledger_->counts().live_bytes, counts.live_bytes);
    EXPECT_EQ(ledger_->counts().open_letters, counts.open_letters);
    EXPECT_EQ(ledger_->counts().blocked_lanes, counts.blocked_lanes);
    check_letters("acme");
    check_letters("other");
    EXPECT_TRUE(ledger_->dead_letters("nobody", std::nullopt, 10)->empty());
    EXPECT_EQ(ledger_->live(), live);
    EXPECT_EQ(ledger_->next_expiry_ms(), next_expiry_ms);
    EXPECT_EQ(ledger_->index().value, model_.index);
    EXPECT_EQ(ledger_->epoch().value, model_.epoch);
    std::sort(stored.begin(), stored.end());
    EXPECT_EQ(ledger_->oldest_needed().value, stored.empty() ? 0 : stored[0].first);
    std::vector<RequestId> below;
    for (const auto& [index, id] : stored) {
      if (index < model_.index / 2 && below.size() < 5) below.push_back(id);
    }
    EXPECT_EQ(ledger_->stored_below(LogIndex{model_.index / 2}, 5), below);
    check_order();
  }

  // All pages of two make the list, newest first.
  void check_letters(const std::string& tenant) {
    std::vector<std::pair<TimeMs, RequestId>> expected;
    for (const ModelRequest& request : model_.requests) {
      if (request.envelope.tenant() != tenant || request.erased) continue;
      if (request.state != v1::REQUEST_STATE_DEAD) continue;
      expected.emplace_back(request.ended_ms, id_of(request));
    }
    std::sort(expected.rbegin(), expected.rend());
    std::vector<std::pair<TimeMs, RequestId>> seen;
    std::optional<RequestId> after;
    for (;;) {
      const auto page = ledger_->dead_letters(tenant, after, 2);
      ASSERT_TRUE(page);
      if (page->empty()) break;
      for (const Request* letter : *page) seen.emplace_back(letter->ended_ms, letter->id);
      after = page->back()->id;
    }
    EXPECT_EQ(seen, expected);
  }

  void check_request(const ModelRequest& expected) {
    const auto found = ledger_->find(expected.envelope.tenant(), id_of(expected));
    ASSERT_EQ(found.has_value(), !expected.erased);
    if (!found) {
      EXPECT_EQ(found.error().code, Code::kGone);
    }
    const Request& request = *ledger_->find(id_of(expected));
    EXPECT_EQ(request.state, expected.state);
    EXPECT_EQ(request.attempt, expected.attempt);
    EXPECT_EQ(request.failed_attempts, expected.failed);
    EXPECT_EQ(request.event_count, expected.events.size());
    EXPECT_EQ(request.accepted_ms, expected.accepted_ms);
    EXPECT_EQ(request.ended_ms, expected.ended_ms);
    EXPECT_EQ(request.accepted_index.value, expected.index);
    EXPECT_EQ(request.stored_index.value, expected.stored);
    EXPECT_EQ(request.envelope != nullptr, expected.live());
    EXPECT_EQ(request.suspect, expected.suspect);
    EXPECT_EQ(request.place.value, expected.place);
    EXPECT_EQ(request.discarded, expected.discarded);
    EXPECT_EQ(request.requeued_as ? request.requeued_as->to_bytes() : "", expected.requeued_as);
    EXPECT_EQ(request.requeue_of ? request.requeue_of->to_bytes() : "", expected.requeue_of);
    EXPECT_EQ(request.blocks_lane(), expected.blocks());
    EXPECT_EQ(request.usage.SerializeAsString(), expected.usage().SerializeAsString());
    ASSERT_EQ(request.choices.size(), expected.live() ? expected.choices : 0);
    for (std::uint32_t choice = 0; choice < request.choices.size(); ++choice) {
      v1::ChoiceProgress progress;
      write_progress(request.choices[choice], progress);
      EXPECT_EQ(progress.DebugString(), expected.progress(choice).DebugString());
    }
    if (expected.live()) {
      EXPECT_EQ(request.token_fingerprint, expected.print);
    } else {
      EXPECT_EQ(request.finish_reason, expected.finish_reason);
      EXPECT_EQ(audit_.entries[expected.id].ends, 1);
    }
    if (expected.attempt > 0) {
      const v1::Attempt& attempt = request.attempts.back();
      EXPECT_EQ(attempt.continuation(), expected.how.continuation());
      EXPECT_EQ(attempt.resumed_tokens(), expected.how.resumed_tokens());
      EXPECT_EQ(attempt.prefilled_bytes(), expected.how.prefilled_bytes());
      EXPECT_EQ(attempt.regenerated_tokens(), expected.how.regenerated_tokens());
    }
    const std::vector<v1::Event>& events = audit_.entries[expected.id].events;
    ASSERT_EQ(events.size(), expected.events.size());
    for (std::size_t i = 0; i < events.size(); ++i) {
      ASSERT_EQ(events[i].SerializeAsString(), expected.events[i]->SerializeAsString())
          << events[i].DebugString() << "expected:\n"
          << expected.events[i]->DebugString();
    }
    const auto other = ledger_->find("nobody", id_of(expected));
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, id_of(expected).time_ms() <= model_.forgotten_until_ms
                                      ? Code::kGone
                                      : Code::kNotFound);
  }

  void check_order() {
    const auto by_tenant = [this](RequestId a, RequestId b) {
      return ledger_->find(a)->tenant < ledger_->find(b)->tenant;
    };
    std::size_t models = 0;
    for (const std::string& model : kModels) {
      std::vector<const ModelRequest*> queued;
      for (const ModelRequest& request : model_.requests) {
        if (request.envelope.model() != model) continue;
        if (request.state == v1::REQUEST_STATE_QUEUED) queued.push_back(&request);
        if (request.state == v1::REQUEST_STATE_QUEUED) continue;
        EXPECT_EQ(ledger_->queue_position(*ledger_->find(id_of(request))), 0u);
      }
      std::sort(queued.begin(), queued.end(),
                [](const auto* a, const auto* b) { return Model::before(*a, *b); });
      std::vector<RequestId> ready;
      std::uint64_t position = 0;
      for (const ModelRequest* request : queued) {
        if (model_.ready(*request)) ready.push_back(id_of(*request));
        EXPECT_EQ(ledger_->queue_position(*ledger_->find(id_of(*request))), ++position);
      }
      models += !ready.empty();
      std::vector<RequestId> seen;
      ledger_->order().visit(model, [&](RequestId id) {
        seen.push_back(id);
        return true;
      });
      EXPECT_EQ(ledger_->order().next(model),
                seen.empty() ? std::nullopt : std::optional(seen.front()));
      // Whose turn it is, LaneOrderTest says; each tenant has its own heads in order.
      std::stable_sort(seen.begin(), seen.end(), by_tenant);
      std::stable_sort(ready.begin(), ready.end(), by_tenant);
      EXPECT_EQ(seen, ready);
    }
    EXPECT_EQ(ledger_->order().models().size(), models);
  }

  struct Past {
    Model model;
    std::size_t log_size;
    TimeMs now_ms;
  };

  Random random_;
  TimeMs now_ms_ = kStartMs;
  std::uint64_t number_ = 0;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<Ledger> twin_;
  Model model_;
  std::vector<v1::Record> log_;
  Audit audit_;
  std::deque<Past> history_;
  std::vector<Effect> effects_;  // of the last command

 public:
  int requeued_ = 0, requeued_again_ = 0, refused_ = 0, discarded_ = 0;
};

TEST(LedgerModelTest, AgreesWithTheModelThroughRestartsAndCrashes) {
  int requeued = 0, requeued_again = 0, refused = 0, discarded = 0;
  for (const std::uint64_t seed : testing::seeds(1, 12)) {
    RandomRun run(seed);
    for (int step = 0; step < kSteps; ++step) {
      SCOPED_TRACE("WAYSTATION_SEED=" + std::to_string(seed) + " step " + std::to_string(step));
      run.step();
      if (::testing::Test::HasFailure()) return;
    }
    requeued += run.requeued_;
    requeued_again += run.requeued_again_;
    refused += run.refused_;
    discarded += run.discarded_;
  }
  if (testing::other_seeds()) return;
  EXPECT_GT(std::min({requeued, requeued_again, refused, discarded}), 20);  // or little was tested
}

// A log may be cut anywhere, also inside a command, and more than once.
TEST(LedgerModelTest, GoesOnFromALogThatIsCutAnywhere) {
  for (const std::uint64_t seed : testing::seeds(1000, 300)) {
    SCOPED_TRACE("WAYSTATION_SEED=" + std::to_string(seed));
    Random random(seed);
    std::vector<v1::Record> log;
    TimeMs now_ms = kStartMs;
    std::uint64_t number = 0;
    for (int life = 0; life < 4; ++life) {
      if (life > 0)
        log.resize(random.one_in(2)
                       ? random.below(log.size() + 1)
                       : log.size() - random.below(std::min<std::size_t>(log.size(), 4)));
      const auto ledger = replayed(log, log.size());
      testing::RandomLog driver(*ledger, random, log, now_ms, number);
      driver.start_epoch();
      for (std::uint64_t i = 100 + random.below(100); i > 0; --i) driver.step();
      if (life == 3) {
        driver.drain();
        Audit audit;
        ASSERT_EQ(audit.read_all(log), "");
        ASSERT_EQ(audit.all_ended(), "");
      }
      ASSERT_EQ(bytes_of(replayed(log, log.size())->snapshot()), bytes_of(ledger->snapshot()));
    }
  }
}

}  // namespace
}  // namespace waystation::ledger
