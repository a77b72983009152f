#include "sim/book.h"

#include <algorithm>
#include <cstdlib>

#include "base/check.h"

namespace waystation::sim {
namespace {

// The budget that the client's body gives; 0 = none.
std::uint32_t budget_of(const std::string& body) {
  static constexpr std::string_view kName = "\"max_tokens\":";
  const auto at = body.find(kName);
  return at == std::string::npos
             ? 0
             : static_cast<std::uint32_t>(std::strtoul(&body[at + kName.size()], nullptr, 10));
}

}  // namespace

std::string short_name(RequestId id) {
  return id.to_string().substr(30);
}

void Book::append(std::string record) {
  records_.push_back(std::move(record));
  v1::Record parsed;
  if (!parsed.ParseFromString(records_.back())) {
    history_.violated("I9", "record " + std::to_string(size()) + " can't be parsed");
    return;
  }
  read(parsed, size());
}

void Book::cut_to(std::uint64_t last) {
  if (last >= size()) return;
  std::vector<std::string> kept = std::move(records_);
  kept.resize(last);
  records_.clear();
  entries_.clear();
  lanes_.clear();
  keys_.clear();
  live_ = 0;
  epoch_ = 0;
  for (std::string& record : kept) append(std::move(record));
}

const Entry* Book::find(RequestId id) const {
  const auto at = entries_.find(id.to_bytes());
  return at == entries_.end() ? nullptr : &at->second;
}

std::string Book::state_after(std::uint64_t count) const {
  ledger::Ledger ledger(limits_);
  v1::Record record;
  for (std::uint64_t index = 1; index <= count; ++index) {
    CHECK(record.ParseFromString(records_[index - 1]));
    if (!ledger.apply(record, LogIndex{index}))
      return "record " + std::to_string(index) + " misfits";
  }
  return ledger.snapshot().SerializeAsString();
}

void Book::read(const v1::Record& record, std::uint64_t index) {
  switch (record.body_case()) {
    case v1::Record::kEpochStarted:
      if (record.epoch_started().epoch() <= epoch_) history_.violated("I4", "an epoch came twice");
      epoch_ = record.epoch_started().epoch();
      for (auto& [id, entry] : entries_) entry.running = false;
      return;
    case v1::Record::kAccepted:
      return on_accepted(record.accepted(), record.time_ms(), index);
    case v1::Record::kLeased:
      return on_leased(record.leased());
    case v1::Record::kAppended:
      return on_appended(record.appended(), index);
    case v1::Record::kAttemptEnded: {
      Entry& entry = entry_of(record.attempt_ended().request());
      i1_one_end(entry);
      i4_current_attempt(entry, record.attempt_ended().attempt(), "the end of an attempt");
      entry.running = false;
      entry.failed += record.attempt_ended().counts() ? 1 : 0;
      return;
    }
    case v1::Record::kSettled:
      return on_settled(record.settled(), index);
    case v1::Record::kForgotten:
      for (const std::string& raw : record.forgotten().requests()) {
        Entry& entry = entry_of(raw);
        if (entry.live()) violated("I1", entry, "was forgotten before it ended");
        if (entry.blocks()) violated("I5", entry, "was forgotten while it blocked its lane");
        entry.forgotten = index;
        const auto bound = keys_.find({entry.tenant, entry.key});
        if (bound == keys_.end() || bound->second != raw) continue;
        if (record.time_ms() < entry.accepted_ms + limits_.idempotency_ttl_ms) {
          violated("I6", entry, "was forgotten while its key binds");
        }
        keys_.erase(bound);
      }
      return;
    case v1::Record::kCarried:
      return on_carried(record.carried());
    case v1::Record::kErased: {
      Entry& entry = entry_of(record.erased().request());
      if (entry.live()) violated("I1", entry, "was erased before it ended");
      if (entry.blocks()) leave_lane(entry);
      entry.erased = index;
      return;
    }
    case v1::Record::kDiscarded: {
      Entry& letter = entry_of(record.discarded().request());
      i1_dealt_with_once(letter);
      if (letter.blocks()) leave_lane(letter);
      letter.discarded = index;
      return;
    }
    case v1::Record::BODY_NOT_SET:
      history_.violated("I7", "a record without a body");
  }
}

void Book::on_accepted(const v1::Accepted& accepted, TimeMs now_ms, std::uint64_t index) {
  const v1::Envelope& envelope = accepted.envelope();
  const auto id = RequestId::parse(envelope.id());
  if (!id || entries_.contains(id->to_bytes())) {
    history_.violated("I1", "an acceptance of " + envelope.id() + ", which is no new id");
    return;
  }
  Entry& entry = entries_[id->to_bytes()];
  entry.id = *id;
  entry.tenant = envelope.tenant();
  entry.key = envelope.idempotencykey();
  entry.fingerprint = envelope.fingerprint();
  entry.cache_key = envelope.cachekey();
  if (!envelope.partitionkey().empty())
    entry.lane = envelope.tenant() + '\0' + envelope.partitionkey();
  entry.has_deadline = envelope.expirytime_ms() != 0;
  entry.choices = std::max(accepted.choices(), 1U);
  const std::uint32_t budget = budget_of(envelope.data());
  entry.by_budget = budget != 0 && budget < answer_tokens_;
  entry.tokens = entry.by_budget ? budget : answer_tokens_;
  entry.accepted_ms = now_ms;
  entry.accepted = index;
  entry.next_token.resize(entry.choices);
  entry.finished.resize(entry.choices);
  entry.data = envelope.data();
  entry.block_on_dead = accepted.block_on_dead();
  if (!accepted.requeue_of().empty()) return on_requeued(entry, accepted.requeue_of(), index);
  i6_one_request_a_key(entry);
  i10_bounded(entry);
  ++live_;
  if (!entry.key.empty()) keys_[{entry.tenant, entry.key}] = id->to_bytes();
  if (!entry.lane.empty()) lanes_[entry.lane].push_back(id->to_bytes());
}

// The new request has the letter's body and lane, and its place if it blocked that.
void Book::on_requeued(Entry& entry, const std::string& raw, std::uint64_t index) {
  Entry& letter = entry_of(raw);
  i1_dealt_with_once(letter);
  if (entry.data != letter.data || entry.lane != letter.lane || entry.tenant != letter.tenant) {
    violated("I1", entry, "isn't what the dead " + short_name(letter.id) + " was");
  }
  if (!entry.key.empty()) violated("I6", entry, "was requeued with a key");
  const std::string own = entry.id.to_bytes();
  if (letter.blocks()) {
    auto& lane = lanes_[letter.lane];
    std::replace(lane.begin(), lane.end(), raw, own);  // and so its room
  } else {
    i10_bounded(entry);
    ++live_;
    if (!entry.lane.empty()) lanes_[entry.lane].push_back(own);
  }
  entry.requeue_of = raw;
  letter.requeued_as = own;
  letter.requeued = index;
}

void Book::leave_lane(const Entry& entry) {
  --live_;
  if (!entry.lane.empty()) std::erase(lanes_[entry.lane], entry.id.to_bytes());
}

void Book::on_leased(const v1::Leased& leased) {
  Entry& entry = entry_of(leased.request());
  i1_one_end(entry);
  i5_head_of_its_lane(entry);
  if (entry.running) violated("I5", entry, "was leased while it ran");
  if (leased.attempt() != entry.attempt + 1) violated("I4", entry, "has a gap in its attempts");
  entry.attempt = leased.attempt();
  entry.running = true;
}

void Book::on_appended(const v1::Appended& appended, std::uint64_t index) {
  Entry& entry = entry_of(appended.request());
  i1_one_end(entry);
  for (const v1::Event& event : appended.events()) {
    if (event.text().contains(kStaleText)) violated("I4", entry, "got events of a stale fence");
  }
  i4_current_attempt(entry, appended.attempt(), "events");
  i3_contiguous(entry, appended);
  for (const v1::Event& event : appended.events()) {
    i3_true_text(entry, event);
    entry.events.push_back({event.SerializeAsString(), index});
  }
}

void Book::on_settled(const v1::Settled& settled, std::uint64_t index) {
  Entry& entry = entry_of(settled.request());
  i1_one_end(entry);
  entry.running = false;
  entry.ended = index;
  entry.settled = settled;
  i1_completed_is_complete(entry);
  i1_dead_after_its_attempts(entry);
  if (!entry.blocks()) leave_lane(entry);
}

void Book::on_carried(const v1::Carried& carried) {
  Entry& entry = entry_of(carried.request());
  const std::size_t events = entry.erased == 0 ? entry.events.size() : 0;
  bool same = static_cast<std::size_t>(carried.events_size()) == events;
  for (int i = 0; same && i < carried.events_size(); ++i) {
    same = carried.events(i).SerializeAsString() == entry.events[static_cast<std::size_t>(i)].bytes;
  }
  if (!same) violated("I2", entry, "was carried over with other events than it has");
}

// ---- The invariants
// ------------------------------------------------------------------------------

void Book::i1_one_end(const Entry& entry) {
  if (!entry.live()) violated("I1", entry, "got a record after its terminal one");
}

void Book::i1_completed_is_complete(const Entry& entry) {
  const bool all =
      std::all_of(entry.finished.begin(), entry.finished.end(), [](bool f) { return f; });
  const bool completed = entry.settled.state() == v1::REQUEST_STATE_COMPLETED;
  if (completed != all)
    violated("I1", entry, "ended as completed without its answer, or the reverse");
  if (entry.settled.state() == v1::REQUEST_STATE_EXPIRED && !entry.has_deadline) {
    violated("I1", entry, "expired without a deadline");
  }
}

void Book::i1_dealt_with_once(const Entry& letter) {
  if (!letter.is_open()) violated("I1", letter, "was dealt with and is no open dead letter");
}

void Book::i1_dead_after_its_attempts(const Entry& entry) {
  const bool dead = entry.settled.state() == v1::REQUEST_STATE_DEAD;
  if (dead != (entry.failed >= limits_.attempts_max)) {
    violated("I1", entry,
             "is dead after " + std::to_string(entry.failed) + " failed attempts, or not");
  }
}

void Book::i3_contiguous(const Entry& entry, const v1::Appended& appended) {
  if (appended.first_sequence() != entry.events.size()) {
    violated("I3", entry,
             "has " + std::to_string(entry.events.size()) + " events and got one with the number " +
                 std::to_string(appended.first_sequence()));
  }
}

// Each choice says tok0, tok1, … to its end, whoever worked on it and however often.
void Book::i3_true_text(Entry& entry, const v1::Event& event) {
  if (event.choice() >= entry.choices) return violated("I3", entry, "has a choice too many");
  std::uint32_t& next = entry.next_token[event.choice()];
  std::string text;
  for (const std::uint32_t token : event.token_ids()) {
    if (token != next++) return violated("I3", entry, "repeats or misses a token");
    text += "tok" + std::to_string(token) + " ";
  }
  if (text != event.text()) violated("I3", entry, "says '" + event.text() + "' for '" + text + "'");
  if (event.kind() != v1::EVENT_KIND_FINISH) return;
  entry.finished[event.choice()] = true;
  if (next != entry.tokens || event.finish_reason() != (entry.by_budget ? "length" : "stop")) {
    violated("I3", entry,
             "finished after " + std::to_string(next) + " tokens of " +
                 std::to_string(entry.tokens) + ", reason " + event.finish_reason());
  }
}

void Book::i4_current_attempt(const Entry& entry, std::uint32_t attempt, const char* what) {
  if (!entry.running || attempt != entry.attempt) {
    violated("I4", entry,
             std::string("got ") + what + " of attempt " + std::to_string(attempt) +
                 ", which isn't the current one");
  }
}

void Book::i5_head_of_its_lane(const Entry& entry) {
  if (entry.lane.empty()) return;
  if (lanes_[entry.lane].front() != entry.id.to_bytes()) {
    violated("I5", entry,
             "was started before an earlier one of its lane had ended, or was dealt with");
  }
}

void Book::i6_one_request_a_key(const Entry& entry) {
  const auto bound = entry.key.empty() ? keys_.end() : keys_.find({entry.tenant, entry.key});
  if (bound == keys_.end()) return;
  if (entry.accepted_ms < entries_.at(bound->second).accepted_ms + limits_.idempotency_ttl_ms) {
    violated("I6", entry, "is a second request of the key " + entry.key);
  }
}

void Book::i10_bounded(const Entry& entry) {
  if (live_ >= limits_.live_requests_max) violated("I10", entry, "was accepted by a full queue");
  if (!entry.lane.empty() && lanes_[entry.lane].size() >= limits_.lane_requests_max) {
    violated("I10", entry, "was accepted by a full lane");
  }
}

Entry& Book::entry_of(const std::string& raw_id) {
  const auto at = entries_.find(raw_id);
  if (at != entries_.end()) return at->second;
  history_.violated("I1", "a record of a request that was never accepted");
  Entry& made = entries_[raw_id];
  made.next_token.resize(1);
  made.finished.resize(1);
  return made;
}

void Book::violated(std::string_view invariant, const Entry& entry, const std::string& what) {
  history_.violated(invariant, "request " + short_name(entry.id) + " " + what);
}

}  // namespace waystation::sim
