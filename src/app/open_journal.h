// The journals of `serve`, as its options want them.
#pragma once

#include <memory>

#include "app/serve_options.h"
#include "base/meter.h"
#include "base/result.h"
#include "journal/file_journal.h"
#include "journal/file_system.h"
#include "journal/journal.h"

namespace waystation::app {

// In files, or in memory with --durability none. `file` says what is special about this journal;
// where it stands is `folder` of the data folder.
Result<std::unique_ptr<journal::Journal>> open_journal(const ServeOptions& options,
                                                       const char* folder,
                                                       journal::FileJournal::Options file,
                                                       journal::FileSystem& files, Meter& meter,
                                                       journal::Callbacks callbacks);

}  // namespace waystation::app
