// A server for the worker's tests: real sessions, no ledger. Hands out what the test asks for and
// writes down the answers.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "link/server_session.h"
#include "link/transport.h"

namespace waystation::worker {

struct Answer {
  std::vector<std::uint32_t> ids;
  std::string text;
  std::string finish;
  std::string failure;
  bool dropped = false;
  bool ended() const { return !finish.empty() || !failure.empty() || dropped; }
};

class TestServer final : public link::ServerEvents {
 public:
  // `silent`: sends no heartbeats.
  TestServer(link::ServerTransport& transport, link::ServerSessionConfig config,
             std::uint64_t epoch = 1, bool silent = false)
      : transport_(transport), config_(std::move(config)), epoch_(epoch) {
    if (!silent) pulse_ = std::thread([this] { run_pulse(); });
  }
  ~TestServer() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    if (pulse_.joinable()) pulse_.join();
  }

  // Waits until `condition()` holds (called with the server locked); false after 20 seconds.
  template <typename Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), condition);
  }

  // Gives attempt `attempt` of a request to the newest worker, once it has credit.
  bool assign(int request, std::uint32_t attempt = 1, const Answer* resume = nullptr,
              const std::string& extra = "") {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(20),
                           [this] { return session_ != nullptr && session_->credit() > 0; })) {
      return false;
    }
    v1::Assign assign;
    *assign.mutable_fence() = fence(request, attempt);
    assign.mutable_envelope()->set_data(
        R"({"model":"scripted","messages":[{"role":"user","content":"hi"}])" + extra + "}");
    if (resume != nullptr) {
      v1::ChoiceProgress& progress = *assign.add_resume();
      progress.mutable_token_ids()->Add(resume->ids.begin(), resume->ids.end());
      progress.set_text(resume->text);
    }
    transport_.send(session_->connection(), session_->assign(std::move(assign)));
    return true;
  }

  void cancel(int request, std::uint32_t attempt = 1) {
    std::lock_guard lock(mutex_);
    if (auto message = session_->cancel(fence(request, attempt))) {
      transport_.send(session_->connection(), std::move(*message));
    }
  }

  void drain() {
    std::lock_guard lock(mutex_);
    if (auto message = session_->drain()) {
      transport_.send(session_->connection(), std::move(*message));
    }
  }

  Answer answer(int request, std::uint32_t attempt = 1) {
    std::lock_guard lock(mutex_);
    return answers[{request, attempt}];
  }
  bool wait_for_end(int request, std::uint32_t attempt = 1) {
    return wait([&] { return answers[{request, attempt}].ended(); });
  }

  void on_connected(link::ConnectionId connection, link::Peer peer) override {
    std::lock_guard lock(mutex_);
    ++connections;
    session_ =
        std::make_unique<link::ServerSession>(connection, std::move(peer), config_, now_ms());
    changed_.notify_all();
  }

  void on_message(link::ConnectionId connection, v1::WorkerMessage message) override {
    std::lock_guard lock(mutex_);
    if (session_ == nullptr || session_->connection() != connection) return;
    const auto heard = session_->on_message(std::move(message), now_ms());
    if (!heard) {
      broken = heard.error().message;
      refuse(heard.error());
    } else if (std::holds_alternative<link::HelloHeard>(*heard)) {
      if (refuse_with) {
        refuse(*refuse_with);
      } else {
        transport_.send(connection, session_->welcome(Epoch{epoch_}, WorkerId{1}));
      }
    } else if (std::holds_alternative<link::HeartbeatHeard>(*heard)) {
      ++heartbeats;
    } else if (const auto* step = std::get_if<link::StepHeard>(&*heard)) {
      ++steps;
      fenced += step->fenced.size();
      for (const v1::Output& output : step->outputs) note(output);
    }
    changed_.notify_all();
  }

  void on_disconnected(link::ConnectionId, std::string why) override {
    std::lock_guard lock(mutex_);
    ++disconnections;
    reason = std::move(why);
    session_.reset();
    changed_.notify_all();
  }

  // With the server locked: inside wait(), or when nothing can happen any more.
  link::ServerSession* session() { return session_.get(); }
  std::map<std::pair<int, std::uint32_t>, Answer> answers;  // by request and attempt
  std::optional<Error> refuse_with;
  int connections = 0;
  int disconnections = 0;
  int heartbeats = 0;
  int steps = 0;
  std::size_t fenced = 0;
  std::string reason;
  std::string broken;

 private:
  static TimeMs now_ms() { return SystemClock().steady_us() / 1000; }

  v1::Fence fence(int request, std::uint32_t attempt) const {
    return link::fence_of(epoch_, {std::string(16, static_cast<char>(request)), attempt});
  }

  void refuse(const Error& error) {
    transport_.send(session_->connection(), session_->refused(error));
    transport_.close(session_->connection());
  }

  void note(const v1::Output& output) {
    Answer& answer = answers[{output.fence().request()[0], output.fence().attempt()}];
    answer.ids.insert(answer.ids.end(), output.token_ids().begin(), output.token_ids().end());
    answer.text += output.text();
    answer.finish += output.finish_reason();
    answer.failure += output.failure().code();
    answer.dropped = answer.dropped || output.dropped();
  }

  void run_pulse() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      changed_.wait_for(lock, std::chrono::milliseconds(config_.heartbeat_ms / 2 + 1));
      if (session_ == nullptr) continue;
      if (auto beat = session_->heartbeat(now_ms())) {
        transport_.send(session_->connection(), std::move(*beat));
      }
    }
  }

  link::ServerTransport& transport_;
  const link::ServerSessionConfig config_;
  const std::uint64_t epoch_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<link::ServerSession> session_;
  bool stopping_ = false;
  std::thread pulse_;
};

// The text of a scripted answer of `tokens` tokens.
inline std::string scripted_text(int tokens) {
  std::string text;
  for (int i = 0; i < tokens; ++i) text += "tok" + std::to_string(i) + " ";
  return text;
}

}  // namespace waystation::worker
