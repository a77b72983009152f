// `waystation journal salvage` of the journal of requests. The rules are in
// docs/formats/journal.md, "Salvage".
#pragma once

#include <ostream>

#include "base/result.h"
#include "journal/file_system.h"
#include "journal/salvage_run.h"

namespace waystation::broker {

// As journal::salvage(). Prints each request that the damage touched, and a summary.
Status salvage(journal::FileSystem& file_system, const journal::SalvageOptions& options,
               std::ostream& out);

}  // namespace waystation::broker
