// The commands: they decide, write records, and let `apply` (apply.cc) change the state.
#include "ledger/ledger.h"

#include <algorithm>

#include "base/check.h"
#include "base/utf8.h"
#include "ledger/attempts.h"

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

// The same for what a worker brings: a worker of this process wasn't parsed before.
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

// How much of the queue a request of this priority may fill.
struct Room {
  std::size_t requests;
  std::uint64_t bytes;
};

// The last sixteenth is for requests of priority, which a flood of others would shut out: to go
// before all that wait helps nobody who isn't let in.
Room room_for(std::int32_t priority, const Limits& limits) {
  if (priority > 0) return {limits.live_requests_max, limits.live_bytes_max};
  return {limits.live_requests_max - limits.live_requests_max / 16,
          limits.live_bytes_max - limits.live_bytes_max / 16};
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
    if (request->all_finished()) {
      settle(*request, v1::REQUEST_STATE_COMPLETED, request->choices[0].finish_reason, {}, now_ms,
             out);
    } else if (request->failed_attempts >= limits_.attempts_max) {
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
  if (earlier->erased) {
    return Error{Code::kGone,
                 "the request of this Idempotency-Key was deleted; use a new key to ask again",
                 "Idempotency-Key"};
  }
  return std::optional(Accepted{earlier->id, true, earlier->accepted_ms});
}

Status Ledger::has_room(const v1::Envelope& envelope, bool locked) const {
  const auto full = [](std::string message) {
    return Error{Code::kQueueFull, std::move(message), {}, 1000};
  };
  const Room room = room_for(envelope.priority(), limits_);
  if (queued_.size() + running_count_ + blocking_.size() >= room.requests) {
    return full("the queue is full (" + std::to_string(room.requests) +
                " requests); try again later");
  }
  if (live_bytes_ + envelope.data().size() > room.bytes) {
    return full("the queue holds as many bytes as it may; try again later");
  }
  if (envelope.partitionkey().empty()) return {};
  const auto lane = lanes_.find(envelope.tenant() + '\0' + envelope.partitionkey());
  if (lane == lanes_.end()) return {};
  const auto& requests = lane->second.requests;
  if (locked && requests.front()->blocks_lane()) {
    return Error{Code::kConversationLocked, "the conversation is blocked by its dead request " +
                                                requests.front()->id.to_string() +
                                                "; requeue or discard that one"};
  }
  if (locked) {
    return Error{Code::kConversationLocked,
                 "the conversation has a turn that isn't done; wait for it, or cancel it"};
  }
  if (requests.size() >= limits_.lane_requests_max) {
    return full("the conversation has " + std::to_string(limits_.lane_requests_max) +
                " requests waiting; try again later");
  }
  return {};
}

Result<Accepted> Ledger::submit(v1::Envelope envelope, const Terms& terms, TimeMs now_ms,
                                Proposal& out) {
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
  if (terms.choices == 0 || terms.choices > kChoicesMax) {
    return Error{Code::kInvalidArgument,
                 "a request may have 1 to " + std::to_string(kChoicesMax) + " choices", "n"};
  }
  if (envelope.expirytime_ms() != 0 && envelope.expirytime_ms() <= now_ms) {
    return Error{Code::kExpired, "the request's deadline had passed when it arrived"};
  }
  if (Status room = has_room(envelope, terms.locked); !room) return room.error();
  v1::Record record;
  v1::Accepted& accepted = *record.mutable_accepted();
  *accepted.mutable_envelope() = std::move(envelope);
  accepted.set_detached(terms.detached);
  accepted.set_stream_usage(terms.stream_usage);
  if (terms.choices > 1) accepted.set_choices(terms.choices);
  accepted.set_compose(terms.compose);
  accepted.set_block_on_dead(terms.block_on_dead && !accepted.envelope().partitionkey().empty());
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

void Ledger::erase(RequestId id, const std::string& reason, TimeMs now_ms, Proposal& out) {
  const Request* request = find(id);
  if (request == nullptr || request->erased) return;
  cancel(id, reason, now_ms, out);
  v1::Record record;
  record.mutable_erased()->set_request(id.to_bytes());
  commit(std::move(record), now_ms, out);
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
    const Request& request = *requests_.at(id);
    if (!key_binds(request, now_ms) && !request.blocks_lane()) {
      forgotten.add_requests(id.to_bytes());
    }
  }
  for (const auto& [stored, request] : by_stored_) {
    if (stored >= below) break;
    if (static_cast<std::size_t>(forgotten.requests_size()) >= count_max) break;
    const bool taken_above = now_ms - request->ended_ms >= limits_.retain_ms;
    if (request->live() || request->blocks_lane()) continue;
    if (!taken_above && !key_binds(*request, now_ms)) {
      forgotten.add_requests(request->id.to_bytes());
    }
  }
  if (forgotten.requests_size() > 0) commit(std::move(record), now_ms, out);
}

void Ledger::carry(RequestId id, std::vector<v1::Event> events, std::optional<v1::Envelope> body,
                   TimeMs now_ms, Proposal& out) {
  const auto at = requests_.find(id);
  CHECK(at != requests_.end() && events.size() == at->second->event_count);
  v1::Record record;
  v1::Carried& carried = *record.mutable_carried();
  carried.set_request(id.to_bytes());
  for (v1::Event& event : events) *carried.add_events() = std::move(event);
  if (at->second->envelope) {
    *carried.mutable_envelope() = *at->second->envelope;
  } else if (body && at->second->open_letter()) {
    *carried.mutable_envelope() = std::move(*body);
  }
  commit(std::move(record), now_ms, out);
}

Result<const Request*> Ledger::find(const std::string& tenant, RequestId id) const {
  const Request* request = find(id);
  if (request != nullptr && request->tenant == tenant) {
    if (!request->erased) return request;
    return Error{Code::kGone, "the request was deleted"};
  }
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
  const auto place = [](const Request& r) {
    return std::pair(lane_place(r.priority, r.place), r.place);
  };
  std::uint64_t position = 1;
  for (const auto& [accepted, other] : queued_) {
    if (other->model == request.model && place(*other) < place(request)) ++position;
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

std::vector<const Request*> Ledger::cacheable() const {
  std::map<LogIndex, const Request*> by_acceptance;
  for (const auto& [id, request] : requests_) {
    if (request->cache_key.empty()) continue;
    if (!request->live() && request->state != v1::REQUEST_STATE_COMPLETED) continue;
    by_acceptance.emplace(request->accepted_index, request.get());
  }
  std::vector<const Request*> found;
  found.reserve(by_acceptance.size());
  for (const auto& [accepted, request] : by_acceptance) found.push_back(request);
  return found;
}

std::vector<const Request*> Ledger::ahead_of(const Request& request) const {
  std::vector<const Request*> ahead;
  if (!request.live()) return ahead;
  for (const Request* other : lanes_.at(request.lane).requests) {
    if (other == &request) break;
    ahead.push_back(other);
  }
  return ahead;
}

std::vector<v1::Fence> Ledger::running_on(WorkerId worker) const {
  std::vector<v1::Fence> fences;
  if (const auto at = running_.find(worker); at != running_.end()) {
    for (const RequestId id : at->second) fences.push_back(fence_of(*requests_.at(id)));
  }
  return fences;
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
          live_bytes_,    open_letters_,  blocking_.size()};
}

}  // namespace waystation::ledger
