#include "sim/checker.h"

#include <algorithm>

#include "broker/recovery.h"
#include "stream/history.h"

namespace waystation::sim {
namespace {

bool same_ending(const stream::Ending& seen, const Entry& entry) {
  v1::Settled settled = entry.settled;
  settled.set_state(seen.state);
  settled.set_finish_reason(seen.finish_reason);
  settled.clear_failure();
  if (!seen.failure.code().empty()) *settled.mutable_failure() = seen.failure;
  *settled.mutable_usage() = seen.usage;
  return settled.SerializeAsString() == entry.settled.SerializeAsString();
}

// The events of a request, read from where the ledger says that they are.
Result<std::string> compare_stream(const journal::Journal& journal, const ledger::Request& request,
                                   const Book& book) {
  std::vector<LogIndex> positions;
  for (const ledger::EventPosition& position : request.positions) {
    positions.push_back(position.index);
  }
  const auto history = stream::load_history(journal, request.id, positions);
  if (!history) return history.error();
  const Entry* entry = book.find(request.id);
  Sequence number = 0;
  for (const stream::BlockPtr& block : *history) {
    for (const v1::Event& event : block->events) {
      if (event.SerializeAsString() != entry->events[number++].bytes) {
        return "event " + std::to_string(number - 1) + " of " + short_name(request.id) + " differs";
      }
    }
  }
  return number == request.event_count ? std::string() : short_name(request.id) + " lost events";
}

}  // namespace

Result<std::string> compare_records(const journal::Journal& journal, std::uint64_t last,
                                    const Book& book) {
  const auto segments = journal.segments();
  const LogIndex first = segments.empty() ? LogIndex{1} : segments.front().first;
  if (last < first.value) return std::string();
  std::string difference;
  std::uint64_t next = first.value;
  const Status scanned =
      journal.scan(first, LogIndex{last}, [&](LogIndex index, std::string_view record) -> Status {
        if (difference.empty() && (index.value != next || record != book.record(index.value))) {
          difference = "record " + std::to_string(index.value) + " isn't what was written";
        }
        ++next;
        return {};
      });
  if (!scanned) return scanned.error();
  if (difference.empty() && next != last + 1) difference = "the records end too early";
  return difference;
}

Result<std::string> compare_state(const journal::Journal& journal, std::uint64_t last,
                                  const Book& book, const ledger::Limits& limits) {
  const auto recovered = broker::recover(journal, limits, LogIndex{last});
  if (!recovered) return recovered.error();
  const v1::LedgerSnapshot snapshot = recovered->ledger->snapshot();
  if (snapshot.SerializeAsString() != book.state_after(last)) {
    return "the state after record " + std::to_string(last) + " differs";
  }
  for (const v1::RequestSnapshot& known : snapshot.requests()) {
    const auto difference =
        compare_stream(journal, *recovered->ledger->find(*RequestId::from_bytes(known.id())), book);
    if (!difference || !difference->empty()) return difference;
  }
  return std::string();
}

// ---- What the server writes
// ----------------------------------------------------------------------

void Checker::on_append(const std::vector<std::string>& records) {
  for (const std::string& record : records) book_.append(record);
}

void Checker::on_durable(std::uint64_t index) {
  i8_failed_for_good();
  durable_before_last_ = durable_;
  durable_ = std::max(durable_, index);
}

void Checker::on_recovered(const journal::Journal& journal) {
  const std::uint64_t recovered = journal.next_index().value - 1;
  journal_failed_ = false;
  i2_nothing_lost(recovered);
  if (history_.violation()) return;
  i2_same_bytes(journal, recovered);
  book_.cut_to(recovered);
  durable_ = durable_before_last_ = recovered;
  i7_same_state(journal, recovered);
}

// I8: after a failed write or sync nothing becomes durable any more.
void Checker::i8_failed_for_good() {
  if (journal_failed_) history_.violated("I8", "records became durable after the journal failed");
}

void Checker::i2_nothing_lost(std::uint64_t recovered) {
  if (recovered < durable_) {
    history_.violated("I2", "records up to " + std::to_string(durable_) +
                                " were reported durable, a restart finds " +
                                std::to_string(recovered));
  } else if (recovered > book_.size()) {
    history_.violated("I9", "a restart finds records that were never written");
  }
}

void Checker::i2_same_bytes(const journal::Journal& journal, std::uint64_t recovered) {
  const auto difference = compare_records(journal, recovered, book_);
  if (!difference) {
    history_.violated("I9", "what a restart accepted can't be read: " + difference.error().message);
  } else if (!difference->empty()) {
    history_.violated("I2", *difference);
  }
}

void Checker::i7_same_state(const journal::Journal& journal, std::uint64_t recovered) {
  if (recovered == 0) return;
  const auto difference = compare_state(journal, recovered, book_, limits_);
  if (!difference) {
    history_.violated("I7", "no state can be recovered: " + difference.error().message);
  } else if (!difference->empty()) {
    history_.violated("I7", *difference);
  }
}

// ---- What clients see
// ----------------------------------------------------------------------------

const Entry* Checker::known(RequestId id, const char* what) {
  const Entry* entry = book_.find(id);
  if (entry == nullptr) {
    history_.violated("I2",
                      std::string(what) + " of " + short_name(id) + ", which no record knows");
  } else {
    i2_durable(id, entry->accepted, what);
  }
  return entry;
}

// I2: a client sees nothing that isn't durable.
void Checker::i2_durable(RequestId id, std::uint64_t index, const std::string& what) {
  if (index != 0 && index <= durable_) return;
  history_.violated("I2", what + " of " + short_name(id) + " was seen; its record " +
                              std::to_string(index) + " isn't durable, only those up to " +
                              std::to_string(durable_));
}

void Checker::saw_submitted(const Asked& asked, const broker::Submitted& submitted) {
  const Entry* entry = known(submitted.id, "the acceptance");
  if (entry == nullptr) return;
  i11_own_tenant(asked.tenant, *entry, "was given to another tenant");
  i6_the_request_of_the_key(asked, submitted);
  if (submitted.cached && entry->cache_key != asked.cache_key) {
    history_.violated("I11", "a cached answer to another question");
  }
}

void Checker::i6_the_request_of_the_key(const Asked& asked, const broker::Submitted& submitted) {
  const Entry& entry = *book_.find(submitted.id);
  if (asked.key.empty()) {
    if (submitted.duplicate && !submitted.cached) {
      history_.violated("I6", "a duplicate of a request without a key");
    }
  } else if (entry.key != asked.key || entry.fingerprint != asked.fingerprint) {
    history_.violated("I6", "the key " + asked.key + " was answered with " + short_name(entry.id) +
                                ", which has another key or another body");
  }
}

void Checker::saw_refused(const Asked& asked, const Error& error) {
  const bool full = error.code == Code::kQueueFull;
  if (full && error.retry_after_ms <= 0) {
    history_.violated("I10", "full, without saying when to try again");
  }
  if (error.code == Code::kIdempotencyMismatch && asked.key.empty()) {
    history_.violated("I6", "a mismatch of a request without a key");
  }
  if (error.code == Code::kInternal || error.code == Code::kCorruption) {
    history_.violated("I1", "refused: " + error.message);
  }
}

void Checker::saw_block(RequestId id, const stream::Block& block) {
  const Entry* entry = known(id, "events");
  if (entry == nullptr) return;
  for (Sequence number = block.first; number < block.end(); ++number) {
    if (number >= entry->events.size()) {
      return history_.violated("I2", "event " + std::to_string(number) + " of " + short_name(id) +
                                         " was seen, and no record holds it");
    }
    const Entry::Event& written = entry->events[number];
    i2_durable(id, written.index, "event " + std::to_string(number));
    if (block.events[number - block.first].SerializeAsString() != written.bytes) {
      history_.violated("I2", "event " + std::to_string(number) + " of " + short_name(id) +
                                  " isn't what was written");
    }
  }
}

void Checker::saw_ending(RequestId id, const stream::Ending& ending) {
  const Entry* entry = known(id, "the end");
  if (entry == nullptr) return;
  i2_durable(id, entry->ended, "the end");
  if (entry->ended == 0) return;
  if (!same_ending(ending, *entry) || ending.sequence != entry->events.size()) {
    history_.violated("I2", "the end of " + short_name(id) + " isn't what was written");
  }
}

void Checker::saw_view(const std::string& tenant, const broker::RequestView& view,
                       bool after_cancel) {
  const Entry* entry = known(view.id, "a view");
  if (entry == nullptr) return;
  i11_own_tenant(tenant, *entry, "was shown to another tenant");
  if (view.event_count > entry->events.size()) {
    return history_.violated("I2", "a view shows more events than there are");
  }
  if (view.event_count > 0) {
    i2_durable(view.id, entry->events[view.event_count - 1].index, "a view's events");
  }
  const bool over =
      view.state != v1::REQUEST_STATE_QUEUED && view.state != v1::REQUEST_STATE_RUNNING;
  if (over) i2_durable(view.id, entry->ended, "a view's end");
  if (over && entry->settled.state() != view.state) {
    history_.violated("I2", "a view of " + short_name(view.id) + " shows another end");
  }
  letter_in_view(*entry, view);
  if (after_cancel && !over) {
    history_.violated("I1", short_name(view.id) + " was cancelled and still runs");
  }
}

// What a view says of what was done with a dead letter stands in the book.
void Checker::letter_in_view(const Entry& entry, const broker::RequestView& view) {
  if (view.discarded) i2_durable(view.id, entry.discarded, "a view's discarding");
  if (view.requeued_as) i2_durable(view.id, entry.requeued, "a view's requeueing");
  if (view.requeued_as && view.requeued_as->to_bytes() != entry.requeued_as) {
    history_.violated("I1", short_name(view.id) + " is shown to be requeued as another request");
  }
  if (view.blocks_lane && !(entry.is_dead() && entry.block_on_dead)) {
    history_.violated("I5", short_name(view.id) + " is shown to block its lane, and can't");
  }
}

void Checker::saw_requeued(const std::string& tenant, RequestId letter,
                           const broker::Submitted& made) {
  const Entry* entry = known(made.id, "the requeueing");
  if (entry == nullptr) return;
  i11_own_tenant(tenant, *entry, "was given to another tenant");
  if (entry->requeue_of != letter.to_bytes()) {
    history_.violated("I1", short_name(letter) + " was requeued as a request that isn't its own");
  }
}

void Checker::saw_no_request(const std::string& tenant, RequestId id, const Error& error) {
  const bool absent = error.code == Code::kNotFound || error.code == Code::kGone;
  if (!absent) return;
  const Entry* entry = book_.find(id);
  if (entry == nullptr || entry->tenant != tenant) return;
  if (entry->accepted <= durable_ && !entry->gone()) {
    history_.violated("I1", short_name(id) + " was accepted, and isn't known any more");
  }
}

void Checker::saw_erased(RequestId id) {
  const Entry* entry = known(id, "the deletion");
  if (entry != nullptr && entry->forgotten == 0) i2_durable(id, entry->erased, "the deletion");
}

void Checker::i11_own_tenant(const std::string& tenant, const Entry& entry, const char* what) {
  if (entry.tenant != tenant) history_.violated("I11", short_name(entry.id) + " " + what);
}

// ---- The end
// -------------------------------------------------------------------------------------

void Checker::at_end() {
  i1_everything_ended();
}

// I1: accepted means exactly one terminal record. (A second one is refused by the book.)
void Checker::i1_everything_ended() {
  for (const auto& [raw, entry] : book_.entries()) {
    if (entry.live()) history_.violated("I1", short_name(entry.id) + " has not ended");
  }
}

}  // namespace waystation::sim
