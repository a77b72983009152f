// Holds what clients see, and what a restart finds, against the book (I2, I6, I7, I8, I11), and in
// the end all of it (I1). What a record alone can break is checked by the book itself; what damage
// to the disk may do (I9), by disk_image.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broker/api.h"
#include "journal/journal.h"
#include "sim/book.h"
#include "sim/history.h"
#include "stream/reader.h"

namespace waystation::sim {

// A request as its client remembers it.
struct Asked {
  std::string tenant;
  std::string key;
  std::string fingerprint;
  std::string cache_key;
};

class Checker {
 public:
  Checker(History& history, const ledger::Limits& limits, std::uint32_t answer_tokens)
      : history_(history), limits_(limits), book_(history, limits, answer_tokens) {}

  const Book& book() const { return book_; }
  std::uint64_t durable() const { return durable_; }
  // All but the last group: what a bit flip in that group can't touch.
  std::uint64_t durable_before_last() const { return durable_before_last_; }

  // ---- What the server writes
  // -----------------------------------------------------------------------

  void on_append(const std::vector<std::string>& records);
  void on_durable(std::uint64_t index);
  void on_journal_failure() { journal_failed_ = true; }
  // A server has opened the journal, and goes on from what it finds.
  void on_recovered(const journal::Journal& journal);

  // ---- What clients see
  // -------------------------------------------------------------------------------

  void saw_submitted(const Asked& asked, const broker::Submitted& submitted);
  void saw_refused(const Asked& asked, const Error& error);
  void saw_block(RequestId id, const stream::Block& block);
  void saw_ending(RequestId id, const stream::Ending& ending);
  // `tenant`: who looked.
  void saw_view(const std::string& tenant, const broker::RequestView& view, bool after_cancel);
  void saw_erased(RequestId id);
  void saw_requeued(const std::string& tenant, RequestId letter, const broker::Submitted& made);
  void saw_no_request(const std::string& tenant, RequestId id, const Error& error);

  // The faults have stopped, and there was time enough for everything.
  void at_end();

 private:
  void letter_in_view(const Entry& entry, const broker::RequestView& view);
  void i2_durable(RequestId id, std::uint64_t index, const std::string& what);
  void i2_nothing_lost(std::uint64_t recovered);
  void i2_same_bytes(const journal::Journal& journal, std::uint64_t recovered);
  void i6_the_request_of_the_key(const Asked& asked, const broker::Submitted& submitted);
  void i7_same_state(const journal::Journal& journal, std::uint64_t recovered);
  void i8_failed_for_good();
  void i11_own_tenant(const std::string& tenant, const Entry& entry, const char* what);
  void i1_everything_ended();
  const Entry* known(RequestId id, const char* what);

  History& history_;
  const ledger::Limits limits_;
  Book book_;
  std::uint64_t durable_ = 0;
  std::uint64_t durable_before_last_ = 0;
  bool journal_failed_ = false;
};

// The records from the oldest that is kept to `last`, held against the book; "" when they are the
// same, else what differs. An error of reading is handed on.
Result<std::string> compare_records(const journal::Journal& journal, std::uint64_t last,
                                    const Book& book);
// The same for the state that a broker recovers, and for the stream of each request that it knows.
Result<std::string> compare_state(const journal::Journal& journal, std::uint64_t last,
                                  const Book& book, const ledger::Limits& limits);

}  // namespace waystation::sim
