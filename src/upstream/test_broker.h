// The broker's side of the link for tests: holds every worker to the protocol's rules (with the
// real ServerSession), gives out work, and remembers what came back.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/ids.h"
#include "link/server_session.h"
#include "link/transport.h"
#include "message/chat.h"

namespace waystation::upstream {

struct Outcome {
  bool ended = false;
  bool started = false;
  std::map<std::uint32_t, std::string> texts;    // by choice
  std::map<std::uint32_t, std::string> reasons;  // finish reasons by choice
  std::string reasoning;
  std::vector<v1::ToolCallDelta> tool_calls;
  std::vector<v1::TokenLogprob> logprobs;
  std::vector<std::string> embeddings;
  v1::Failure failure;
  bool failed = false;
  bool dropped = false;
  v1::Usage usage;
  bool has_usage = false;
  int outputs = 0;

  std::string text() const { return texts.contains(0) ? texts.at(0) : ""; }
  std::string reason() const { return reasons.contains(0) ? reasons.at(0) : ""; }
  bool complete() const { return ended && !failed && !dropped; }
  Code code() const { return code_from_name(failure.code()); }
};

class TestBroker final : public link::ServerEvents {
 public:
  void use(link::ServerTransport& transport) { transport_ = &transport; }

  void on_connected(link::ConnectionId connection, link::Peer peer) override {
    std::lock_guard lock(mutex_);
    CHECK(sessions_
              .try_emplace(connection, connection, std::move(peer), link::ServerSessionConfig{},
                           now_ms())
              .second);
  }

  void on_message(link::ConnectionId connection, v1::WorkerMessage message) override {
    std::lock_guard lock(mutex_);
    auto at = sessions_.find(connection);
    CHECK(at != sessions_.end());
    link::ServerSession& session = at->second;
    auto heard = session.on_message(std::move(message), now_ms());
    if (!heard) broken_rules.push_back(heard.error().message);
    if (!heard) return;
    if (std::holds_alternative<link::HelloHeard>(*heard)) {
      hello = session.hello();
      transport_->send(connection, session.welcome(Epoch{7}, WorkerId{next_worker_++}));
      ++joined_;
    } else if (auto* step = std::get_if<link::StepHeard>(&*heard)) {
      if (!step->fenced.empty()) broken_rules.push_back("an output of nobody's");
      for (const v1::Output& output : step->outputs) take(output);
    } else if (std::holds_alternative<link::LeavingHeard>(*heard)) {
      ++left_;
    }
    changed_.notify_all();
  }

  void on_disconnected(link::ConnectionId connection, std::string reason) override {
    std::lock_guard lock(mutex_);
    sessions_.erase(connection);
    ++disconnected_;
    changed_.notify_all();
  }

  // Waits until a session has credit, and gives it the request. The fence's attempt numbers all.
  v1::Fence assign(std::string body, std::uint32_t choices = 1,
                   std::vector<v1::ChoiceProgress> resume = {},
                   std::string_view type = message::kChatRequestType) {
    std::unique_lock lock(mutex_);
    link::ServerSession* session = nullptr;
    CHECK(changed_.wait_for(lock, kPatience, [&] {
      for (auto& [id, each] : sessions_) {
        if (each.credit() > 0) session = &each;
      }
      return session != nullptr;
    }));
    v1::Assign assign;
    assign.mutable_fence()->set_epoch(7);
    assign.mutable_fence()->set_request(RequestId::make(1'700'000'000'000, 1, 2).to_bytes());
    assign.mutable_fence()->set_attempt(++attempt_);
    assign.mutable_envelope()->set_type(std::string(type));
    assign.mutable_envelope()->set_model("ours");
    assign.mutable_envelope()->set_data(std::move(body));
    assign.mutable_envelope()->set_hops(hops);
    assign.set_choices(choices);
    for (auto& progress : resume) *assign.add_resume() = std::move(progress);
    const v1::Fence fence = assign.fence();
    transport_->send(session->connection(), session->assign(std::move(assign)));
    return fence;
  }

  void cancel(const v1::Fence& fence) {
    std::lock_guard lock(mutex_);
    for (auto& [id, session] : sessions_) {
      if (auto message = session.cancel(fence)) transport_->send(id, std::move(*message));
    }
  }

  Outcome wait(const v1::Fence& fence) {
    return wait_for(fence, [](const Outcome& outcome) { return outcome.ended; });
  }
  template <typename Condition>
  Outcome wait_for(const v1::Fence& fence, Condition condition) {
    std::unique_lock lock(mutex_);
    CHECK(
        changed_.wait_for(lock, kPatience, [&] { return condition(outcomes_[fence.attempt()]); }));
    return outcomes_[fence.attempt()];
  }
  Outcome run(std::string body) { return wait(assign(std::move(body))); }

  void wait_joined(int count) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, kPatience, [&] { return joined_ >= count; }));
  }
  void wait_disconnected(int count) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, kPatience, [&] { return disconnected_ >= count; }));
  }
  void wait_left(int count) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, kPatience, [&] { return left_ >= count; }));
  }
  int joined() {
    std::lock_guard lock(mutex_);
    return joined_;
  }

  std::vector<std::string> broken_rules;  // read when all is over
  v1::Hello hello;
  std::string hops;  // of the next assignments

 private:
  static constexpr std::chrono::seconds kPatience{60};
  static TimeMs now_ms() { return SystemClock().steady_us() / 1000; }

  void take(const v1::Output& output) {
    Outcome& outcome = outcomes_[output.fence().attempt()];
    if (outcome.ended) broken_rules.push_back("an output after the last");
    ++outcome.outputs;
    outcome.started = outcome.started || output.started();
    outcome.texts[output.choice()] += output.text();
    outcome.reasoning += output.reasoning();
    for (const auto& call : output.tool_calls()) outcome.tool_calls.push_back(call);
    for (const auto& logprob : output.logprobs()) outcome.logprobs.push_back(logprob);
    for (const auto& vector : output.embeddings()) outcome.embeddings.push_back(vector);
    if (!output.finish_reason().empty()) {
      outcome.reasons[output.choice()] = output.finish_reason();
    }
    if (output.has_usage()) {
      outcome.usage = output.usage();
      outcome.has_usage = true;
    }
    outcome.failed = output.has_failure();
    if (outcome.failed) outcome.failure = output.failure();
    outcome.dropped = output.dropped();
    outcome.ended = link::endings_of(output) > 0;
  }

  link::ServerTransport* transport_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<link::ConnectionId, link::ServerSession> sessions_;
  std::map<std::uint32_t, Outcome> outcomes_;
  std::uint32_t attempt_ = 0;
  std::uint64_t next_worker_ = 1;
  int joined_ = 0;
  int left_ = 0;
  int disconnected_ = 0;
};

}  // namespace waystation::upstream
