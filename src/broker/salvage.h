// `waystation journal salvage`: of a damaged journal, a new one that a server can start with. The
// rules are in docs/formats/journal.md, "Salvage".
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

#include "base/result.h"
#include "journal/file_system.h"

namespace waystation::broker {

struct SalvageOptions {
  std::string dir;       // the damaged journal; nothing in it is changed but its LOCK
  std::string to;        // the new folder: empty or absent
  bool dry_run = false;  // only tell; `to` isn't touched
  std::uint64_t new_journal_id = 0;
  std::uint64_t segment_bytes = 32u << 20;
};

// Prints each damaged range with its file, bytes and records, each request that the damage touched,
// and a summary. kBusy: a server has the folder. kInvalidArgument: `to` isn't empty. kCorruption:
// nothing can be saved. Whoever calls it on a name of its own and renames that makes it atomic.
Status salvage(journal::FileSystem& file_system, const SalvageOptions& options, std::ostream& out);

}  // namespace waystation::broker
