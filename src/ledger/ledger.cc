// The commands: they decide, write records, and let `apply` (apply.cc) change the state.
#include "ledger/ledger.h"

#include <algorithm>

#include "base/check.h"

namespace waystation::ledger {
namespace {

// A failure that another try can't mend.
bool is_final(const v1::Failure& failure) {
  switch (code_from_name(failure.code())) {
    case Code::kInvalidArgument:
    case Code::kContextLengthExceeded:
    case Code::kTooLarge:
    case Code::kPermissionDenied:
      return true;
    default:
      return false;
  }
}

v1::Failure make_failure(Code code, std::string message) {
  v1::Failure failure;
  failure.set_code(std::string(code_name(code)));
  failure.set_message(std::move(message));
  return failure;
}

// Protobuf writes a text field that isn't UTF-8 but doesn't read it back: a record with one would
// make the journal unreadable.
bool survives_the_journal(v1::Envelope& envelope) {
  std::string data = std::move(*envelope.mutable_data());  // bytes; spares the copy
  envelope.clear_data();
  v1::Envelope read;
  const bool survives = read.ParseFromString(envelope.SerializeAsString());
  envelope.set_data(std::move(data));
  return survives;
}

}  // namespace

Ledger::Ledger(Limits limits, std::unique_ptr<LaneOrder> order)
    : limits_(limits), order_(std::move(order)) {}

void Ledger::commit(v1::Record record, TimeMs now_ms, Proposal& out) {
  record.set_time_ms(std::max(now_ms, last_time_ms_));
  const Status applied = apply(record, LogIndex{index_.value + 1});
  CHECK(applied.has_value());  // a command never makes a record that doesn't fit
  out.records.push_back(std::move(record));
}

void Ledger::start_epoch(std::string version, TimeMs now_ms, Proposal& out) {
  v1::Record record;
  record.mutable_epoch_started()->set_epoch(epoch_.value + 1);
  record.mutable_epoch_started()->set_version(std::move(version));
  commit(std::move(record), now_ms, out);
  // The log may end between the records of one command. What they had decided is decided again.
  std::vector<Request*> queued;
  for (const auto& [accepted, request] : queued_) queued.push_back(request);
  for (Request* request : queued) {
    if (!request->finish_reason.empty()) {
      settle(*request, v1::REQUEST_STATE_COMPLETED, request->finish_reason, {}, now_ms, out);
    } else if (request->suspect() && request->failed_attempts >= limits_.attempts_max) {
      give_up(*request, request->attempts.back().detail(), now_ms, out);
    }
  }
}

bool Ledger::key_binds(const Request& request, TimeMs now_ms) const {
  return !request.idempotency_key.empty() &&
         now_ms - request.accepted_ms < limits_.idempotency_ttl_ms;
}

Result<std::optional<Accepted>> Ledger::find_duplicate(const v1::Envelope& envelope,
                                                       TimeMs now_ms) const {
  if (envelope.idempotencykey().empty()) return std::optional<Accepted>();
  const auto bound = keys_.find({envelope.tenant(), envelope.idempotencykey()});
  if (bound == keys_.end()) return std::optional<Accepted>();
  const Request* earlier = find(bound->second);
  CHECK(earlier != nullptr);
  if (!key_binds(*earlier, now_ms)) return std::optional<Accepted>();
  if (earlier->fingerprint != envelope.fingerprint()) {
    return Error{Code::kIdempotencyMismatch,
                 "this Idempotency-Key was used with another body; use a new key for a new request",
                 "Idempotency-Key"};
  }
  return std::optional(Accepted{earlier->id, true, earlier->accepted_ms});
}

Result<Accepted> Ledger::submit(v1::Envelope envelope, bool detached, bool stream_usage,
                                TimeMs now_ms, Proposal& out) {
  now_ms = std::max(now_ms, last_time_ms_);
  auto duplicate = find_duplicate(envelope, now_ms);
  if (!duplicate) return duplicate.error();
  if (*duplicate) return **duplicate;

  if (!survives_the_journal(envelope)) {
    return Error{Code::kInvalidArgument, "a header or a name isn't UTF-8"};
  }
  const auto id = RequestId::parse(envelope.id());
  if (!id || requests_.contains(*id)) {
    return Error{Code::kInvalidArgument, "the envelope's id must be a new UUID", "id"};
  }
  if (envelope.expirytime_ms() != 0 && envelope.expirytime_ms() <= now_ms) {
    return Error{Code::kExpired, "the request's deadline had passed when it arrived"};
  }
  const auto full = [](std::string message) {
    return Error{Code::kQueueFull, std::move(message), {}, 1000};
  };
  if (queued_.size() + running_count_ >= limits_.live_requests_max) {
    return full("the queue is full (" + std::to_string(limits_.live_requests_max) +
                " requests); try again later");
  }
  if (live_bytes_ + envelope.data().size() > limits_.live_bytes_max) {
    return full("the queue holds as many bytes as it may; try again later");
  }
  if (!envelope.partitionkey().empty()) {
    const auto lane = lanes_.find(envelope.tenant() + '\0' + envelope.partitionkey());
    if (lane != lanes_.end() && lane->second.requests.size() >= limits_.lane_requests_max) {
      return full("the conversation has " + std::to_string(limits_.lane_requests_max) +
                  " requests waiting; try again later");
    }
  }
  v1::Record record;
  v1::Accepted& accepted = *record.mutable_accepted();
  *accepted.mutable_envelope() = std::move(envelope);
  accepted.set_detached(detached);
  accepted.set_stream_usage(stream_usage);
  commit(std::move(record), now_ms, out);
  return Accepted{*id, false, last_time_ms_};
}

v1::Fence Ledger::fence_of(const Request& request) const {
  v1::Fence fence;
  fence.set_epoch(epoch_.value);
  fence.set_request(request.id.to_bytes());
  fence.set_attempt(request.attempt);
  return fence;
}

void Ledger::lease(RequestId id, WorkerId worker, const std::string& worker_name, TimeMs now_ms,
                   Proposal& out) {
  const auto at = requests_.find(id);
  CHECK(at != requests_.end());
  Request& request = *at->second;
  CHECK(request.state == v1::REQUEST_STATE_QUEUED);
  v1::Record record;
  v1::Leased& leased = *record.mutable_leased();
  leased.set_request(id.to_bytes());
  leased.set_attempt(request.attempt + 1);
  leased.set_worker(worker.value);
  leased.set_worker_name(worker_name);
  commit(std::move(record), now_ms, out);

  StartWork start{worker, {}};
  *start.assign.mutable_fence() = fence_of(request);
  *start.assign.mutable_envelope() = *request.envelope;
  start.assign.mutable_envelope()->set_attempt(request.attempt);
  start.assign.mutable_resume_token_ids()->Add(request.token_ids.begin(), request.token_ids.end());
  start.assign.set_resume_text_bytes(request.text_bytes);
  out.effects.push_back(std::move(start));
}

bool Ledger::output(WorkerId worker, const v1::Output& output, TimeMs now_ms, Proposal& out) {
  const v1::Fence& fence = output.fence();
  const auto id = RequestId::from_bytes(fence.request());
  if (!id || fence.epoch() != epoch_.value) return false;
  const auto at = requests_.find(*id);
  if (at == requests_.end()) return false;
  Request& request = *at->second;
  if (request.state != v1::REQUEST_STATE_RUNNING || request.attempt != fence.attempt() ||
      request.worker != worker) {
    return false;
  }
  if (output.has_failure()) {
    if (is_final(output.failure())) {
      settle(request, v1::REQUEST_STATE_FAILED, "", output.failure(), now_ms, out);
    } else {
      end_attempt(request, v1::ATTEMPT_END_ENGINE_ERROR, output.failure().message(), true, now_ms,
                  out);
    }
    return true;
  }
  append_events(request, output, now_ms, out);
  if (!output.finish_reason().empty()) {  // a finish event is stored: nothing may follow it
    settle(request, v1::REQUEST_STATE_COMPLETED, output.finish_reason(), {}, now_ms, out);
  } else if (output.dropped()) {
    end_attempt(request, v1::ATTEMPT_END_RETURNED, "the worker gave it back", false, now_ms, out);
  }
  return true;
}

void Ledger::append_events(Request& request, const v1::Output& output, TimeMs now_ms,
                           Proposal& out) {
  v1::Record record;
  v1::Appended& appended = *record.mutable_appended();
  const bool brings_text = output.token_ids_size() > 0 || !output.text().empty();
  const bool finishes = !output.finish_reason().empty();
  if (request.event_count == 0 && (output.started() || brings_text || finishes)) {
    v1::Event& start = *appended.add_events();
    start.set_kind(v1::EVENT_KIND_START);
    start.mutable_usage()->set_prompt_tokens(output.prompt_tokens());
    start.mutable_usage()->set_cached_prompt_tokens(output.cached_prompt_tokens());
  }
  if (brings_text) {
    v1::Event& delta = *appended.add_events();
    delta.set_kind(v1::EVENT_KIND_DELTA);
    *delta.mutable_token_ids() = output.token_ids();
    delta.set_text(output.text());
  }
  if (finishes) {
    v1::Event& finish = *appended.add_events();
    finish.set_kind(v1::EVENT_KIND_FINISH);
    finish.set_finish_reason(output.finish_reason());
    if (request.stream_usage) {
      v1::Event& usage = *appended.add_events();
      usage.set_kind(v1::EVENT_KIND_USAGE);
      *usage.mutable_usage() = request.usage;
      if (request.event_count == 0) {
        usage.mutable_usage()->set_prompt_tokens(output.prompt_tokens());
        usage.mutable_usage()->set_cached_prompt_tokens(output.cached_prompt_tokens());
      }
      usage.mutable_usage()->set_completion_tokens(
          static_cast<std::uint32_t>(request.token_ids.size()) +
          static_cast<std::uint32_t>(output.token_ids_size()));
    }
  }
  if (appended.events_size() == 0) return;
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
  settled.mutable_usage()->set_completion_tokens(
      static_cast<std::uint32_t>(request.token_ids.size()));
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

void Ledger::cancel(RequestId id, const std::string& reason, TimeMs now_ms, Proposal& out) {
  const auto at = requests_.find(id);
  if (at == requests_.end() || !at->second->live()) return;
  Request& request = *at->second;
  if (request.state == v1::REQUEST_STATE_RUNNING) {
    out.effects.push_back(StopWork{request.worker, fence_of(request)});
  }
  settle(request, v1::REQUEST_STATE_CANCELLED, "", make_failure(Code::kCancelled, reason), now_ms,
         out);
}

void Ledger::expire(TimeMs now_ms, Proposal& out) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_ms) {
    Request& request = *requests_.at(deadlines_.begin()->second);
    if (request.state == v1::REQUEST_STATE_RUNNING) {
      out.effects.push_back(StopWork{request.worker, fence_of(request)});
    }
    settle(request, v1::REQUEST_STATE_EXPIRED, "",
           make_failure(Code::kExpired, "the request's deadline passed before it was done"), now_ms,
           out);
  }
}

