// The commands about requests that run: leases, what workers bring, how attempts end.
#include <string>
#include <utility>

#include "base/check.h"
#include "base/utf8.h"
#include "ledger/attempts.h"
#include "ledger/failure.h"
#include "ledger/ledger.h"

namespace waystation::ledger {
namespace {

// A failure that another try can't mend.
bool is_final(const v1::Failure& failure) {
  switch (code_from_name(failure.code())) {
    case Code::kInvalidArgument:
    case Code::kContextLengthExceeded:
    case Code::kTooLarge:
    case Code::kPermissionDenied:
    case Code::kModelNotFound:
    case Code::kNotFound:
    case Code::kUpstream:
    case Code::kLoop:
      return true;
    default:
      return false;
  }
}

// Protobuf writes a text field that isn't UTF-8 but doesn't read it back, and what a worker of this
// process brings wasn't parsed before.
bool is_text(const v1::Output& output) {
  for (const v1::ToolCallDelta& call : output.tool_calls()) {
    if (!is_utf8(call.id()) || !is_utf8(call.name()) || !is_utf8(call.arguments())) return false;
  }
  return is_utf8(output.text()) && is_utf8(output.reasoning()) && is_utf8(output.finish_reason());
}

bool is_text(const v1::Failure& failure) {
  return is_utf8(failure.code()) && is_utf8(failure.message()) && is_utf8(failure.param());
}

// It has a piece of a choice's answer.
bool has_content(const v1::Output& output) {
  return output.token_ids_size() > 0 || !output.text().empty() || !output.reasoning().empty() ||
         output.tool_calls_size() > 0 || output.embeddings_size() > 0;
}

// Every choice but this one has finished.
bool is_last_choice(const Request& request, std::uint32_t choice) {
  for (std::uint32_t i = 0; i < request.choice_count; ++i) {
    if (i != choice && request.choices[i].finish_reason.empty()) return false;
  }
  return true;
}

}  // namespace

v1::Fence Ledger::fence_of(const Request& request) const {
  v1::Fence fence;
  fence.set_epoch(epoch_.value);
  fence.set_request(request.id.to_bytes());
  fence.set_attempt(request.attempt);
  return fence;
}

void Ledger::lease(RequestId id, const Runner& runner, TimeMs now_ms, Proposal& out) {
  const auto at = requests_.find(id);
  CHECK(at != requests_.end());
  Request& request = *at->second;
  CHECK(request.state == v1::REQUEST_STATE_QUEUED);
  v1::Record record;
  v1::Leased& leased = *record.mutable_leased();
  leased.set_request(id.to_bytes());
  leased.set_attempt(request.attempt + 1);
  leased.set_worker(runner.worker.value);
  leased.set_worker_name(runner.worker_name);
  leased.set_model(runner.model);
  leased.set_fingerprint(runner.fingerprint);
  commit(std::move(record), now_ms, out);

  StartWork start{runner.worker, {}};
  *start.assign.mutable_fence() = fence_of(request);
  *start.assign.mutable_envelope() = *request.envelope;
  start.assign.mutable_envelope()->set_attempt(request.attempt);
  start.assign.set_model(runner.model.empty() ? request.model : runner.model);
  start.assign.set_choices(request.choice_count);
  if (request.begun()) {
    for (const Choice& choice : request.choices) write_progress(choice, *start.assign.add_resume());
  }
  out.effects.push_back(std::move(start));
}

bool Ledger::is_current(WorkerId worker, const v1::Fence& fence) const {
  const auto id = RequestId::from_bytes(fence.request());
  const Request* request = id && fence.epoch() == epoch_.value ? find(*id) : nullptr;
  return request != nullptr && request->state == v1::REQUEST_STATE_RUNNING &&
         request->attempt == fence.attempt() && request->worker == worker;
}

bool Ledger::output(WorkerId worker, const v1::Output& output, TimeMs now_ms, Proposal& out) {
  if (!is_current(worker, output.fence())) return false;
  Request& request = *requests_.at(*RequestId::from_bytes(output.fence().request()));
  if (output.has_failure()) {
    v1::Failure failure = output.failure();
    if (!is_text(failure)) {
      failure = make_failure(code_from_name(failure.code()), "the worker's message isn't UTF-8");
    }
    if (is_final(failure)) {
      const bool went_on = request.begun() && failure.code() == code_name(Code::kUpstream);
      if (const std::string broke = went_on ? what_broke(request) : ""; !broke.empty()) {
        failure.set_message(broke + "; " + failure.message());
      }
      settle(request, v1::REQUEST_STATE_FAILED, "", std::move(failure), now_ms, out);
    } else {
      end_attempt(request, v1::ATTEMPT_END_ENGINE_ERROR, failure.message(), true, now_ms, out);
    }
    return true;
  }
  const bool finishes = !output.finish_reason().empty();
  const bool is_open = output.choice() < request.choice_count &&
                       request.choices[output.choice()].finish_reason.empty();
  if (!is_text(output)) {
    end_attempt(request, v1::ATTEMPT_END_ENGINE_ERROR, "the worker sent text that isn't UTF-8",
                true, now_ms, out);
  } else if (output.embeddings_size() > 0 && !finishes) {
    // They are no beginning to go on from: the next attempt would bring all of them again.
    end_attempt(request, v1::ATTEMPT_END_ENGINE_ERROR,
                "the worker sent embeddings without a finish reason", true, now_ms, out);
  } else if ((finishes || has_content(output)) && !is_open) {
    // Nothing may follow a finish event; a worker that tries is broken.
    end_attempt(
        request, v1::ATTEMPT_END_ENGINE_ERROR,
        "the worker wrote to choice " + std::to_string(output.choice()) + ", which isn't open",
        true, now_ms, out);
  } else {
    append_events(request, output, now_ms, out);
    if (request.all_finished()) {
      settle(request, v1::REQUEST_STATE_COMPLETED, request.choices[0].finish_reason, {}, now_ms,
             out);
    } else if (finishes && !output.more()) {
      end_attempt(request, v1::ATTEMPT_END_ENGINE_ERROR,
                  "the worker ended before every choice was finished", true, now_ms, out);
    } else if (output.dropped()) {
      end_attempt(request, v1::ATTEMPT_END_RETURNED, "the worker gave it back", false, now_ms, out);
    }
  }
  // It ended here, and the worker believes that it goes on.
  const bool goes_on = !output.dropped() && (!finishes || output.more());
  if (goes_on && !is_current(worker, output.fence())) {
    out.effects.push_back(StopWork{worker, output.fence()});
  }
  return true;
}

void Ledger::append_events(Request& request, const v1::Output& output, TimeMs now_ms,
                           Proposal& out) {
  v1::Record record;
  v1::Appended& appended = *record.mutable_appended();
  const bool brings_something = has_content(output);
  const bool finishes = !output.finish_reason().empty();
  if (request.event_count == 0 && (output.started() || brings_something || finishes)) {
    for (std::uint32_t choice = 0; choice < request.choice_count; ++choice) {
      v1::Event& start = *appended.add_events();
      start.set_kind(v1::EVENT_KIND_START);
      start.set_choice(choice);
      if (choice > 0) continue;
      start.mutable_usage()->set_prompt_tokens(output.prompt_tokens());
      start.mutable_usage()->set_cached_prompt_tokens(output.cached_prompt_tokens());
    }
  }
  if (brings_something) {
    v1::Event& delta = *appended.add_events();
    delta.set_kind(v1::EVENT_KIND_DELTA);
    delta.set_choice(output.choice());
    *delta.mutable_token_ids() = output.token_ids();
    delta.set_text(output.text());
    delta.set_reasoning(output.reasoning());
    *delta.mutable_tool_calls() = output.tool_calls();
    *delta.mutable_logprobs() = output.logprobs();
    *delta.mutable_embeddings() = output.embeddings();
    delta.set_reasoning_tokens(output.reasoning_tokens());
    delta.set_text_tokens(output.text_tokens());
  }
  if (finishes) {
    v1::Event& finish = *appended.add_events();
    finish.set_kind(v1::EVENT_KIND_FINISH);
    finish.set_choice(output.choice());
    finish.set_finish_reason(output.finish_reason());
    if (output.has_usage()) *finish.mutable_usage() = usage_of_all(request, output.usage());
  }
  if (appended.events_size() == 0) return;
  if (finishes && request.stream_usage && is_last_choice(request, output.choice())) {
    v1::Usage usage = request.usage;
    for (const v1::Event& event : appended.events()) add_usage(event, usage);
    v1::Event& last = *appended.add_events();
    last.set_kind(v1::EVENT_KIND_USAGE);
    *last.mutable_usage() = std::move(usage);
  }
  appended.set_request(request.id.to_bytes());
  appended.set_attempt(request.attempt);
  appended.set_first_sequence(request.event_count);
  commit(std::move(record), now_ms, out);
}

void Ledger::end_attempt(Request& request, v1::AttemptEnd cause, const std::string& detail,
                         bool counts, TimeMs now_ms, Proposal& out) {
  v1::Record record;
  v1::AttemptEnded& ended = *record.mutable_attempt_ended();
  ended.set_request(request.id.to_bytes());
  ended.set_attempt(request.attempt);
  ended.set_cause(cause);
  ended.set_detail(detail);
  ended.set_counts(counts);
  commit(std::move(record), now_ms, out);
  if (request.failed_attempts >= limits_.attempts_max) give_up(request, detail, now_ms, out);
}

void Ledger::give_up(Request& request, const std::string& detail, TimeMs now_ms, Proposal& out) {
  settle(request, v1::REQUEST_STATE_DEAD, "",
         make_failure(Code::kDead, "gave up after " + std::to_string(request.failed_attempts) +
                                       " failed attempts; the last one: " + detail),
         now_ms, out);
}

void Ledger::settle(Request& request, v1::RequestState state, std::string finish_reason,
                    v1::Failure failure, TimeMs now_ms, Proposal& out) {
  v1::Record record;
  v1::Settled& settled = *record.mutable_settled();
  settled.set_request(request.id.to_bytes());
  settled.set_state(state);
  settled.set_finish_reason(std::move(finish_reason));
  if (!failure.code().empty()) *settled.mutable_failure() = std::move(failure);
  *settled.mutable_usage() = request.usage;
  commit(std::move(record), now_ms, out);
}

void Ledger::worker_lost(WorkerId worker, const std::string& reason, TimeMs now_ms, Proposal& out) {
  const auto at = running_.find(worker);
  if (at == running_.end()) return;
  const std::set<RequestId> ids = at->second;  // a copy: ending attempts changes it
  for (const RequestId id : ids) {
    Request& request = *requests_.at(id);
    end_attempt(request, v1::ATTEMPT_END_WORKER_LOST, reason, !request.token_in_attempt, now_ms,
                out);
  }
}

void Ledger::worker_left(WorkerId worker, TimeMs now_ms, Proposal& out) {
  const auto at = running_.find(worker);
  if (at == running_.end()) return;
  const std::set<RequestId> ids = at->second;
  for (const RequestId id : ids) {
    end_attempt(*requests_.at(id), v1::ATTEMPT_END_RETURNED, "the worker left", false, now_ms, out);
  }
}

void Ledger::take_back(WorkerId worker, const v1::Fence& fence, const std::string& why,
                       TimeMs now_ms, Proposal& out) {
  if (!is_current(worker, fence)) return;
  end_attempt(*requests_.at(*RequestId::from_bytes(fence.request())), v1::ATTEMPT_END_RETURNED, why,
              false, now_ms, out);
}

}  // namespace waystation::ledger
