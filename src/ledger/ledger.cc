// The commands: they decide, write records, and let `apply` (apply.cc) change the state.
#include "ledger/ledger.h"

#include <algorithm>

#include "base/check.h"
#include "ledger/failure.h"

namespace waystation::ledger {
namespace {

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
