// A naive model of the ledger, for comparison in tests: one list, searched from the start each
// time. What an answer has brought is not kept but read from its events whenever it is asked for.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "ledger/testing.h"

namespace waystation::ledger::testing {

struct ModelRequest {
  v1::Envelope envelope;
  std::string id;  // 16 bytes
  bool stream_usage = false;
  std::uint32_t choices = 1;
  TimeMs accepted_ms = 0;
  TimeMs ended_ms = 0;
  std::uint64_t index = 0;   // of the acceptance
  std::uint64_t stored = 0;  // of the oldest record needed
  v1::RequestState state = v1::REQUEST_STATE_QUEUED;
  std::uint32_t attempt = 0;
  std::uint32_t failed = 0;
  bool suspect = false;
  std::uint64_t worker = 0;
  v1::Attempt how;  // the last attempt: how it went on
  std::string finish_reason;
  std::vector<std::shared_ptr<const v1::Event>> events;
  std::size_t attempt_from = 0;  // events of the current attempt
  bool goes_on = false;          // it went on from what was there
  std::size_t ids_from = 0;      // events whose token ids are of the model `print`
  std::string print;             // empty: no token ids are good for anybody
  bool erased = false;
  bool compose = false;
  bool block_on_dead = false;
  std::uint64_t place = 0;  // in the order of its lane and of all
  bool discarded = false;
  std::string requeue_of;  // 16 bytes, or empty
  std::string requeued_as;

  // Dead, and nobody has dealt with it.
  bool letter() const {
    return state == v1::REQUEST_STATE_DEAD && !erased && !discarded && requeued_as.empty();
  }
  bool blocks() const { return letter() && block_on_dead; }
  bool live() const {
    return state == v1::REQUEST_STATE_QUEUED || state == v1::REQUEST_STATE_RUNNING;
  }
  std::string lane() const {
    return envelope.partitionkey().empty() ? id
                                           : envelope.tenant() + "\n" + envelope.partitionkey();
  }
  v1::Usage usage() const {
    v1::Usage sum;
    for (const auto& event : events) count_usage(*event, sum);
    return sum;
  }
  v1::ChoiceProgress progress(std::uint32_t choice) const {
    v1::ChoiceProgress out;
    for (std::size_t i = 0; i < events.size(); ++i) {
      const v1::Event& event = *events[i];
      if (event.choice() != choice) continue;
      if (event.kind() == v1::EVENT_KIND_FINISH) out.set_finish_reason(event.finish_reason());
      if (event.kind() != v1::EVENT_KIND_DELTA) continue;
      if (i >= ids_from && !print.empty()) out.mutable_token_ids()->MergeFrom(event.token_ids());
      out.set_text(out.text() + event.text());
      out.set_reasoning(out.reasoning() + event.reasoning());
      for (const v1::ToolCallDelta& delta : event.tool_calls()) add_call(delta, out);
    }
    return out;
  }
  bool begun() const {
    for (std::uint32_t choice = 0; choice < choices; ++choice) {
      if (progress(choice).ByteSizeLong() > 0) return true;
    }
    return false;
  }
  bool finished(std::uint32_t choice) const { return !progress(choice).finish_reason().empty(); }
  bool all_finished() const {
    for (std::uint32_t choice = 0; choice < choices; ++choice) {
      if (!finished(choice)) return false;
    }
    return true;
  }
  bool brought_something() const {  // in this attempt
    for (std::size_t i = attempt_from; i < events.size(); ++i) {
      if (events[i]->kind() == v1::EVENT_KIND_DELTA) return true;
    }
    return false;
  }

