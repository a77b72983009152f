// The ledger's state as one message, for checkpoints.
#include <algorithm>
#include <map>

#include "base/check.h"
#include "ledger/ledger.h"

namespace waystation::ledger {
namespace {

constexpr std::uint32_t kSnapshotVersion = 2;

void write_envelope_of_ended(const Request& request, v1::Envelope& envelope) {
  envelope.set_id(request.id.to_string());
  envelope.set_tenant(request.tenant);
  envelope.set_model(request.model);
  envelope.set_api(request.api);
  envelope.set_partitionkey(request.conversation);
  envelope.set_idempotencykey(request.idempotency_key);
  envelope.set_fingerprint(request.fingerprint);
  envelope.set_cachekey(request.cache_key);
  envelope.set_priority(request.priority);
  envelope.set_expirytime_ms(request.expiry_ms);
}

Choice read_progress(const v1::ChoiceProgress& in) {
  Choice choice;
  choice.token_ids.assign(in.token_ids().begin(), in.token_ids().end());
  choice.text = in.text();
  choice.reasoning = in.reasoning();
  choice.tool_calls.assign(in.tool_calls().begin(), in.tool_calls().end());
  choice.finish_reason = in.finish_reason();
  return choice;
}

void write_request(const Request& request, v1::RequestSnapshot& out) {
  out.set_id(request.id.to_bytes());
  v1::Accepted& accepted = *out.mutable_accepted();
  v1::Envelope& envelope = *accepted.mutable_envelope();
  if (request.envelope) {
    envelope = *request.envelope;
  } else {
    write_envelope_of_ended(request, envelope);
  }
  accepted.set_detached(request.detached);
  accepted.set_stream_usage(request.stream_usage);
  accepted.set_choices(request.choice_count);
  accepted.set_compose(request.compose);
  accepted.set_block_on_dead(request.block_on_dead);
  if (request.requeue_of) accepted.set_requeue_of(request.requeue_of->to_bytes());
  out.set_accepted_index(request.accepted_index.value);
  out.set_stored_index(request.stored_index.value);
  out.set_accepted_ms(request.accepted_ms);
  out.set_state(request.state);
  out.set_attempt(request.attempt);
  out.set_failed_attempts(request.failed_attempts);
  out.set_event_count(request.event_count);
  EventPosition before{0, LogIndex{0}};
  for (const EventPosition& position : request.positions) {
    out.add_position_sequence_delta(position.first - before.first);
    out.add_position_index_delta(position.index.value - before.index.value);
    before = position;
  }
  for (const Choice& choice : request.choices) write_progress(choice, *out.add_choices());
  out.set_token_fingerprint(request.token_fingerprint);
  out.set_answer_fingerprint(request.answer_fingerprint);
  out.set_suspect(request.suspect);
  out.set_first_token_ms(request.first_token_ms);
  out.set_ended_ms(request.ended_ms);
  out.set_finish_reason(request.finish_reason);
  if (!request.failure.code().empty()) *out.mutable_failure() = request.failure;
  *out.mutable_usage() = request.usage;
  for (const v1::Attempt& attempt : request.attempts) *out.add_attempts() = attempt;
  out.set_erased(request.erased);
  if (request.place != request.accepted_index) out.set_place(request.place.value);
  out.set_discarded(request.discarded);
  if (request.requeued_as) out.set_requeued_as(request.requeued_as->to_bytes());
  if (request.blocks_lane()) out.set_data_bytes(request.data_bytes);
  out.set_worker(request.worker.value);
  out.set_has_token_in_attempt(request.token_in_attempt);
}

std::unique_ptr<Request> read_request(const v1::RequestSnapshot& in) {
  const auto id = RequestId::from_bytes(in.id());
  if (!id || in.position_index_delta_size() != in.position_sequence_delta_size()) return nullptr;
  auto request = std::make_unique<Request>();
  const v1::Envelope& envelope = in.accepted().envelope();
  request->id = *id;
  request->tenant = envelope.tenant();
  request->model = envelope.model();
  request->api = envelope.api();
  request->conversation = envelope.partitionkey();
  request->idempotency_key = envelope.idempotencykey();
  request->fingerprint = envelope.fingerprint();
  request->cache_key = envelope.cachekey();
  request->priority = envelope.priority();
  request->expiry_ms = envelope.expirytime_ms();
  request->detached = in.accepted().detached();
  request->stream_usage = in.accepted().stream_usage();
  request->choice_count = std::max(in.accepted().choices(), 1U);
  request->compose = in.accepted().compose();
  request->block_on_dead = in.accepted().block_on_dead() && !request->conversation.empty();
  request->requeue_of = RequestId::from_bytes(in.accepted().requeue_of());
  request->accepted_index = LogIndex{in.accepted_index()};
  request->place = LogIndex{in.place() == 0 ? in.accepted_index() : in.place()};
  request->stored_index = LogIndex{in.stored_index()};
  request->accepted_ms = in.accepted_ms();
  request->state = in.state();
  request->data_bytes = in.data_bytes();
  if (request->live()) {
    request->envelope = std::make_shared<const v1::Envelope>(envelope);
    request->data_bytes = envelope.data().size();
  }
  request->attempt = in.attempt();
  request->failed_attempts = in.failed_attempts();
  request->token_in_attempt = in.has_token_in_attempt();
  request->worker = WorkerId{in.worker()};
  request->attempts.assign(in.attempts().begin(), in.attempts().end());
  request->event_count = in.event_count();
  EventPosition at{0, LogIndex{0}};
  request->positions.reserve(static_cast<std::size_t>(in.position_index_delta_size()));
  for (int i = 0; i < in.position_index_delta_size(); ++i) {
    at.first += in.position_sequence_delta(i);
    at.index.value += in.position_index_delta(i);
    request->positions.push_back(at);
  }
  for (const v1::ChoiceProgress& choice : in.choices()) {
    request->choices.push_back(read_progress(choice));
  }
  request->token_fingerprint = in.token_fingerprint();
  request->answer_fingerprint = in.answer_fingerprint();
  request->suspect = in.suspect();
  request->first_token_ms = in.first_token_ms();
  request->ended_ms = in.ended_ms();
  request->finish_reason = in.finish_reason();
  request->failure = in.failure();
  request->usage = in.usage();
  request->erased = in.erased();
  request->discarded = in.discarded();
  request->requeued_as = RequestId::from_bytes(in.requeued_as());
  return request;
}

// What the ledger relies on in a request, for the state at `last`.
bool is_sound(const Request& request, LogIndex last, TimeMs last_ms) {
  const auto within = [](auto low, auto value, auto high) { return low <= value && value <= high; };
  if (!within(v1::REQUEST_STATE_QUEUED, request.state, v1::REQUEST_STATE_DEAD)) return false;
  if (!within(LogIndex{1}, request.accepted_index, last)) return false;
  if (!within(request.accepted_index, request.stored_index, last)) return false;
  if (!within(LogIndex{1}, request.place, request.accepted_index)) return false;
  if (!within(TimeMs{0}, request.accepted_ms, last_ms)) return false;
  if (!within(TimeMs{0}, request.ended_ms, last_ms)) return false;
  if (request.live() && RequestId::parse(request.envelope->id()) != request.id) return false;
  if (request.attempts.size() > kAttemptsKept) return false;
  if (request.choice_count > kChoicesMax) return false;
  if (request.choices.size() != (request.live() ? request.choice_count : 0)) return false;
  if (request.failed_attempts > request.attempt) return false;
  if (request.attempts.empty() != (request.attempt == 0)) return false;
  if (request.erased && (request.live() || request.event_count > 0)) return false;
  if (request.state == v1::REQUEST_STATE_RUNNING && request.attempts.empty()) return false;
  if (request.positions.empty() != (request.event_count == 0)) return false;
  const EventPosition* before = nullptr;
  for (const EventPosition& position : request.positions) {
    if (before == nullptr ? position.first != 0 : position.first <= before->first) return false;
    if (before != nullptr && position.index <= before->index) return false;
    if (position.first >= request.event_count) return false;
    if (!within(request.stored_index, position.index, last)) return false;
    before = &position;
  }
  return true;
}

}  // namespace

void write_progress(const Choice& choice, v1::ChoiceProgress& out) {
  out.mutable_token_ids()->Add(choice.token_ids.begin(), choice.token_ids.end());
  out.set_text(choice.text);
  out.set_reasoning(choice.reasoning);
  for (const v1::ToolCallDelta& call : choice.tool_calls) *out.add_tool_calls() = call;
  out.set_finish_reason(choice.finish_reason);
}

v1::LedgerSnapshot Ledger::snapshot() const {
  v1::LedgerSnapshot out;
  out.set_version(kSnapshotVersion);
  out.set_index(index_.value);
  out.set_epoch(epoch_.value);
  out.set_last_time_ms(last_time_ms_);
  out.set_forgotten_until_ms(forgotten_until_ms_);
  std::map<LogIndex, const Request*> by_acceptance;  // lanes are rebuilt in this order
  for (const auto& [id, request] : requests_) {
    by_acceptance.emplace(request->accepted_index, request.get());
  }
  out.mutable_requests()->Reserve(static_cast<int>(by_acceptance.size()));
  for (const auto& [accepted, request] : by_acceptance)
    write_request(*request, *out.add_requests());
  return out;
}

Status Ledger::restore(const v1::LedgerSnapshot& in) {
  CHECK(requests_.empty() && index_.value == 0);
  if (in.version() != kSnapshotVersion) {
    return Error{Code::kCorruption,
                 "the checkpoint has version " + std::to_string(in.version()) +
                     ", this Waystation reads version 2; use the one that wrote it"};
  }
  const auto unreadable = [](const std::string& what) {
    return Error{Code::kCorruption, "the checkpoint can't be used: " + what};
  };
  constexpr std::uint64_t kCountMax = 1ull << 62;  // leaves room to count on
  if (in.last_time_ms() < 0 || in.epoch() > kCountMax || in.index() > kCountMax) {
    return unreadable("its time, epoch or index is out of range");
  }
  index_ = LogIndex{in.index()};
  epoch_ = Epoch{in.epoch()};
  last_time_ms_ = in.last_time_ms();
  forgotten_until_ms_ = in.forgotten_until_ms();
  LogIndex accepted_before;
  std::map<LogIndex, std::string> places;  // that are taken, by which lane
  for (const v1::RequestSnapshot& entry : in.requests()) {
    auto request = read_request(entry);
    if (!request || !is_sound(*request, index_, last_time_ms_)) {
      return unreadable("it holds a request that can't be read");
    }
    if (requests_.contains(request->id) || by_stored_.contains(request->stored_index) ||
        request->accepted_index <= accepted_before) {
      return unreadable("two of its requests are the same or in the wrong order");
    }
    accepted_before = request->accepted_index;
    if (request->live() || request->blocks_lane()) {
      const std::string lane = lane_of(*request);
      if (places.emplace(request->place, lane).first->second != lane) {
        return unreadable("two of its lanes have one place");
      }
    }
    Request& kept = insert(std::move(request));
    if (!kept.live()) continue;
    join_lane(kept);
    if (kept.state == v1::REQUEST_STATE_QUEUED) {
      queued_.emplace(kept.accepted_index, &kept);
    } else {
      running_[kept.worker].insert(kept.id);
      ++running_count_;
    }
  }
  for (const auto& [worker, ids] : running_) {
    for (const RequestId id : ids) {
      const Request* request = requests_.at(id).get();
      if (lanes_.at(request->lane).requests.front() == request) continue;
      return unreadable("a request runs that isn't the first of its lane");
    }
  }
  return {};
}

}  // namespace waystation::ledger
