#include "app/open_journal.h"

#include <utility>

#include "journal/memory_journal.h"

namespace waystation::app {

Result<std::unique_ptr<journal::Journal>> open_journal(const ServeOptions& options,
                                                       const char* folder,
                                                       journal::FileJournal::Options file,
                                                       journal::FileSystem& files, Meter& meter,
                                                       journal::Callbacks callbacks) {
  if (options.durability == "none") {
    return std::make_unique<journal::MemoryJournal>(
        journal::MemoryJournal::Options{std::move(callbacks), true});
  }
  file.dir = options.data + "/" + folder;
  file.durability =
      options.durability == "os" ? journal::Durability::kOs : journal::Durability::kDisk;
  file.callbacks = std::move(callbacks);
  file.file_system = &files;
  file.meter = &meter;
  auto opened = journal::FileJournal::open(std::move(file));
  if (!opened) return opened.error();
  return std::unique_ptr<journal::Journal>(std::move(*opened));
}

}  // namespace waystation::app
