#include "broker/recovery.h"

#include <optional>
#include <string>
#include <utility>

namespace waystation::broker {

Result<Recovered> recover(const journal::Journal& journal, const ledger::Limits& limits,
                          LogIndex upto) {
  Recovered out;
  out.ledger = std::make_unique<ledger::Ledger>(limits);
  auto checkpoint = journal.newest_checkpoint();
  if (!checkpoint) return checkpoint.error();
  if (*checkpoint) {
    v1::LedgerSnapshot snapshot;
    if (!snapshot.ParseFromString((*checkpoint)->state)) {
      return Error{Code::kCorruption,
                   "the checkpoint's state can't be parsed; it was written by "
                   "another program or changed by another hand"};
    }
    if (const Status restored = out.ledger->restore(snapshot); !restored) return restored.error();
    out.checkpoint = (*checkpoint)->index;
    out.checkpoint_bytes = (*checkpoint)->state.size();
    if (out.ledger->index() != out.checkpoint) {
      return Error{Code::kCorruption,
                   "the checkpoint's state is of another record than its name says"};
    }
  }
  const LogIndex last = upto == LogIndex{} ? journal.durable_index() : upto;
  if (last <= out.ledger->index()) return out;
  v1::Record record;  // one for all: parsing reuses its memory
  const Status scanned = journal.scan(
      LogIndex{out.ledger->index().value + 1}, last,
      [&](LogIndex index, std::string_view bytes) -> Status {
        if (!record.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
          return Error{Code::kCorruption,
                       "journal record " + std::to_string(index.value) + " can't be parsed"};
        }
        if (Status applied = out.ledger->apply(record, index); !applied) {
          applied.error().message =
              "journal record " + std::to_string(index.value) + ": " + applied.error().message;
          return applied;
        }
        ++out.replayed;
        return {};
      });
  if (!scanned) return scanned.error();
  return out;
}

Result<std::uint64_t> write_checkpoint(journal::Journal& journal, const ledger::Limits& limits,
                                       LogIndex upto) {
  auto recovered = recover(journal, limits, upto);
  if (!recovered) return recovered.error();
  journal::Checkpoint checkpoint;
  checkpoint.index = recovered->ledger->index();
  if (!recovered->ledger->snapshot().SerializeToString(&checkpoint.state)) {
    return Error{Code::kInternal, "the ledger's state is too large for one checkpoint"};
  }
  if (Status written = journal.write_checkpoint(checkpoint); !written) return written.error();
  return checkpoint.state.size();
}

}  // namespace waystation::broker
