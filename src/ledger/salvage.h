// Makes records that the ledger can apply of what is left of a damaged log
// (docs/formats/journal.md, "Salvage"). Pure, like the ledger.
//
// Over a hole in the log every live request is in doubt: records about it may be missing. Doubt
// ends when a later record can only follow what is there (the next events, the next attempt, an end
// whose counts agree). A request about which something is provably missing ends as failed,
// `lost_in_salvage`, so that no reader ever sees a gap; records about requests that nobody knows
// are left out.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ledger/ledger.h"

namespace waystation::ledger {

// What became of a request that the damage touched.
struct Affected {
  enum class Fate {
    kFailed,    // ended as lost_in_salvage
    kUnknown,   // its acceptance is lost, so all that is left about it was left out
    kUnproven,  // goes on from the beginning: nothing of an answer is there, but one may be lost
  };
  Fate fate = Fate::kFailed;
  std::string why = {};  // for kFailed
  std::uint64_t records_dropped = 0;
};

// Numbers below are indexes of the log that is written. One thread.
class Salvage {
 public:
  // Gets each record of the log that can be applied, with its number.
  using Emit = std::function<Status(LogIndex, const v1::Record&)>;

  // `base`: the state to begin with (an empty one with an index: the log before is lost). Requests
  // of it whose events stand in records that `is_lost` names lose all of their events and have
  // failed. kCorruption when the state can't be used.
  static Result<Salvage> begin(v1::LedgerSnapshot base,
                               const std::function<bool(LogIndex)>& is_lost, Emit emit);

  // As many records are missing here.
  void hole(std::uint64_t records);
  // The next record of the damaged log that could be read.
  Status take(const v1::Record& record);
  // Ends what must end, and starts an epoch that is newer than any that may have been lost.
  Status finish();

  // With the changes that begin() made.
  const v1::LedgerSnapshot& base() const { return base_; }
  const Ledger& ledger() const { return *ledger_; }
  const std::map<RequestId, Affected>& affected() const { return affected_; }
  std::uint64_t records_dropped() const { return records_dropped_; }

 private:
  Salvage(v1::LedgerSnapshot base, Emit emit);

  // Makes room for a record that proves that something before it is missing.
  Status clear_the_way(const v1::Record& record);
  Status clear_the_lane(const Request& request);
  // A request that was made of a dead letter; alone, where that is lost.
  Status take_requeued(v1::Record record);
  Status take_fitting(const v1::Record& record);
  // What was done with it proves that a live request had died.
  Status prove_dead(const std::string& id_bytes);
  bool contradicts(const v1::Settled& settled) const;
  Status write(v1::Record record);
  // Ends a live request about which something is missing.
  Status give_up(RequestId id, const std::string& why);
  Status discard(RequestId id);
  Status drop(const v1::Record& record);
  void note_proof(const v1::Record& record);
  Status take_forgotten(const v1::Record& record);

  v1::LedgerSnapshot base_;
  Emit emit_;
  std::unique_ptr<Ledger> ledger_;
  // Live, and there was a hole since the last record that proved it whole. True: it ran then.
  std::map<RequestId, bool> doubtful_;
  std::set<RequestId> doubtful_blocks_;  // what blocked a lane at a hole
  TimeMs time_ms_ = 0;
  std::map<RequestId, Affected> affected_;
  std::uint64_t records_missing_ = 0;
  std::uint64_t records_dropped_ = 0;
};

}  // namespace waystation::ledger
