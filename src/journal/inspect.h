// What stands behind `waystation journal verify | inspect`. They work on a folder, not on an open
// journal, and change nothing. (`salvage` is journal/salvage.h and broker/salvage.h.)
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>

#include "journal/file_system.h"
#include "journal/journal.h"

namespace waystation::journal {

// Checks every byte of all segments and checkpoints; prints a line for each and a verdict. Sound
// (also with a torn tail): ok. Damaged: kCorruption, for the exit status. A running server's newest
// segment may look torn.
Status verify(FileSystem& file_system, const std::string& dir, std::ostream& out);

// Turns a record into one line of JSON, without the newline.
using RecordFormatter = std::function<std::string(std::string_view record)>;

struct InspectOptions {
  LogIndex from{1};
  std::uint64_t limit = UINT64_MAX;  // records
};

// Prints valid records in order, one JSON line each:
// {"index":1,"time_ms":…,"record":<what the formatter gives>}. Starts at the first record that is
// there. Ends at damage with kCorruption.
Status inspect(FileSystem& file_system, const std::string& dir, const InspectOptions& options,
               const RecordFormatter& format, std::ostream& out);

}  // namespace waystation::journal