 private:
  static void add_call(const v1::ToolCallDelta& delta, v1::ChoiceProgress& out) {
    for (v1::ToolCallDelta& call : *out.mutable_tool_calls()) {
      if (call.index() != delta.index()) continue;
      if (!delta.id().empty()) call.set_id(delta.id());
      if (!delta.name().empty()) call.set_name(delta.name());
      call.set_arguments(call.arguments() + delta.arguments());
      return;
    }
    *out.add_tool_calls() = delta;
  }
};

class Model {
 public:
  std::vector<ModelRequest> requests;  // those not forgotten, by acceptance
  std::uint64_t index = 0;             // records so far
  std::uint64_t epoch = 0;
  TimeMs last_ms = 0;
  TimeMs forgotten_until_ms = 0;

  ModelRequest* by_id(const std::string& id) {
    for (ModelRequest& request : requests) {
      if (request.id == id) return &request;
    }
    return nullptr;
  }

  // Queued, and nothing of its lane that lives or blocks it has an earlier place.
  bool ready(const ModelRequest& request) const {
    for (const ModelRequest& other : requests) {
      const bool stands = other.live() || other.blocks();
      if (stands && other.lane() == request.lane() && other.place < request.place) return false;
    }
    return request.state == v1::REQUEST_STATE_QUEUED;
  }

  // Goes before the other, if both are ready: by priority, then by age. (The runs are too short for
  // age to outweigh a step of priority.)
  static bool before(const ModelRequest& a, const ModelRequest& b) {
    if (a.envelope.priority() != b.envelope.priority()) {
      return a.envelope.priority() > b.envelope.priority();
    }
    return a.place < b.place;
  }

  bool binds(const ModelRequest& request, TimeMs now_ms, const Limits& limits) const {
    return !request.envelope.idempotencykey().empty() &&
           now_ms < request.accepted_ms + limits.idempotency_ttl_ms;
  }

  // What submit must answer: a refusal's code, or the earlier request, or neither.
  struct Answer {
    bool refused = false;
    Code code = Code::kInternal;
    std::string duplicate;
  };
  Answer submit(const v1::Envelope& envelope, const Terms& terms, TimeMs now_ms,
                const Limits& limits) {
    now_ms = std::max(now_ms, last_ms);
    for (const ModelRequest& request : requests) {
      if (binds(request, now_ms, limits) && request.envelope.tenant() == envelope.tenant() &&
          request.envelope.idempotencykey() == envelope.idempotencykey()) {
        if (request.envelope.fingerprint() != envelope.fingerprint()) {
          return {true, Code::kIdempotencyMismatch, ""};
        }
        if (request.erased) return {true, Code::kGone, ""};
        return {false, Code::kInternal, request.id};
      }
    }
    if (terms.choices < 1 || terms.choices > kChoicesMax) return {true, Code::kInvalidArgument, ""};
    if (envelope.expirytime_ms() != 0 && envelope.expirytime_ms() <= now_ms) {
      return {true, Code::kExpired, ""};
    }
    if (const Answer full = room(envelope, terms.locked, limits); full.refused) return full;
    record(now_ms);
    ModelRequest request;
    request.envelope = envelope;
    request.id = RequestId::parse(envelope.id())->to_bytes();
    request.stream_usage = terms.stream_usage;
    request.choices = terms.choices;
    request.accepted_ms = last_ms;
    request.index = request.stored = request.place = index;
    request.block_on_dead = terms.block_on_dead && !envelope.partitionkey().empty();
    request.compose = terms.compose;
    requests.push_back(request);
    return {};
  }

  // What blocks a lane takes room like what is live.
  Answer room(const v1::Envelope& envelope, bool locked, const Limits& limits) const {
    std::size_t live = 0, bytes = envelope.data().size(), lane = 0;
    for (const ModelRequest& request : requests) {
      if (!request.live() && !request.blocks()) continue;
      ++live;
      bytes += request.envelope.data().size();
      lane += request.envelope.tenant() == envelope.tenant() &&
              request.envelope.partitionkey() == envelope.partitionkey();
    }
    const std::size_t sixteenth = envelope.priority() > 0 ? 0 : limits.live_requests_max / 16;
    const std::uint64_t sixteenth_bytes = envelope.priority() > 0 ? 0 : limits.live_bytes_max / 16;
    if (live >= limits.live_requests_max - sixteenth ||
        bytes > limits.live_bytes_max - sixteenth_bytes) {
      return {true, Code::kQueueFull, ""};
    }
    if (envelope.partitionkey().empty()) return {};
    if (locked && lane > 0) return {true, Code::kConversationLocked, ""};
    if (lane >= limits.lane_requests_max) return {true, Code::kQueueFull, ""};
    return {};
  }

