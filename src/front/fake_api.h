// A broker for tests: keeps requests in memory, on a thread of its own, and does what it is told.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "broker/api.h"

namespace waystation::front {

// Its public functions are for the test's thread; what they change is visible when they return.
class FakeApi final : public broker::Api {
 public:
  struct Detach {
    RequestId id;
    bool client_gone = false;
  };

  FakeApi() : thread_([this] { work(); }) {}
  ~FakeApi() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  // ---- what the test says ----

  // The next calls of submit are refused, through the callback or by the call itself.
  void refuse_submit(Error error, bool by_call = false) {
    std::lock_guard lock(mutex_);
    (by_call ? refuse_call_ : refuse_callback_) = std::move(error);
  }
  void accept_submit() {
    std::lock_guard lock(mutex_);
    refuse_call_.reset();
    refuse_callback_.reset();
  }
  // Submissions are noted but not answered until it is taken back.
  void hold_submit(bool hold) {
    run([&] {
      hold_ = hold;
      if (!hold) {
        for (auto& held : std::exchange(held_, {})) held();
      }
    });
  }
  void set_health(broker::Health health) {
    std::lock_guard lock(mutex_);
    health_ = std::move(health);
  }

  // Waits until `count` requests were accepted, and gives the last one's id.
  RequestId wait_request(std::size_t count = 1) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, kPatience, [&] { return order_.size() >= count; }));
    return order_.back();
  }
  Detach wait_detach() {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, kPatience, [&] { return !detaches_.empty(); }));
    return detaches_.back();
  }
  // Waits until attach was called `count` times; gives the number that the last one asked for.
  Sequence wait_attach(std::size_t count = 1) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, kPatience, [&] { return attaches_.size() >= count; }));
    return attaches_[count - 1];
  }
  broker::Submission submission(RequestId id) {
    std::lock_guard lock(mutex_);
    return requests_.at(id).submission;
  }
  std::size_t submissions() {
    std::lock_guard lock(mutex_);
    return order_.size();
  }

  void push(RequestId id, std::vector<v1::Event> events) {
    run([&] {
      Entry& entry = requests_.at(id);
      auto block = std::make_shared<stream::Block>();
      block->first = entry.events.size();
      block->events = events;
      for (auto& event : events) entry.events.push_back(event);
      deliver(entry, block);
    });
  }
  void end(RequestId id, stream::Ending ending) {
    run([&] {
      Entry& entry = requests_.at(id);
      ending.sequence = entry.events.size();
      entry.ending = ending;
      for (auto& reader : std::exchange(entry.readers, {})) reader->on_end(ending);
    });
  }
  void interrupt(RequestId id, Error error) {
    run([&] {
      for (auto& reader : std::exchange(requests_.at(id).readers, {}))
        reader->on_interrupted(error);
    });
  }
  std::size_t readers(RequestId id) {
    std::size_t count = 0;
    run([&] { count = requests_.at(id).readers.size(); });
    return count;
  }
  std::size_t refused_blocks() {
    std::lock_guard lock(mutex_);
    return refused_blocks_;
  }

  static v1::Event start() { return event(v1::EVENT_KIND_START); }
  static v1::Event delta(std::string text) { return event(v1::EVENT_KIND_DELTA, std::move(text)); }
  static v1::Event stop() { return event(v1::EVENT_KIND_FINISH, "", "stop"); }
  static v1::Event event(v1::EventKind kind, std::string text = "", std::string finish = "") {
    v1::Event out;
    out.set_kind(kind);
    out.set_text(std::move(text));
    out.set_finish_reason(std::move(finish));
    return out;
  }
  static stream::Ending completed() {
    stream::Ending ending;
    ending.state = v1::REQUEST_STATE_COMPLETED;
    ending.finish_reason = "stop";
    ending.usage.set_prompt_tokens(3);
    ending.usage.set_completion_tokens(2);
    return ending;
  }
  static stream::Ending failed(v1::RequestState state, std::string code, std::string message) {
    stream::Ending ending;
    ending.state = state;
    ending.failure.set_code(std::move(code));
    ending.failure.set_message(std::move(message));
    return ending;
  }

  // ---- broker::Api ----

  Status submit(broker::Submission submission, broker::Callback<broker::Submitted> done) override {
    std::lock_guard lock(mutex_);
    if (refuse_call_) return *refuse_call_;
    auto task = [this, submission = std::move(submission), done = std::move(done)]() mutable {
      accept(std::move(submission), done);
    };
    enqueue([this, task = std::move(task)]() mutable {
      if (hold_) {
        held_.push_back(std::move(task));
      } else {
        task();
      }
    });
    return {};
  }

  Status attach(std::string tenant, RequestId id, Sequence from,
                std::shared_ptr<stream::Reader> reader,
                broker::Callback<broker::RequestView> done) override {
    std::lock_guard lock(mutex_);
    enqueue([this, tenant, id, from, reader, done] {
      const auto found = requests_.find(id);
      if (found == requests_.end() || found->second.submission.envelope.tenant() != tenant) {
        return done(Error{Code::kNotFound, "there is no such request"});
      }
      Entry& entry = found->second;
      done(view(entry));
      note_attach(from);
      if (from < entry.events.size()) {
        auto block = std::make_shared<stream::Block>();
        block->first = from;
        block->events.assign(entry.events.begin() + static_cast<std::ptrdiff_t>(from),
                             entry.events.end());
        if (!give(reader, block)) return;
      }
      if (entry.ending) {
        reader->on_end(*entry.ending);
      } else {
        entry.readers.push_back(reader);
      }
    });
    return {};
  }

  void detach(RequestId id, std::shared_ptr<stream::Reader> reader, bool client_gone) override {
    std::lock_guard lock(mutex_);
    enqueue([this, id, reader, client_gone] {
      if (requests_.contains(id)) std::erase(requests_.at(id).readers, reader);
      std::lock_guard inner(mutex_);
      detaches_.push_back({id, client_gone});
      changed_.notify_all();
    });
  }

  Status cancel(std::string tenant, RequestId id,
                broker::Callback<broker::RequestView> done) override {
    std::lock_guard lock(mutex_);
    enqueue([this, tenant, id, done] {
      if (requests_.contains(id) && !requests_.at(id).ending) {
        Entry& entry = requests_.at(id);
        stream::Ending ending = failed(v1::REQUEST_STATE_CANCELLED, "cancelled", "");
        ending.sequence = entry.events.size();
        entry.ending = ending;
        for (auto& reader : std::exchange(entry.readers, {})) reader->on_end(ending);
      }
      answer_view(tenant, id, done);
    });
    return {};
  }

  Status get(std::string tenant, RequestId id,
             broker::Callback<broker::RequestView> done) override {
    std::lock_guard lock(mutex_);
    enqueue([this, tenant, id, done] { answer_view(tenant, id, done); });
    return {};
  }

  Status erase(std::string tenant, RequestId id, broker::Callback<void> done) override {
    std::lock_guard lock(mutex_);
    enqueue([this, tenant, id, done] {
      const auto found = requests_.find(id);
      if (found == requests_.end() || found->second.submission.envelope.tenant() != tenant) {
        return done(Error{Code::kNotFound, "there is no such request"});
      }
      requests_.erase(found);
      done({});
    });
    return {};
  }

  Status requeue(std::string tenant, RequestId id,
                 broker::Callback<broker::Submitted> done) override {
    std::lock_guard lock(mutex_);
    enqueue([this, tenant, id, done] {
      const auto letter = letter_of(tenant, id);
      if (!letter) return done(letter.error());
      Entry& entry = **letter;
      const bool duplicate = entry.requeued_as.has_value();
      if (!duplicate) {
        entry.requeued_as = RequestId::make(kAcceptedMs, 8, order_.size());
        Entry& made = requests_[*entry.requeued_as];
        made.id = *entry.requeued_as;
        made.submission = entry.submission;
        made.requeue_of = id;
      }
      done(broker::Submitted{*entry.requeued_as, duplicate, false, kAcceptedMs});
    });
    return {};
  }

  Status discard(std::string tenant, RequestId id,
                 broker::Callback<broker::RequestView> done) override {
    std::lock_guard lock(mutex_);
    enqueue([this, tenant, id, done] {
      const auto letter = letter_of(tenant, id);
      if (!letter) return done(letter.error());
      (*letter)->discarded = true;
      done(view(**letter));
    });
    return {};
  }

  Status dead_letters(std::string tenant, std::optional<RequestId> after, std::size_t count_max,
                      broker::Callback<std::vector<broker::RequestView>> done) override {
    std::lock_guard lock(mutex_);
    enqueue([this, tenant, after, count_max, done] {
      std::vector<broker::RequestView> views;
      for (auto at = requests_.rbegin(); at != requests_.rend(); ++at) {
        if (after && at->first >= *after) continue;
        if (views.size() == count_max || !letter_of(tenant, at->first)) continue;
        views.push_back(view(at->second));
      }
      done(std::move(views));
    });
    return {};
  }

  Status models(broker::Callback<std::vector<broker::ModelView>> done) override {
    std::lock_guard lock(mutex_);
    enqueue([done] {
      done(std::vector<broker::ModelView>{
          {"m", "sha256:00", "scripted", 2048, 0, {"chat", "completion"}, 1, 1'700'000'000'000},
          {"org/name", "sha256:01", "llama", 4096, 384, {"embedding"}, 2, 1'700'000'001'000}});
    });
    return {};
  }

  broker::Health health() const override {
    std::lock_guard lock(mutex_);
    return health_;
  }

 private:
  struct Entry {
    broker::Submission submission;
    RequestId id;
    std::vector<v1::Event> events;
    std::optional<stream::Ending> ending;
    std::vector<std::shared_ptr<stream::Reader>> readers;
    std::optional<RequestId> requeue_of;
    std::optional<RequestId> requeued_as;
    bool discarded = false;
  };

  Result<Entry*> letter_of(const std::string& tenant, RequestId id) {
    const auto found = requests_.find(id);
    if (found == requests_.end() || found->second.submission.envelope.tenant() != tenant) {
      return Error{Code::kNotFound, "there is no such request"};
    }
    Entry& entry = found->second;
    if (!entry.ending || entry.ending->state != v1::REQUEST_STATE_DEAD) {
      return Error{Code::kConflict, "the request isn't dead"};
    }
    return &entry;
  }

  void enqueue(std::function<void()> task) {  // with mutex_ held
    tasks_.push_back(std::move(task));
    changed_.notify_all();
  }

  // Runs `task` on the broker's thread and waits for it.
  template <typename Task>
  void run(Task task) {
    bool done = false;
    std::unique_lock lock(mutex_);
    enqueue([&] {
      task();
      std::lock_guard inner(mutex_);
      done = true;
      changed_.notify_all();
    });
    changed_.wait(lock, [&] { return done; });
  }

  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      task = nullptr;
      lock.lock();
    }
  }

  void accept(broker::Submission submission, const broker::Callback<broker::Submitted>& done) {
    std::unique_lock lock(mutex_);
    if (refuse_callback_) {
      const Error error = *refuse_callback_;
      lock.unlock();
      return done(error);
    }
    const std::string key = submission.envelope.idempotencykey();
    if (!key.empty() && keys_.contains(key)) {
      const Entry& entry = requests_.at(keys_.at(key));
      lock.unlock();
      if (entry.submission.envelope.fingerprint() != submission.envelope.fingerprint()) {
        return done(Error{Code::kIdempotencyMismatch, "same key, other body"});
      }
      return done(broker::Submitted{entry.id, true, false, kAcceptedMs});
    }
    const std::string cache_key = submission.envelope.cachekey();
    if (submission.cache == broker::CacheUse::kFull && cached_.contains(cache_key)) {
      const RequestId earlier = cached_.at(cache_key);
      lock.unlock();
      return done(broker::Submitted{earlier, true, true, kAcceptedMs});
    }
    const RequestId id = RequestId::parse(submission.envelope.id())
                             .value_or(RequestId::make(kAcceptedMs, 7, order_.size()));
    Entry& entry = requests_[id];
    entry.id = id;
    if (submission.reader) entry.readers.push_back(submission.reader);
    entry.submission = std::move(submission);
    entry.submission.reader.reset();
    if (!key.empty()) keys_[key] = id;
    if (entry.submission.cache != broker::CacheUse::kNone) cached_[cache_key] = id;
    lock.unlock();
    done(broker::Submitted{id, false, false, kAcceptedMs});
    lock.lock();
    order_.push_back(id);
    changed_.notify_all();
  }

  bool give(const std::shared_ptr<stream::Reader>& reader, const stream::BlockPtr& block) {
    if (reader->on_block(block)) return true;
    std::lock_guard lock(mutex_);
    ++refused_blocks_;
    return false;
  }
  void deliver(Entry& entry, const stream::BlockPtr& block) {
    std::erase_if(entry.readers, [&](const auto& reader) { return !give(reader, block); });
  }
  void note_attach(Sequence from) {
    std::lock_guard lock(mutex_);
    attaches_.push_back(from);
    changed_.notify_all();
  }
  void answer_view(const std::string& tenant, RequestId id,
                   const broker::Callback<broker::RequestView>& done) {
    const auto found = requests_.find(id);
    if (found == requests_.end() || found->second.submission.envelope.tenant() != tenant) {
      return done(Error{Code::kNotFound, "there is no such request"});
    }
    done(view(found->second));
  }
  static broker::RequestView view(const Entry& entry) {
    broker::RequestView out;
    out.id = entry.id;
    out.state = entry.ending ? entry.ending->state : v1::REQUEST_STATE_RUNNING;
    out.model = entry.submission.envelope.model();
    out.conversation = entry.submission.envelope.partitionkey();
    out.api = entry.submission.envelope.api();
    out.choices = entry.submission.choices;
    out.priority = entry.submission.envelope.priority();
    out.attempts = {{1, "w1", kAcceptedMs + 1, 0, "", "", 5, "prefill", 17, 0, "other"}};
    out.accepted_ms = kAcceptedMs;
    out.event_count = entry.events.size();
    out.detached = entry.submission.detached;
    out.stream_usage = entry.submission.stream_usage;
    out.requeue_of = entry.requeue_of;
    out.requeued_as = entry.requeued_as;
    out.discarded = entry.discarded;
    const bool is_dead = entry.ending && entry.ending->state == v1::REQUEST_STATE_DEAD;
    out.blocks_lane = is_dead && entry.submission.block_on_dead.value_or(false) &&
                      !entry.requeued_as && !entry.discarded;
    if (entry.ending) {
      out.ended_ms = kAcceptedMs + 9;
      out.finish_reason = entry.ending->finish_reason;
      out.failure = entry.ending->failure;
      out.usage = entry.ending->usage;
    }
    return out;
  }

  // A fault fails the test rather than hanging it.
  static constexpr std::chrono::seconds kPatience{30};
  static constexpr TimeMs kAcceptedMs = 1'700'000'000'000;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::deque<std::function<void()>> tasks_;
  std::optional<Error> refuse_call_;
  std::optional<Error> refuse_callback_;
  broker::Health health_{true, true, ""};
  std::vector<RequestId> order_;
  std::vector<Detach> detaches_;
  std::vector<Sequence> attaches_;
  std::size_t refused_blocks_ = 0;

  // The broker thread's own, but that submission() reads it under the mutex after wait_request().
  std::map<RequestId, Entry> requests_;
  std::map<std::string, RequestId> keys_;
  std::map<std::string, RequestId> cached_;
  bool hold_ = false;
  std::vector<std::function<void()>> held_;

  std::thread thread_;
};

}  // namespace waystation::front
