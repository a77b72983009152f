// The ledger's state out of the journal: the newest checkpoint, and every record after it.
#pragma once

#include <cstdint>
#include <memory>

#include "base/ids.h"
#include "base/result.h"
#include "journal/journal.h"
#include "ledger/ledger.h"

namespace waystation::broker {

struct Recovered {
  std::unique_ptr<ledger::Ledger> ledger;
  LogIndex checkpoint;                 // the record the checkpoint stood at; {} when there was none
  std::uint64_t checkpoint_bytes = 0;  // of its state
  std::uint64_t replayed = 0;          // records applied after it
};

// State after record `upto`; {} means the newest durable one. Any thread; does disk work.
Result<Recovered> recover(const journal::Journal& journal, const ledger::Limits& limits,
                          LogIndex upto = {});

// Writes a checkpoint of the state after record `upto`, from the journal alone: the working ledger is
// not stopped for it, and every checkpoint proves again that the records give the state (I7). The
// size of the state, in bytes.
Result<std::uint64_t> write_checkpoint(journal::Journal& journal, const ledger::Limits& limits,
                                       LogIndex upto);

}  // namespace waystation::broker