  // What requeueing must answer; `duplicate` is the request that was made of it before.
  Answer requeue(const std::string& id, const std::string& new_id, TimeMs now_ms,
                 const Limits& limits) {
    ModelRequest& letter = *by_id(id);
    if (letter.state != v1::REQUEST_STATE_DEAD) return {true, Code::kConflict, ""};
    if (!letter.requeued_as.empty()) return {false, Code::kInternal, letter.requeued_as};
    if (letter.discarded || letter.compose) return {true, Code::kConflict, ""};
    if (!letter.blocks()) {
      if (const Answer full = room(letter.envelope, false, limits); full.refused) return full;
    }
    record(now_ms);
    ModelRequest request;
    request.envelope = letter.envelope;
    request.envelope.clear_idempotencykey();
    if (letter.envelope.expirytime_ms() != 0) {
      const TimeMs given_ms = letter.envelope.expirytime_ms() - letter.accepted_ms;
      request.envelope.set_expirytime_ms(last_ms + given_ms);
    }
    request.id = new_id;
    request.stream_usage = letter.stream_usage;
    request.choices = letter.choices;
    request.accepted_ms = last_ms;
    request.index = request.stored = index;
    request.place = letter.blocks() ? letter.place : index;
    request.block_on_dead = letter.block_on_dead;
    request.requeue_of = letter.id;
    letter.requeued_as = new_id;
    requests.push_back(request);
    return {};
  }

  // kConflict, or done.
  Answer discard(ModelRequest& letter, TimeMs now_ms) {
    if (letter.state != v1::REQUEST_STATE_DEAD || !letter.requeued_as.empty()) {
      return {true, Code::kConflict, ""};
    }
    if (letter.letter()) {
      record(now_ms);
      letter.discarded = true;
    }
    return {};
  }

  void start_epoch(TimeMs now_ms) {
    record(now_ms);
    ++epoch;
    for (ModelRequest& request : requests) {
      if (request.state == v1::REQUEST_STATE_RUNNING) request.state = v1::REQUEST_STATE_QUEUED;
    }
  }

  void lease(ModelRequest& request, std::uint64_t worker, const std::string& print, TimeMs now_ms) {
    record(now_ms);
    request.state = v1::REQUEST_STATE_RUNNING;
    ++request.attempt;
    request.attempt_from = request.events.size();
    request.worker = worker;
    request.how.Clear();
    request.goes_on = request.begun();
    if (!request.begun()) {
      if (request.attempt > 1) request.how.set_continuation("restarted");
      request.print = print;
      request.ids_from = request.events.size();
      return;
    }
    std::uint64_t ids = 0;
    std::uint64_t text_bytes = 0;
    bool all_ids = true;
    for (std::uint32_t choice = 0; choice < request.choices; ++choice) {
      const v1::ChoiceProgress brought = request.progress(choice);
      ids += static_cast<std::uint64_t>(brought.token_ids_size());
      text_bytes += brought.text().size();
      const bool content =
          brought.text().size() + brought.reasoning().size() > 0 || brought.tool_calls_size() > 0;
      all_ids = all_ids && (!content || brought.token_ids_size() > 0);
    }
    if (!print.empty() && print == request.print && all_ids) {
      request.how.set_continuation("exact");
      request.how.set_resumed_tokens(ids);
    } else {
      request.how.set_continuation("prefill");
      request.how.set_prefilled_bytes(text_bytes);
      request.how.set_regenerated_tokens(ids);
      request.print.clear();
    }
  }

