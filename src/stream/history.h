// Reads a request's events back from the journal.
#pragma once

#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "journal/journal.h"
#include "stream/reader.h"

namespace waystation::stream {

// The events that the records at `positions` (ascending) hold for the request, as contiguous blocks
// from event 0. Any thread; does disk work. kCorruption when a record isn't what the index says.
Result<std::vector<BlockPtr>> load_history(const journal::Journal& journal, RequestId id,
                                           const std::vector<LogIndex>& positions);

}  // namespace waystation::stream
