// A broker for tests: remembers requests by their idempotency key, as the ledger does over restarts
// of everything else, and answers as the test says.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/check.h"
#include "broker/api.h"

namespace waystation::batch {

class FakeBroker final : public broker::Api {
 public:
  // Says for a submission: nothing (accept it, and hold it until release), or an error.
  using Gate = std::function<std::optional<Error>(const broker::Submission&)>;

  void set_gate(Gate gate) {
    std::lock_guard lock(mutex_);
    gate_ = std::move(gate);
  }
  // Accepted requests are answered at once.
  void set_auto_answer(bool on) {
    std::lock_guard lock(mutex_);
    auto_answer_ = on;
  }
  // Every answer comes in so many events, each a block of its own.
  void set_deltas(int deltas) {
    std::lock_guard lock(mutex_);
    deltas_ = deltas;
  }

  // Answers up to `count` requests that are held; gives how many.
  std::size_t release(std::size_t count) {
    std::lock_guard lock(mutex_);
    std::size_t done = 0;
    for (auto& [id, request] : requests_) {
      if (done == count) break;
      if (request.ended) continue;
      answer(request);
      ++done;
    }
    return done;
  }
  // Every reader is let go, as by a server that ends.
  void interrupt() {
    std::lock_guard lock(mutex_);
    for (auto& [id, request] : requests_) {
      for (auto& reader : std::exchange(request.readers, {}))
        reader->on_interrupted({Code::kUnavailable, "the server ends"});
    }
  }
  // Readers that nobody is behind any more (the runner was ended).
  void forget_readers() {
    std::lock_guard lock(mutex_);
    for (auto& [id, request] : requests_) request.readers.clear();
  }

  std::size_t accepted() {
    std::lock_guard lock(mutex_);
    return requests_.size();
  }
  std::size_t live() {
    std::lock_guard lock(mutex_);
    return live_;
  }
  std::size_t live_most() {
    std::lock_guard lock(mutex_);
    return live_most_;
  }
  std::size_t submissions() {
    std::lock_guard lock(mutex_);
    return submissions_;
  }
  std::size_t attaches() {
    std::lock_guard lock(mutex_);
    return attaches_;
  }
  std::set<std::string> cancelled() {
    std::lock_guard lock(mutex_);
    return cancelled_;
  }
  std::vector<broker::Submission> accepted_submissions() {
    std::lock_guard lock(mutex_);
    std::vector<broker::Submission> out;
    for (auto& [id, request] : requests_) out.push_back(request.submission);
    return out;
  }

  // ---- broker::Api

  Status submit(broker::Submission submission, broker::Callback<broker::Submitted> done) override {
    std::lock_guard lock(mutex_);
    ++submissions_;
    const std::string key = submission.envelope.idempotencykey();
    if (const auto known = keys_.find(key); known != keys_.end()) {
      done(broker::Submitted{.id = known->second, .duplicate = true, .accepted_ms = 1});
      return {};
    }
    if (gate_) {
      if (auto refused = gate_(submission)) {
        done(*refused);
        return {};
      }
    }
    const RequestId id = RequestId::make(1, 7, ++made_ << 8);
    keys_[key] = id;
    Request& request = requests_[id];
    request.tenant = submission.envelope.tenant();
    request.readers.push_back(std::exchange(submission.reader, nullptr));
    request.submission = std::move(submission);
    live_most_ = std::max(live_most_, ++live_);
    done(broker::Submitted{.id = id, .accepted_ms = 1});
    if (auto_answer_) answer(request);
    return {};
  }

  Status attach(std::string tenant, RequestId id, Sequence from,
                std::shared_ptr<stream::Reader> reader,
                broker::Callback<broker::RequestView> done) override {
    std::lock_guard lock(mutex_);
    ++attaches_;
    const auto found = requests_.find(id);
    if (found == requests_.end() || found->second.tenant != tenant) {
      done(Error{Code::kNotFound, "there is no such request"});
      return {};
    }
    done(view_of(id));
    Request& request = found->second;
    if (!request.ended) {
      request.readers.push_back(std::move(reader));
    } else {
      give(request, reader, from);
    }
    return {};
  }