  // What output must do: whether it is heard, and whether the worker must be told to stop.
  struct Heard {
    bool heard = false;
    bool stop = false;
  };
  Heard output(std::uint64_t worker, const v1::Output& output, TimeMs now_ms,
               const Limits& limits) {
    ModelRequest* found = current(worker, output.fence());
    if (found == nullptr) return {};
    ModelRequest& request = *found;
    if (output.has_failure()) {
      if (output.failure().code() == "invalid_argument") {
        end(request, v1::REQUEST_STATE_FAILED, now_ms);
      } else {
        end_attempt(request, true, now_ms, limits);
      }
      return {true, false};
    }
    const bool delta = output.token_ids_size() > 0 || !output.text().empty() ||
                       !output.reasoning().empty() || output.tool_calls_size() > 0 ||
                       output.embeddings_size() > 0;
    const bool finishes = !output.finish_reason().empty();
    const bool stays = !output.dropped() && (!finishes || output.more());
    if (output.embeddings_size() > 0 && !finishes) {
      end_attempt(request, true, now_ms, limits);
      return {true, stays};
    }
    if (delta || finishes) {
      if (output.choice() >= request.choices || request.finished(output.choice())) {
        end_attempt(request, true, now_ms, limits);
        return {true, stays};
      }
    }
    add_events(request, output, delta, now_ms);
    if (request.all_finished()) {
      request.finish_reason = request.progress(0).finish_reason();
      end(request, v1::REQUEST_STATE_COMPLETED, now_ms);
      return {true, stays};
    }
    if (finishes && !output.more()) {
      end_attempt(request, true, now_ms, limits);
    } else if (output.dropped()) {
      end_attempt(request, false, now_ms, limits);
    }
    return {true, false};
  }

  void take_back(std::uint64_t worker, const v1::Fence& fence, TimeMs now_ms,
                 const Limits& limits) {
    ModelRequest* request = current(worker, fence);
    if (request != nullptr) end_attempt(*request, false, now_ms, limits);
  }

  void worker_lost(std::uint64_t worker, TimeMs now_ms, const Limits& limits) {
    for (ModelRequest& request : requests) {
      if (request.state != v1::REQUEST_STATE_RUNNING || request.worker != worker) continue;
      const bool counts = !request.brought_something();
      if (counts) request.suspect = true;
      end_attempt(request, counts, now_ms, limits);
    }
  }

  void cancel(ModelRequest& request, TimeMs now_ms) {
    if (request.live()) end(request, v1::REQUEST_STATE_CANCELLED, now_ms);
  }

  void expire(TimeMs now_ms) {
    for (ModelRequest& request : requests) {
      const TimeMs expiry_ms = request.envelope.expirytime_ms();
      if (request.live() && expiry_ms != 0 && expiry_ms <= now_ms) {
        end(request, v1::REQUEST_STATE_EXPIRED, now_ms);
      }
    }
  }

  // With no bound on the count.
  void forget(TimeMs now_ms, std::uint64_t below, const Limits& limits) {
    const std::size_t before = requests.size();
    std::erase_if(requests, [&](const ModelRequest& request) {
      if (request.live() || request.blocks() || binds(request, now_ms, limits)) return false;
      if (now_ms < request.ended_ms + limits.retain_ms && request.stored >= below) return false;
      forgotten_until_ms = std::max(forgotten_until_ms, request.accepted_ms);
      return true;
    });
    if (requests.size() < before) record(now_ms);
  }

  void erase(ModelRequest& request, TimeMs now_ms) {
    if (request.erased) return;
    cancel(request, now_ms);
    record(now_ms);
    request.stored = index;
    request.erased = true;
    request.events.clear();
    request.attempt = request.failed = 0;
    request.finish_reason.clear();
  }

  void carry(ModelRequest& request, TimeMs now_ms) {
    record(now_ms);
    request.stored = index;
  }