TimeMs Ledger::next_expiry_ms() const {
  return deadlines_.empty() ? 0 : deadlines_.begin()->first;
}

void Ledger::forget(TimeMs now_ms, LogIndex below, std::size_t count_max, Proposal& out) {
  v1::Record record;
  v1::Forgotten& forgotten = *record.mutable_forgotten();
  for (const auto& [ended_ms, id] : ended_) {
    if (now_ms - ended_ms < limits_.retain_ms) break;
    if (static_cast<std::size_t>(forgotten.requests_size()) >= count_max) break;
    if (!key_binds(*requests_.at(id), now_ms)) forgotten.add_requests(id.to_bytes());
  }
  for (const auto& [stored, request] : by_stored_) {
    if (stored >= below) break;
    if (static_cast<std::size_t>(forgotten.requests_size()) >= count_max) break;
    const bool taken_above = now_ms - request->ended_ms >= limits_.retain_ms;
    if (!request->live() && !taken_above && !key_binds(*request, now_ms)) {
      forgotten.add_requests(request->id.to_bytes());
    }
  }
  if (forgotten.requests_size() > 0) commit(std::move(record), now_ms, out);
}

void Ledger::carry(RequestId id, std::vector<v1::Event> events, TimeMs now_ms, Proposal& out) {
  const auto at = requests_.find(id);
  CHECK(at != requests_.end() && events.size() == at->second->event_count);
  v1::Record record;
  v1::Carried& carried = *record.mutable_carried();
  carried.set_request(id.to_bytes());
  for (v1::Event& event : events) *carried.add_events() = std::move(event);
  commit(std::move(record), now_ms, out);
}

