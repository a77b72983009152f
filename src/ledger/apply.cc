// How each record changes the state. Everything here must depend on the records alone (I7): no
// limits, no clock.
#include <algorithm>
#include <limits>

#include "base/check.h"
#include "ledger/attempts.h"
#include "ledger/ledger.h"
#include "ledger/misfit.h"

namespace waystation::ledger {
namespace {

// In one lane. Two have one place when the later one has taken it.
bool goes_before(const Request& a, const Request& b) {
  return a.place < b.place || (a.place == b.place && a.accepted_index > b.accepted_index);
}

}  // namespace

Status Ledger::apply(const v1::Record& record, LogIndex index) {
  if (index.value != index_.value + 1) {
    return misfit("record " + std::to_string(index.value) + " after " +
                  std::to_string(index_.value));
  }
  if (record.time_ms() < last_time_ms_) return misfit("time goes back");
  if (Status applied = apply_body(record, index, record.time_ms()); !applied) return applied;
  index_ = index;
  last_time_ms_ = record.time_ms();
  return {};
}

Status Ledger::apply_body(const v1::Record& record, LogIndex index, TimeMs now_ms) {
  switch (record.body_case()) {
    case v1::Record::kEpochStarted:
      return apply_epoch(record.epoch_started(), now_ms);
    case v1::Record::kAccepted:
      return apply_accepted(record.accepted(), index, now_ms);
    case v1::Record::kLeased:
      return apply_leased(record.leased(), now_ms);
    case v1::Record::kAppended:
      return apply_appended(record.appended(), index, now_ms);
    case v1::Record::kAttemptEnded:
      return apply_attempt_ended(record.attempt_ended(), now_ms);
    case v1::Record::kSettled:
      return apply_settled(record.settled(), now_ms);
    case v1::Record::kForgotten:
      return apply_forgotten(record.forgotten());
    case v1::Record::kCarried:
      return apply_carried(record.carried(), index);
    case v1::Record::kErased:
      return apply_erased(record.erased(), index);
    case v1::Record::kDiscarded:
      return apply_discarded(record.discarded());
    case v1::Record::BODY_NOT_SET:
      break;
  }
  return misfit("its kind is unknown; it was written by a newer version of Waystation");
}

Status Ledger::apply_epoch(const v1::EpochStarted& body, TimeMs now_ms) {
  if (body.epoch() <= epoch_.value) return misfit("an epoch that isn't newer");
  // Epochs are counted up by one; a leap would leave no room to go on counting.
  if (body.epoch() - epoch_.value > std::numeric_limits<std::uint32_t>::max()) {
    return misfit("an epoch that is far too new");
  }
  epoch_ = Epoch{body.epoch()};
  const auto running = std::move(running_);
  running_.clear();
  for (const auto& [worker, ids] : running) {
    for (const RequestId id : ids) {
      --running_count_;
      requeue(*requests_.at(id), "server_restart", "", now_ms);
    }
  }
  return {};
}

Status Ledger::apply_accepted(const v1::Accepted& body, LogIndex index, TimeMs now_ms) {
  const v1::Envelope& envelope = body.envelope();
  const auto id = RequestId::parse(envelope.id());
  if (!id || requests_.contains(*id)) return misfit("an acceptance without a new id");
  Request* letter = nullptr;  // that it is made of
  if (!body.requeue_of().empty()) {
    const auto found = find_open_letter(body.requeue_of(), "requeueing");
    if (!found) return found.error();
    letter = *found;
    if (letter->tenant != envelope.tenant() || letter->conversation != envelope.partitionkey()) {
      return misfit("requeueing in another lane");
    }
    if (letter->blocks_lane() != body.first_in_lane()) return misfit("requeueing at another place");
  }
  auto request = std::make_unique<Request>();
  request->id = *id;
  request->tenant = envelope.tenant();
  request->model = envelope.model();
  request->api = envelope.api();
  request->conversation = envelope.partitionkey();
  request->idempotency_key = envelope.idempotencykey();
  request->fingerprint = envelope.fingerprint();
  request->cache_key = envelope.cachekey();
  request->priority = envelope.priority();
  if (body.choices() > kChoicesMax) return misfit("an acceptance with too many choices");
  request->choice_count = std::max(body.choices(), 1U);
  request->choices.resize(request->choice_count);
  request->detached = body.detached();
  request->stream_usage = body.stream_usage();
  request->compose = body.compose();
  request->block_on_dead = body.block_on_dead() && !request->conversation.empty();
  request->expiry_ms = envelope.expirytime_ms();
  request->envelope = std::make_shared<const v1::Envelope>(envelope);
  request->data_bytes = envelope.data().size();
  request->accepted_index = index;
  request->place = index;
  request->stored_index = index;
  request->accepted_ms = now_ms;
  request->lane = lane_of(*request);
  if (letter != nullptr) request->requeue_of = letter->id;
  const auto lane = lanes_.find(request->lane);
  if (body.first_in_lane() && lane != lanes_.end()) {
    // The letter's; where that was lost with damage, a place before all that wait.
    const Request& first = letter != nullptr ? *letter : *lane->second.requests.front();
    if (first.state == v1::REQUEST_STATE_RUNNING) return misfit("a place before what runs");
    request->place = first.place;
  }
  Request& kept = insert(std::move(request));
  queued_.emplace(kept.accepted_index, &kept);
  join_lane(kept);
  if (letter != nullptr) {
    release(*letter);
    letter->requeued_as = kept.id;
  }
  return {};
}

// Enters the request into every index but those of its state.
Request& Ledger::insert(std::unique_ptr<Request> request) {
  Request& kept = *request;
  by_stored_.emplace(kept.stored_index, &kept);
  ++models_[kept.model];
  if (!kept.idempotency_key.empty()) keys_[{kept.tenant, kept.idempotency_key}] = kept.id;
  if (kept.live()) {
    live_bytes_ += kept.data_bytes;
    if (kept.expiry_ms != 0) deadlines_.emplace(kept.expiry_ms, kept.id);
  } else {
    ended_.emplace(kept.ended_ms, kept.id);
    if (kept.state == v1::REQUEST_STATE_DEAD) add_letter(kept);
  }
  requests_.emplace(kept.id, std::move(request));
  return kept;
}

LaneHead Ledger::head_of(const Request& request) const {
  return {request.id, request.model, request.place, request.priority, request.tenant};
}

void Ledger::join_lane(Request& request) {
  request.lane = lane_of(request);
  auto& requests = lanes_[request.lane].requests;
  auto at = requests.end();
  while (at != requests.begin() && goes_before(request, **std::prev(at))) --at;
  if (at == requests.begin()) {  // what was first before waits behind it
    if (at != requests.end() && (*at)->state == v1::REQUEST_STATE_QUEUED) {
      order_->remove(head_of(**at));
    }
    if (request.state == v1::REQUEST_STATE_QUEUED) order_->add(head_of(request));
  }
  requests.insert(at, &request);
}

void Ledger::leave_lane(Request& request) {
  const auto at = lanes_.find(request.lane);
  CHECK(at != lanes_.end());
  auto& requests = at->second.requests;
  const bool was_head = requests.front() == &request;
  if (was_head) {
    if (request.state == v1::REQUEST_STATE_QUEUED) order_->remove(head_of(request));
    requests.pop_front();
    if (!requests.empty() && requests.front()->state == v1::REQUEST_STATE_QUEUED) {
      order_->add(head_of(*requests.front()));
    }
  } else {
    requests.erase(std::find(requests.begin(), requests.end(), &request));
  }
  if (requests.empty()) lanes_.erase(at);
}

Result<Request*> Ledger::live_request(const std::string& id_bytes, const char* record) {
  const auto id = RequestId::from_bytes(id_bytes);
  const auto at = id ? requests_.find(*id) : requests_.end();
  if (at == requests_.end() || !at->second->live()) {
    return misfit(std::string(record) + " for a request that isn't live");
  }
  return at->second.get();
}

Status Ledger::apply_leased(const v1::Leased& body, TimeMs now_ms) {
  const auto found = live_request(body.request(), "a lease");
  if (!found) return found.error();
  Request& request = **found;
  if (request.state != v1::REQUEST_STATE_QUEUED || body.attempt() != request.attempt + 1 ||
      lanes_.at(request.lane).requests.front() != &request) {
    return misfit("a lease of a request that isn't the ready head of its lane");
  }
  order_->take(head_of(request));
  queued_.erase(request.accepted_index);
  request.state = v1::REQUEST_STATE_RUNNING;
  request.attempt = body.attempt();
  request.token_in_attempt = false;
  request.worker = WorkerId{body.worker()};
  running_[request.worker].insert(request.id);
  ++running_count_;
  if (request.attempts.size() == kAttemptsKept) request.attempts.erase(request.attempts.begin());
  v1::Attempt& attempt = request.attempts.emplace_back();
  attempt.set_number(body.attempt());
  attempt.set_worker_name(body.worker_name());
  attempt.set_started_ms(now_ms);
  attempt.set_model(body.model());
  request.answer_fingerprint = body.fingerprint();
  if (request.begun()) *attempt.mutable_kept() = request.usage;
  if (!request.begun()) {
    if (body.attempt() > 1) attempt.set_continuation("restarted");
    request.token_fingerprint = body.fingerprint();
  } else if (!body.fingerprint().empty() && body.fingerprint() == request.token_fingerprint &&
             request.holds_ids()) {
    attempt.set_continuation("exact");
    for (const Choice& choice : request.choices) {
      attempt.set_resumed_tokens(attempt.resumed_tokens() + choice.token_ids.size());
    }
  } else {
    // Another model goes on from the text. The ids so far mean nothing to it, and its own will be
    // no whole answer: from here on there is only text to go on from.
    attempt.set_continuation("prefill");
    request.token_fingerprint.clear();
    for (Choice& choice : request.choices) {
      attempt.set_prefilled_bytes(attempt.prefilled_bytes() + choice.text.size());
      attempt.set_regenerated_tokens(attempt.regenerated_tokens() + choice.token_ids.size());
      choice.token_ids.clear();
    }
  }
  return {};
}

namespace {

// One delta into what the choice has brought so far.
void add_delta(const v1::Event& event, bool keep_token_ids, Choice& choice) {
  if (keep_token_ids) {
    choice.token_ids.insert(choice.token_ids.end(), event.token_ids().begin(),
                            event.token_ids().end());
  }
  choice.text += event.text();
  choice.reasoning += event.reasoning();
  for (const v1::ToolCallDelta& delta : event.tool_calls()) {
    const auto known =
        std::find_if(choice.tool_calls.begin(), choice.tool_calls.end(),
                     [&](const v1::ToolCallDelta& call) { return call.index() == delta.index(); });
    v1::ToolCallDelta& call =
        known == choice.tool_calls.end() ? choice.tool_calls.emplace_back() : *known;
    call.set_index(delta.index());
    if (!delta.id().empty()) call.set_id(delta.id());
    if (!delta.name().empty()) call.set_name(delta.name());
    call.mutable_arguments()->append(delta.arguments());
  }
}

}  // namespace

Status Ledger::apply_appended(const v1::Appended& body, LogIndex index, TimeMs now_ms) {
  const auto found = live_request(body.request(), "events");
  if (!found) return found.error();
  Request& request = **found;
  if (request.state != v1::REQUEST_STATE_RUNNING || body.attempt() != request.attempt) {
    return misfit("events of an attempt that isn't the current one");
  }
  if (body.events().empty() || body.first_sequence() != request.event_count) {
    return misfit("a gap in a request's events");
  }
  for (const v1::Event& event : body.events()) {
    if (event.choice() >= request.choice_count) return misfit("an event of a choice too many");
  }
  request.positions.push_back({request.event_count, index});
  request.event_count += static_cast<Sequence>(body.events_size());
  for (const v1::Event& event : body.events()) {
    Choice& choice = request.choices[event.choice()];
    add_usage(event, request.usage);
    if (event.kind() == v1::EVENT_KIND_FINISH) choice.finish_reason = event.finish_reason();
    if (event.kind() != v1::EVENT_KIND_DELTA) continue;
    add_delta(event, !request.token_fingerprint.empty(), choice);
    request.token_in_attempt = true;
    if (request.first_token_ms == 0) request.first_token_ms = now_ms;
  }
  if (request.all_finished()) request.finish_reason = request.choices[0].finish_reason;
  return {};
}

void Ledger::leave_worker(Request& request) {
  const auto at = running_.find(request.worker);
  if (at != running_.end()) {
    at->second.erase(request.id);
    if (at->second.empty()) running_.erase(at);
  }
  --running_count_;
}

// Back to the head of its lane. It has left its worker already.
void Ledger::requeue(Request& request, const std::string& outcome, const std::string& detail,
                     TimeMs now_ms) {
  request.state = v1::REQUEST_STATE_QUEUED;
  request.worker = {};
  v1::Attempt& attempt = request.attempts.back();
  attempt.set_ended_ms(now_ms);
  attempt.set_outcome(outcome);
  attempt.set_detail(detail);
  queued_.emplace(request.accepted_index, &request);
  order_->add(head_of(request));
}

Status Ledger::apply_attempt_ended(const v1::AttemptEnded& body, TimeMs now_ms) {
  const auto found = live_request(body.request(), "the end of an attempt");
  if (!found) return found.error();
  Request& request = **found;
  if (request.state != v1::REQUEST_STATE_RUNNING || body.attempt() != request.attempt) {
    return misfit("the end of an attempt that isn't the current one");
  }
  const char* outcome = body.cause() == v1::ATTEMPT_END_WORKER_LOST    ? "worker_lost"
                        : body.cause() == v1::ATTEMPT_END_ENGINE_ERROR ? "engine_error"
                                                                       : "returned";
  if (body.counts()) ++request.failed_attempts;
  if (body.counts() && body.cause() == v1::ATTEMPT_END_WORKER_LOST) request.suspect = true;
  leave_worker(request);
  requeue(request, outcome, body.detail(), now_ms);
  return {};
}

Status Ledger::apply_settled(const v1::Settled& body, TimeMs now_ms) {
  const auto found = live_request(body.request(), "an end");
  if (!found) return found.error();
  if (body.state() < v1::REQUEST_STATE_COMPLETED || body.state() > v1::REQUEST_STATE_DEAD) {
    return misfit("an end that is no end");
  }
  Request& request = **found;
  const bool was_queued = request.state == v1::REQUEST_STATE_QUEUED;
  if (was_queued) {
    queued_.erase(request.accepted_index);
  } else {
    leave_worker(request);
    v1::Attempt& attempt = request.attempts.back();
    attempt.set_ended_ms(now_ms);
    attempt.set_outcome(body.state() == v1::REQUEST_STATE_COMPLETED   ? "completed"
                        : body.state() == v1::REQUEST_STATE_CANCELLED ? "cancelled"
                        : body.state() == v1::REQUEST_STATE_EXPIRED   ? "expired"
                                                                      : "failed");
    attempt.set_detail(body.failure().message());
  }
  leave_lane(request);
  live_bytes_ -= request.data_bytes;
  if (request.expiry_ms != 0) deadlines_.erase({request.expiry_ms, request.id});
  request.state = body.state();
  request.worker = {};
  request.finish_reason = body.finish_reason();
  request.failure = body.failure();
  request.usage = body.usage();
  request.ended_ms = now_ms;
  request.envelope.reset();
  request.choices.clear();
  request.choices.shrink_to_fit();
  request.positions.shrink_to_fit();
  ended_.emplace(now_ms, request.id);
  if (request.state == v1::REQUEST_STATE_DEAD) add_letter(request);
  return {};
}

Status Ledger::apply_forgotten(const v1::Forgotten& body) {
  std::set<RequestId> ids;
  for (const std::string& raw : body.requests()) {
    const auto id = RequestId::from_bytes(raw);
    const Request* request = id ? find(*id) : nullptr;
    if (request == nullptr || request->live() || !ids.insert(*id).second) {
      return misfit("forgetting a request that hasn't ended");
    }
    if (request->blocks_lane()) return misfit("forgetting what blocks a lane");
  }
  for (const RequestId id : ids) {
    const auto at = requests_.find(id);
    Request& request = *at->second;
    if (request.state == v1::REQUEST_STATE_DEAD && !request.erased) remove_letter(request);
    forgotten_until_ms_ = std::max(forgotten_until_ms_, request.accepted_ms);
    by_stored_.erase(request.stored_index);
    ended_.erase({request.ended_ms, request.id});
    const auto model = models_.find(request.model);
    if (--model->second == 0) models_.erase(model);
    if (!request.idempotency_key.empty()) {
      const auto key = keys_.find({request.tenant, request.idempotency_key});
      if (key != keys_.end() && key->second == request.id) keys_.erase(key);  // not rebound since
    }
    requests_.erase(at);
  }
  return {};
}

Status Ledger::apply_erased(const v1::Erased& body, LogIndex index) {
  const auto id = RequestId::from_bytes(body.request());
  const auto at = id ? requests_.find(*id) : requests_.end();
  if (at == requests_.end() || at->second->live() || at->second->erased) {
    return misfit("erasing a request that hasn't ended, or was erased before");
  }
  Request& request = *at->second;
  if (request.state == v1::REQUEST_STATE_DEAD) remove_letter(request);
  // No earlier record is needed any more, so that the segments that hold the content can go.
  by_stored_.erase(request.stored_index);
  request.stored_index = index;
  by_stored_.emplace(index, &request);
  request.erased = true;
  request.cache_key.clear();
  request.attempt = 0;
  request.failed_attempts = 0;
  request.attempts = {};
  request.event_count = 0;
  request.positions = {};
  request.finish_reason.clear();
  request.failure.Clear();
  request.usage.Clear();
  return {};
}

Status Ledger::apply_carried(const v1::Carried& body, LogIndex index) {
  const auto id = RequestId::from_bytes(body.request());
  const auto at = id ? requests_.find(*id) : requests_.end();
  if (at == requests_.end()) return misfit("carrying a request that isn't there");
  Request& request = *at->second;
  if (static_cast<Sequence>(body.events_size()) != request.event_count) {
    return misfit("carrying a request without all of its events");
  }
  by_stored_.erase(request.stored_index);
  request.stored_index = index;
  by_stored_.emplace(index, &request);
  request.positions.clear();
  if (request.event_count > 0) request.positions.push_back({0, index});
  request.positions.shrink_to_fit();
  return {};
}

}  // namespace waystation::ledger