 private:
  ModelRequest* current(std::uint64_t worker, const v1::Fence& fence) {
    ModelRequest* request = by_id(fence.request());
    if (request == nullptr || request->state != v1::REQUEST_STATE_RUNNING ||
        request->worker != worker || request->attempt != fence.attempt() ||
        epoch != fence.epoch()) {
      return nullptr;
    }
    return request;
  }

  void add_events(ModelRequest& request, const v1::Output& output, bool delta, TimeMs now_ms) {
    const std::size_t before = request.events.size();
    const auto add = [&](v1::EventKind kind, std::uint32_t choice) -> v1::Event& {
      auto event = std::make_shared<v1::Event>();
      event->set_kind(kind);
      event->set_choice(choice);
      request.events.push_back(event);
      return *event;
    };
    const bool finishes = !output.finish_reason().empty();
    if (before == 0 && (output.started() || delta || finishes)) {
      for (std::uint32_t choice = 0; choice < request.choices; ++choice) {
        add(v1::EVENT_KIND_START, choice);
      }
      v1::Usage usage;
      usage.set_prompt_tokens(output.prompt_tokens());
      usage.set_cached_prompt_tokens(output.cached_prompt_tokens());
      auto first = std::make_shared<v1::Event>(*request.events[0]);
      *first->mutable_usage() = usage;
      request.events[0] = first;
    }
    if (delta) {
      v1::Event& event = add(v1::EVENT_KIND_DELTA, output.choice());
      event.mutable_token_ids()->CopyFrom(output.token_ids());
      event.set_text(output.text());
      event.set_reasoning(output.reasoning());
      event.mutable_tool_calls()->CopyFrom(output.tool_calls());
      event.mutable_logprobs()->CopyFrom(output.logprobs());
      event.mutable_embeddings()->CopyFrom(output.embeddings());
      event.set_reasoning_tokens(output.reasoning_tokens());
      event.set_text_tokens(output.text_tokens());
    }
    if (finishes) {
      v1::Event& event = add(v1::EVENT_KIND_FINISH, output.choice());
      event.set_finish_reason(output.finish_reason());
      if (output.has_usage()) *event.mutable_usage() = total(request, output.usage());
      if (request.stream_usage && request.all_finished()) {
        const v1::Usage sum = request.usage();
        *add(v1::EVENT_KIND_USAGE, 0).mutable_usage() = sum;
      }
    }
    if (request.events.size() > before) record(now_ms);
  }

  // The attempt's own counts, and what the events before it add up to.
  static v1::Usage total(const ModelRequest& request, v1::Usage usage) {
    if (!request.goes_on) return usage;
    v1::Usage before;
    for (std::size_t i = 0; i < request.attempt_from; ++i) count_usage(*request.events[i], before);
    const std::uint32_t made = before.completion_tokens();
    const bool known = before.prompt_tokens() > 0;
    const std::uint32_t prompt = usage.prompt_tokens() > made ? usage.prompt_tokens() - made : 0;
    usage.set_prompt_tokens(known ? before.prompt_tokens() : prompt);
    usage.set_cached_prompt_tokens(known ? before.cached_prompt_tokens()
                                         : std::min(usage.cached_prompt_tokens(), prompt));
    usage.set_completion_tokens(made + usage.completion_tokens());
    usage.set_reasoning_tokens(before.reasoning_tokens() + usage.reasoning_tokens());
    return usage;
  }

  void record(TimeMs now_ms) {
    ++index;
    last_ms = std::max(last_ms, now_ms);
  }
  void end(ModelRequest& request, v1::RequestState state, TimeMs now_ms) {
    record(now_ms);
    request.state = state;
    request.ended_ms = last_ms;
  }
  void end_attempt(ModelRequest& request, bool counts, TimeMs now_ms, const Limits& limits) {
    record(now_ms);
    request.state = v1::REQUEST_STATE_QUEUED;
    if (counts && ++request.failed >= limits.attempts_max) {
      end(request, v1::REQUEST_STATE_DEAD, now_ms);
    }
  }
};

}  // namespace waystation::ledger::testing
