// Dead letters: requests that used up their attempts. Their owner requeues them (each becomes a new
// request), discards or erases them; one that blocks its lane stands in it until then, at its
// place.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "ledger/ledger.h"
#include "ledger/misfit.h"

namespace waystation::ledger {
namespace {

// "completed", for people.
std::string state_in_words(v1::RequestState state) {
  std::string name = v1::RequestState_Name(state).substr(sizeof("REQUEST_STATE_") - 1);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return name;
}

Error not_dead(const Request& request) {
  return {Code::kConflict, "the request is " + state_in_words(request.state) +
                               "; only a dead one can be requeued or discarded"};
}

}  // namespace

// ---- Commands ---------------------------------------------------------------------------------

Result<std::optional<Accepted>> Ledger::check_requeue(const Request& request) const {
  if (request.state != v1::REQUEST_STATE_DEAD) return not_dead(request);
  if (request.requeued_as) {
    const Request* earlier = find(*request.requeued_as);
    return std::optional(
        Accepted{*request.requeued_as, true,
                 earlier == nullptr ? request.requeued_as->time_ms() : earlier->accepted_ms});
  }
  if (request.discarded) {
    return Error{Code::kConflict, "the dead letter was discarded; send the request again"};
  }
  if (request.compose) {
    return Error{Code::kConflict,
                 "a turn of a conversation that the server keeps can't be requeued; discard the "
                 "dead letter and send the turn again"};
  }
  return std::optional<Accepted>();
}

Result<Accepted> Ledger::requeue(RequestId id, v1::Envelope envelope, RequestId new_id,
                                 TimeMs now_ms, Proposal& out) {
  const auto at = requests_.find(id);
  CHECK(at != requests_.end());
  const Request& letter = *at->second;
  const auto earlier = check_requeue(letter);
  if (!earlier) return earlier.error();
  if (*earlier) return **earlier;
  if (requests_.contains(new_id)) {
    return Error{Code::kInvalidArgument, "the new request's id must be a new UUID", "id"};
  }
  now_ms = std::max(now_ms, last_time_ms_);
  if (!letter.blocks_lane()) {
    if (Status room = has_room(envelope, false); !room) return room.error();
  }
  if (letter.expiry_ms != 0) {
    const TimeMs given_ms = std::max<TimeMs>(letter.expiry_ms - letter.accepted_ms, 1);
    envelope.set_expirytime_ms(now_ms + given_ms);
  }
  if (envelope.correlationid().empty()) envelope.set_correlationid(id.to_string());
  envelope.set_causationid(id.to_string());
  envelope.set_id(new_id.to_string());
  envelope.set_time_ms(now_ms);
  envelope.clear_idempotencykey();  // goes on naming the letter
  v1::Record record;
  v1::Accepted& accepted = *record.mutable_accepted();
  *accepted.mutable_envelope() = std::move(envelope);
  accepted.set_detached(true);  // nobody reads along who could go away
  accepted.set_stream_usage(letter.stream_usage);
  if (letter.choice_count > 1) accepted.set_choices(letter.choice_count);
  accepted.set_block_on_dead(letter.block_on_dead);
  accepted.set_requeue_of(id.to_bytes());
  accepted.set_first_in_lane(letter.blocks_lane());
  commit(std::move(record), now_ms, out);
  return Accepted{new_id, false, last_time_ms_};
}

Status Ledger::discard(RequestId id, TimeMs now_ms, Proposal& out) {
  const Request* letter = find(id);
  CHECK(letter != nullptr);
  if (letter->state != v1::REQUEST_STATE_DEAD) return not_dead(*letter);
  if (letter->requeued_as) {
    return Error{Code::kConflict, "the dead letter was requeued as " +
                                      letter->requeued_as->to_string() +
                                      "; cancel that request instead"};
  }
  if (!letter->open_letter()) return {};
  v1::Record record;
  record.mutable_discarded()->set_request(id.to_bytes());
  commit(std::move(record), now_ms, out);
  return {};
}

// ---- Questions --------------------------------------------------------------------------------

Result<std::vector<const Request*>> Ledger::dead_letters(const std::string& tenant,
                                                         std::optional<RequestId> after,
                                                         std::size_t count_max) const {
  static const std::set<std::pair<TimeMs, RequestId>> kNone;
  const auto own = letters_.find(tenant);
  const auto& letters = own == letters_.end() ? kNone : own->second;
  auto at = letters.end();
  if (after) {
    const Request* last = find(*after);
    at = last == nullptr ? letters.end() : letters.find({last->ended_ms, *after});
    if (at == letters.end()) {
      return Error{Code::kInvalidArgument,
                   "'after' names no dead letter: '" + after->to_string() + "'", "after"};
    }
  }
  std::vector<const Request*> found;
  while (at != letters.begin() && found.size() < count_max) found.push_back(find((--at)->second));
  return found;
}

std::vector<RequestId> Ledger::blocking() const {
  return {blocking_.begin(), blocking_.end()};
}

// ---- What records change ----------------------------------------------------------------------

Result<Request*> Ledger::find_open_letter(const std::string& id_bytes, const char* record) {
  const auto id = RequestId::from_bytes(id_bytes);
  const auto at = id ? requests_.find(*id) : requests_.end();
  if (at == requests_.end() || !at->second->open_letter()) {
    return misfit(std::string(record) + " of what is no dead letter, or was dealt with");
  }
  return at->second.get();
}

void Ledger::add_letter(Request& request) {
  if (request.erased) return;
  letters_[request.tenant].emplace(request.ended_ms, request.id);
  if (request.open_letter()) ++open_letters_;
  if (!request.blocks_lane()) return;
  blocking_.insert(request.id);
  live_bytes_ += request.data_bytes;
  join_lane(request);
}

void Ledger::release(Request& request) {
  if (!request.open_letter()) return;
  --open_letters_;
  if (!request.blocks_lane()) return;
  blocking_.erase(request.id);
  live_bytes_ -= request.data_bytes;
  leave_lane(request);
}

void Ledger::remove_letter(Request& request) {
  release(request);
  const auto own = letters_.find(request.tenant);
  own->second.erase({request.ended_ms, request.id});
  if (own->second.empty()) letters_.erase(own);
}

Status Ledger::apply_discarded(const v1::Discarded& body) {
  const auto found = find_open_letter(body.request(), "discarding");
  if (!found) return found.error();
  release(**found);
  (*found)->discarded = true;
  return {};
}

}  // namespace waystation::ledger