  void detach(RequestId id, std::shared_ptr<stream::Reader> reader, bool) override {
    std::lock_guard lock(mutex_);
    std::erase(requests_.at(id).readers, reader);
  }

  Status cancel(std::string tenant, RequestId id,
                broker::Callback<broker::RequestView> done) override {
    std::lock_guard lock(mutex_);
    Request& request = requests_.at(id);
    CHECK(request.tenant == tenant);
    cancelled_.insert(id.to_string());
    if (!request.ended) {
      request.state = v1::REQUEST_STATE_CANCELLED;
      end(request);
    }
    done(view_of(id));
    return {};
  }

  Status get(std::string, RequestId, broker::Callback<broker::RequestView>) override {
    return Error{Code::kInternal, "not here"};
  }
  Status erase(std::string, RequestId, broker::Callback<void>) override {
    return Error{Code::kInternal, "not here"};
  }
  Status requeue(std::string, RequestId, broker::Callback<broker::Submitted>) override {
    return Error{Code::kInternal, "not here"};
  }
  Status discard(std::string, RequestId, broker::Callback<broker::RequestView>) override {
    return Error{Code::kInternal, "not here"};
  }
  Status dead_letters(std::string, std::optional<RequestId>, std::size_t,
                      broker::Callback<std::vector<broker::RequestView>>) override {
    return Error{Code::kInternal, "not here"};
  }
  Status models(broker::Callback<std::vector<broker::ModelView>>) override {
    return Error{Code::kInternal, "not here"};
  }
  broker::Health health() const override { return {}; }

 private:
  struct Request {
    std::string tenant;
    broker::Submission submission;
    std::vector<std::shared_ptr<stream::Reader>> readers;
    std::vector<v1::Event> events;
    v1::RequestState state = v1::REQUEST_STATE_COMPLETED;
    bool ended = false;
  };

  static broker::RequestView view_of(RequestId id) {
    broker::RequestView view;
    view.id = id;
    return view;
  }
  static v1::Event event(v1::EventKind kind, std::string text = "") {
    v1::Event out;
    out.set_kind(kind);
    out.set_text(std::move(text));
    return out;
  }

  void answer(Request& request) {
    request.events = {event(v1::EVENT_KIND_START)};
    for (int i = 0; i < deltas_; ++i) {
      request.events.push_back(event(v1::EVENT_KIND_DELTA, std::to_string(i) + " "));
    }
    request.events.push_back(event(v1::EVENT_KIND_FINISH));
    request.events.back().set_finish_reason("stop");
    end(request);
  }
  void end(Request& request) {
    request.ended = true;
    --live_;
    for (auto& reader : std::exchange(request.readers, {})) give(request, reader, 0);
  }
  static void give(const Request& request, const std::shared_ptr<stream::Reader>& reader,
                   Sequence from) {
    for (Sequence at = from; at < request.events.size(); ++at) {
      auto block = std::make_shared<stream::Block>();
      block->first = at;
      block->events = {request.events[at]};
      if (!reader->on_block(block)) return;
    }
    stream::Ending ending;
    ending.state = request.state;
    ending.finish_reason = "stop";
    ending.usage.set_prompt_tokens(3);
    ending.usage.set_completion_tokens(2);
    ending.sequence = request.events.size();
    if (request.state == v1::REQUEST_STATE_CANCELLED) ending.failure.set_code("cancelled");
    reader->on_end(ending);
  }

  std::mutex mutex_;
  Gate gate_;
  bool auto_answer_ = true;
  int deltas_ = 2;
  std::uint64_t made_ = 0;
  std::size_t live_ = 0, live_most_ = 0, submissions_ = 0, attaches_ = 0;
  std::map<std::string, RequestId> keys_;
  std::map<RequestId, Request> requests_;
  std::set<std::string> cancelled_;
};

}  // namespace waystation::batch
