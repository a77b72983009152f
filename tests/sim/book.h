// The book of a run: every record that the broker gave to the journal, and what they say of each
// request. It is read here by itself, without the ledger's code, and each record is held against
// the invariants that a log alone can show: I1, I3, I4, I5, I6 and I10.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "ledger/ledger.h"
#include "message/proto/records.pb.h"
#include "sim/history.h"

namespace waystation::sim {

// The text of a token that came from a fence which was stale when it was sent.
inline constexpr std::string_view kStaleText = "STALE ";

// One request, as the records tell it.
struct Entry {
  RequestId id;
  std::string tenant;
  std::string key;
  std::string fingerprint;
  std::string cache_key;
  std::string lane;  // empty: one of its own
  bool has_deadline = false;
  std::uint32_t choices = 1;
  std::uint32_t tokens = 0;  // of each choice, when it is complete
  bool by_budget = false;    // ends by its budget: "length", not "stop"
  TimeMs accepted_ms = 0;
  std::uint64_t accepted = 0;  // index of the record; so below, and 0 = not yet

  std::uint32_t attempt = 0;
  std::uint32_t failed = 0;  // attempts that count against it
  bool running = false;

  struct Event {
    std::string bytes;
    std::uint64_t index;
  };
  std::vector<Event> events;
  std::vector<std::uint32_t> next_token;  // by choice
  std::vector<bool> finished;             // by choice

  std::uint64_t ended = 0;
  v1::Settled settled;
  std::uint64_t forgotten = 0;
  std::uint64_t erased = 0;

  // Of dead letters.
  std::string data;  // its body
  bool block_on_dead = false;
  std::string requeue_of;   // raw ids
  std::string requeued_as;
  std::uint64_t requeued = 0;
  std::uint64_t discarded = 0;

  bool is_dead() const { return ended != 0 && settled.state() == v1::REQUEST_STATE_DEAD; }
  // Nobody has dealt with it.
  bool is_open() const { return is_dead() && erased == 0 && requeued == 0 && discarded == 0; }
  bool blocks() const { return is_open() && block_on_dead && !lane.empty(); }
  bool live() const { return ended == 0; }
  // There is nothing more to read.
  bool gone() const { return forgotten != 0 || erased != 0; }
};

class Book {
 public:
  // `answer_tokens`: of a scripted answer that no budget cuts.
  Book(History& history, const ledger::Limits& limits, std::uint32_t answer_tokens)
      : history_(history), limits_(limits), answer_tokens_(answer_tokens) {}

  void append(std::string record);
  // Records after `last` were lost, which is fine for those that were not durable.
  void cut_to(std::uint64_t last);

  std::uint64_t size() const { return records_.size(); }
  // `index` from 1.
  const std::string& record(std::uint64_t index) const { return records_[index - 1]; }
  const Entry* find(RequestId id) const;
  const std::map<std::string, Entry>& entries() const { return entries_; }  // by raw id
  std::uint64_t epoch() const { return epoch_; }
  // The ledger that has applied the first `count` records (I7: whoever applies them has the same).
  std::string state_after(std::uint64_t count) const;

 private:
  void read(const v1::Record& record, std::uint64_t index);
  void on_accepted(const v1::Accepted& accepted, TimeMs now_ms, std::uint64_t index);
  void on_leased(const v1::Leased& leased);
  void on_appended(const v1::Appended& appended, std::uint64_t index);
  void on_settled(const v1::Settled& settled, std::uint64_t index);
  void on_carried(const v1::Carried& carried);
  void on_requeued(Entry& entry, const std::string& letter, std::uint64_t index);
  void leave_lane(const Entry& entry);

  void i1_one_end(const Entry& entry);
  void i1_completed_is_complete(const Entry& entry);
  void i1_dealt_with_once(const Entry& letter);
  void i1_dead_after_its_attempts(const Entry& entry);
  void i3_contiguous(const Entry& entry, const v1::Appended& appended);
  void i3_true_text(Entry& entry, const v1::Event& event);
  void i4_current_attempt(const Entry& entry, std::uint32_t attempt, const char* what);
  void i5_head_of_its_lane(const Entry& entry);
  void i6_one_request_a_key(const Entry& entry);
  void i10_bounded(const Entry& entry);

  Entry& entry_of(const std::string& raw_id);
  void violated(std::string_view invariant, const Entry& entry, const std::string& what);

  History& history_;
  const ledger::Limits limits_;
  const std::uint32_t answer_tokens_;
  std::vector<std::string> records_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::vector<std::string>> lanes_;  // raw ids, in order
  std::map<std::pair<std::string, std::string>, std::string> keys_;  // (tenant, key) → raw id
  std::size_t live_ = 0;  // and what blocks lanes, which takes room as well
  std::uint64_t epoch_ = 0;
};

// "1f3a", for people.
std::string short_name(RequestId id);

}  // namespace waystation::sim