Result<const Request*> Ledger::find(const std::string& tenant, RequestId id) const {
  const Request* request = find(id);
  if (request != nullptr && request->tenant == tenant) return request;
  // Another tenant's request gets the answer that its id would get if there were no such request.
  if (id.time_ms() <= forgotten_until_ms_) {
    return Error{Code::kGone, "the request is past its retention; its result is no longer kept"};
  }
  return Error{Code::kNotFound, "no request has the id " + id.to_string()};
}

const Request* Ledger::find(RequestId id) const {
  const auto at = requests_.find(id);
  return at == requests_.end() ? nullptr : at->second.get();
}

std::uint64_t Ledger::queue_position(const Request& request) const {
  if (request.state != v1::REQUEST_STATE_QUEUED) return 0;
  std::uint64_t position = 1;
  for (const auto& [accepted, other] : queued_) {
    if (accepted >= request.accepted_index) break;
    if (other->model == request.model) ++position;
  }
  return position;
}

std::vector<RequestId> Ledger::live() const {
  std::map<LogIndex, RequestId> by_acceptance;
  for (const auto& [accepted, request] : queued_) by_acceptance.emplace(accepted, request->id);
  for (const auto& [worker, ids] : running_) {
    for (const RequestId id : ids) by_acceptance.emplace(requests_.at(id)->accepted_index, id);
  }
  std::vector<RequestId> ids;
  ids.reserve(by_acceptance.size());
  for (const auto& [accepted, id] : by_acceptance) ids.push_back(id);
  return ids;
}

std::vector<RequestId> Ledger::stored_below(LogIndex index, std::size_t count_max) const {
  std::vector<RequestId> ids;
  for (const auto& [stored, request] : by_stored_) {
    if (stored >= index || ids.size() >= count_max) break;
    ids.push_back(request->id);
  }
  return ids;
}

LogIndex Ledger::oldest_needed() const {
  return by_stored_.empty() ? LogIndex{} : by_stored_.begin()->first;
}

Counts Ledger::counts() const {
  return {queued_.size(), running_count_, requests_.size() - queued_.size() - running_count_,
          live_bytes_};
}

}  // namespace waystation::ledger
