#include "ledger/salvage.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

namespace waystation::ledger {
namespace {

v1::Failure lost_failure() {
  v1::Failure failure;
  failure.set_code(std::string(code_name(Code::kLostInSalvage)));
  failure.set_message(
      "a part of what the server had stored of this request was damaged and couldn't be saved; ask "
      "again");
  return failure;
}

// Whom a record is about.
std::optional<RequestId> subject_of(const v1::Record& record) {
  switch (record.body_case()) {
    case v1::Record::kAccepted:
      return RequestId::parse(record.accepted().envelope().id());
    case v1::Record::kLeased:
      return RequestId::from_bytes(record.leased().request());
    case v1::Record::kAppended:
      return RequestId::from_bytes(record.appended().request());
    case v1::Record::kAttemptEnded:
      return RequestId::from_bytes(record.attempt_ended().request());
    case v1::Record::kSettled:
      return RequestId::from_bytes(record.settled().request());
    case v1::Record::kCarried:
      return RequestId::from_bytes(record.carried().request());
    case v1::Record::kErased:
      return RequestId::from_bytes(record.erased().request());
    case v1::Record::kDiscarded:
      return RequestId::from_bytes(record.discarded().request());
    default:
      return std::nullopt;
  }
}

bool is_live(const v1::RequestSnapshot& request) {
  return request.state() == v1::REQUEST_STATE_QUEUED ||
         request.state() == v1::REQUEST_STATE_RUNNING;
}

bool has_lost_events(const v1::RequestSnapshot& request,
                     const std::function<bool(LogIndex)>& is_lost) {
  LogIndex at;
  for (const std::uint64_t delta : request.position_index_delta()) {
    at.value += delta;
    if (is_lost(at)) return true;
  }
  return false;
}

// As a request that failed without an event.
void fail_in_snapshot(v1::RequestSnapshot& request, TimeMs now_ms) {
  if (is_live(request)) {
    request.set_ended_ms(now_ms);
    request.mutable_accepted()->mutable_envelope()->clear_data();
  }
  request.set_state(v1::REQUEST_STATE_FAILED);
  request.set_event_count(0);
  request.clear_position_sequence_delta();
  request.clear_position_index_delta();
  request.clear_choices();
  request.clear_finish_reason();
  request.clear_usage();
  request.clear_worker();
  request.clear_has_token_in_attempt();
  request.clear_data_bytes();
  // It is no answer to give again.
  request.mutable_accepted()->mutable_envelope()->clear_cachekey();
  *request.mutable_failure() = lost_failure();
}

}  // namespace

Salvage::Salvage(v1::LedgerSnapshot base, Emit emit)
    : base_(std::move(base)), emit_(std::move(emit)), ledger_(std::make_unique<Ledger>(Limits{})) {}

Result<Salvage> Salvage::begin(v1::LedgerSnapshot base,
                               const std::function<bool(LogIndex)>& is_lost, Emit emit) {
  Salvage salvage(std::move(base), std::move(emit));
  for (v1::RequestSnapshot& request : *salvage.base_.mutable_requests()) {
    const auto id = RequestId::from_bytes(request.id());
    if (!id || !has_lost_events(request, is_lost)) continue;
    fail_in_snapshot(request, salvage.base_.last_time_ms());
    salvage.affected_[*id] = {Affected::Fate::kFailed, "records with its events are lost"};
  }
  if (Status restored = salvage.ledger_->restore(salvage.base_); !restored) return restored.error();
  salvage.time_ms_ = salvage.base_.last_time_ms();
  return salvage;
}

void Salvage::hole(std::uint64_t records) {
  if (records == 0) return;
  records_missing_ += records;
  for (const RequestId id : ledger_->live()) {
    doubtful_[id] = doubtful_[id] || ledger_->find(id)->state == v1::REQUEST_STATE_RUNNING;
  }
  for (const RequestId id : ledger_->blocking()) doubtful_blocks_.insert(id);
}

Status Salvage::write(v1::Record record) {
  record.set_time_ms(std::max(record.time_ms(), time_ms_));
  const LogIndex index{ledger_->index().value + 1};
  if (Status applied = ledger_->apply(record, index); !applied) return applied;
  time_ms_ = record.time_ms();
  return emit_(index, record);
}

Status Salvage::give_up(RequestId id, const std::string& why) {
  const Request& request = *ledger_->find(id);
  v1::Record record;
  v1::Settled& settled = *record.mutable_settled();
  settled.set_request(id.to_bytes());
  *settled.mutable_usage() = request.usage;
  if (request.all_finished()) {  // only its last record is lost, and what that said is known
    settled.set_state(v1::REQUEST_STATE_COMPLETED);
    settled.set_finish_reason(request.finish_reason);
  } else {
    settled.set_state(v1::REQUEST_STATE_FAILED);
    *settled.mutable_failure() = lost_failure();
    affected_[id].fate = Affected::Fate::kFailed;
    affected_[id].why = why;
  }
  doubtful_.erase(id);
  return write(std::move(record));
}

// What was done with a letter that blocked its lane is lost.
Status Salvage::discard(RequestId id) {
  v1::Record record;
  record.mutable_discarded()->set_request(id.to_bytes());
  return write(std::move(record));
}

// An end that doesn't agree with what is there of the request.
bool Salvage::contradicts(const v1::Settled& settled) const {
  const auto id = RequestId::from_bytes(settled.request());
  const Request* request = id ? ledger_->find(*id) : nullptr;
  if (request == nullptr || !request->live() || !doubtful_.contains(*id)) return false;
  if (settled.state() == v1::REQUEST_STATE_COMPLETED) return !request->all_finished();
  return settled.usage().SerializeAsString() != request->usage.SerializeAsString();
}

// A lane runs one request at a time: those before this one had ended, and what blocked it was dealt
// with.
Status Salvage::clear_the_lane(const Request& request) {
  for (const Request* before : ledger_->ahead_of(request)) {
    const RequestId id = before->id;
    if (before->live()) {
      if (!doubtful_.contains(id)) return {};
      if (Status given_up = give_up(id, "its end is lost"); !given_up) return given_up;
      continue;
    }
    if (!doubtful_blocks_.contains(id)) return {};
    if (Status discarded = discard(id); !discarded) return discarded;
  }
  return {};
}

Status Salvage::prove_dead(const std::string& id_bytes) {
  const auto id = RequestId::from_bytes(id_bytes);
  const Request* request = id ? ledger_->find(*id) : nullptr;
  if (request == nullptr || !request->live() || !doubtful_.contains(*id)) return {};
  if (request->all_finished()) return give_up(*id, "its end is lost");
  if (Status cleared = clear_the_lane(*request); !cleared) return cleared;
  v1::Record record;
  v1::Settled& settled = *record.mutable_settled();
  settled.set_request(id_bytes);
  settled.set_state(v1::REQUEST_STATE_DEAD);
  settled.mutable_failure()->set_code(std::string(code_name(Code::kDead)));
  settled.mutable_failure()->set_message("gave up after failed attempts; the last one is lost");
  *settled.mutable_usage() = request->usage;
  doubtful_.erase(*id);
  return write(std::move(record));
}

// A letter that blocked its lane had nothing running beside it.
Status Salvage::take_requeued(v1::Record record) {
  v1::Accepted& accepted = *record.mutable_accepted();
  if (Status proven = prove_dead(accepted.requeue_of()); !proven) return proven;
  const auto id = RequestId::from_bytes(accepted.requeue_of());
  const Request* letter = id ? ledger_->find(*id) : nullptr;
  const bool fits = letter != nullptr && letter->open_letter() &&
                    letter->blocks_lane() == accepted.first_in_lane();
  if (fits) return take_fitting(record);
  accepted.clear_requeue_of();
  const auto doubtful = doubtful_;
  for (const auto& [other_id, ran] : doubtful) {
    const Request& other = *ledger_->find(other_id);
    const bool beside = accepted.first_in_lane() && other.state == v1::REQUEST_STATE_RUNNING &&
                        other.tenant == accepted.envelope().tenant() &&
                        other.conversation == accepted.envelope().partitionkey();
    if (!beside) continue;
    if (Status given_up = give_up(other_id, "its end is lost"); !given_up) return given_up;
  }
  return take_fitting(record);
}

Status Salvage::clear_the_way(const v1::Record& record) {
  const auto id = subject_of(record);
  const Request* request = id ? ledger_->find(*id) : nullptr;
  if (request == nullptr) return {};
  if (record.has_erased() && request->live() && doubtful_.contains(*id)) {
    return give_up(*id, "its end is lost");
  }
  if (record.has_settled() && contradicts(record.settled())) {
    return give_up(*id, "a part of its answer is lost");
  }
  if (!record.has_leased()) return {};
  if (Status cleared = clear_the_lane(*request); !cleared) return cleared;
  if (request->state == v1::REQUEST_STATE_RUNNING && doubtful_.contains(*id) &&
      record.leased().attempt() == request->attempt + 1) {
    v1::Record ended;
    ended.mutable_attempt_ended()->set_request(id->to_bytes());
    ended.mutable_attempt_ended()->set_attempt(request->attempt);
    ended.mutable_attempt_ended()->set_cause(v1::ATTEMPT_END_RETURNED);
    ended.mutable_attempt_ended()->set_detail("the record of how it ended is lost");
    return write(std::move(ended));
  }
  return {};
}

// After a record that fitted: what it proves. A lease proves that an attempt was the next one, but
// not what the one before had brought, if that ran at the hole. (`Carried` proves nothing: an ended
// request is carried too.)
void Salvage::note_proof(const v1::Record& record) {
  const auto id = subject_of(record);
  const auto at = id ? doubtful_.find(*id) : doubtful_.end();
  if (at == doubtful_.end()) return;
  const bool whole = record.has_appended() || record.has_settled();
  if (whole || (record.has_leased() && !at->second)) doubtful_.erase(at);
}

Status Salvage::drop(const v1::Record& record) {
  ++records_dropped_;
  const auto id = subject_of(record);
  if (!id || record.has_accepted()) return {};
  const Request* request = ledger_->find(*id);
  if (request == nullptr) {
    affected_[*id].fate = Affected::Fate::kUnknown;
  } else if (request->live()) {
    if (Status given_up = give_up(*id, "records about it are lost"); !given_up) return given_up;
  }
  if (const auto at = affected_.find(*id); at != affected_.end()) ++at->second.records_dropped;
  return {};
}

// Of the requests that it names, some may not be known, and the ends of others be lost.
Status Salvage::take_forgotten(const v1::Record& record) {
  v1::Record known = record;
  known.mutable_forgotten()->clear_requests();
  for (const std::string& raw : record.forgotten().requests()) {
    const auto id = RequestId::from_bytes(raw);
    const Request* request = id ? ledger_->find(*id) : nullptr;
    if (request != nullptr && request->live()) {
      if (Status given_up = give_up(*id, "its end is lost"); !given_up) return given_up;
    }
    if (request != nullptr && request->blocks_lane()) {
      if (Status discarded = discard(*id); !discarded) return discarded;
    }
    if (request != nullptr) known.mutable_forgotten()->add_requests(raw);
    if (id) affected_.erase(*id);
  }
  if (known.forgotten().requests().empty()) return drop(record);
  return write(std::move(known));
}

Status Salvage::take(const v1::Record& record) {
  if (record.has_forgotten()) return take_forgotten(record);
  if (!record.accepted().requeue_of().empty()) return take_requeued(record);
  if (record.has_discarded()) {
    if (Status proven = prove_dead(record.discarded().request()); !proven) return proven;
  }
  return take_fitting(record);
}

Status Salvage::take_fitting(const v1::Record& record) {
  if (Status cleared = clear_the_way(record); !cleared) return cleared;
  const LogIndex index{ledger_->index().value + 1};
  if (!ledger_->apply(record, index)) return drop(record);
  time_ms_ = record.time_ms();
  note_proof(record);
  return emit_(index, record);
}

Status Salvage::finish() {
  const auto doubtful = doubtful_;
  for (const auto& [id, ran] : doubtful) {
    const Request& request = *ledger_->find(id);
    if (request.event_count > 0) {
      if (Status given_up = give_up(id, "its end is lost"); !given_up) return given_up;
    } else {
      affected_[id].fate = Affected::Fate::kUnproven;
    }
  }
  v1::Record record;
  const std::uint64_t missing =
      std::min<std::uint64_t>(records_missing_, std::numeric_limits<std::uint32_t>::max() - 1);
  record.mutable_epoch_started()->set_epoch(ledger_->epoch().value + 1 + missing);
  record.mutable_epoch_started()->set_version("salvage");
  return write(std::move(record));
}

}  // namespace waystation::ledger
