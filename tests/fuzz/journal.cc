// A journal's folder with any files in it: recovery, verify, salvage and reading.
//
//   input   flags, then files: kind ('s' segment, 'c' checkpoint), block of bytes
//   flags   1: checksums are made right, so that what lies behind them is reached
//           2: each batch is made to follow the one before it
//           high bits: which unsynced sectors a power cut loses
#include <algorithm>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "fuzz/fuzz.h"
#include "journal/checkpoint_store.h"
#include "journal/faulty_file_system.h"
#include "journal/format.h"
#include "journal/inspect.h"
#include "journal/log_reader.h"
#include "journal/log_scan.h"
#include "journal/recovery.h"
#include "journal/salvage.h"

namespace waystation::fuzz {
namespace {

using namespace waystation::journal;

constexpr char kDir[] = "/j";
constexpr std::uint64_t kSegmentBytes = 4096;
constexpr std::uint64_t kNewJournalId = 7;
constexpr std::uint32_t kRawBytesMax = 1u << 20;  // what a header made right may ask for
constexpr std::size_t kFilesMax = 8;
constexpr std::size_t kCheckpointHeaderBytes = 56;
constexpr std::uint8_t kRepair = 1;
constexpr std::uint8_t kChain = 2;

// ---- Checksums made right -----------------------------------------------------------------------

// Of the batch at `at`; gives where the next one begins, 0 when there is none.
std::size_t repair_batch(std::string& file, std::size_t at, std::string_view journal_id,
                         std::uint32_t* previous) {
  if (at + kBatchHeaderBytes > file.size()) return 0;
  char* const header = &file[at];
  if (std::string_view(header, 4) != kBatchMagic) return 0;
  put<std::uint8_t>(header + 4, kFormatVersion);
  put<std::uint8_t>(header + 5, get<std::uint8_t>(header + 5) & 1);
  const std::size_t left = file.size() - at - kBatchHeaderBytes;
  const auto stored = std::min<std::size_t>(get<std::uint32_t>(header + 8), left);
  put<std::uint32_t>(header + 8, stored);
  put<std::uint32_t>(header + 12, get<std::uint32_t>(header + 12) % kRawBytesMax);
  if (previous != nullptr) put<std::uint32_t>(header + 44, *previous);
  put<std::uint32_t>(header + 48, crc32c({header + kBatchHeaderBytes, stored}));
  const std::uint32_t crc = crc32c({header, kBatchHeaderBytes - 4}, crc32c(journal_id));
  put<std::uint32_t>(header + 52, crc);
  if (previous != nullptr) *previous = crc;
  return at + kBatchHeaderBytes + stored;
}

void repair_segment(std::string& file, bool chain) {
  if (file.size() < kSegmentHeaderBytes) return;
  put<std::uint16_t>(&file[8], kFormatVersion);
  put<std::uint32_t>(&file[44], crc32c({file.data(), 44}));
  const std::string journal_id = file.substr(16, 8);
  std::uint32_t previous = get<std::uint32_t>(&file[40]);
  for (std::size_t at = kSegmentHeaderBytes; at != 0;) {
    at = repair_batch(file, at, journal_id, chain ? &previous : nullptr);
  }
}

void repair_checkpoint(std::string& file) {
  if (file.size() < kCheckpointHeaderBytes) return;
  put<std::uint16_t>(&file[8], kFormatVersion);
  put<std::uint64_t>(&file[32], file.size() - kCheckpointHeaderBytes);
  put<std::uint64_t>(&file[40], get<std::uint64_t>(&file[40]) % kRawBytesMax);
  put<std::uint32_t>(&file[48], crc32c(std::string_view(file).substr(kCheckpointHeaderBytes)));
  put<std::uint32_t>(&file[52], crc32c({file.data(), 52}));
}

// ---- What is looked at --------------------------------------------------------------------------

using Disk = std::unique_ptr<FaultyFileSystem>;
using Records = std::map<std::uint64_t, std::string>;

Disk disk_of(Input& input, std::uint8_t flags) {
  auto disk = std::make_unique<FaultyFileSystem>();
  (void)disk->make_dir(kDir);
  for (std::size_t i = 0; i < kFilesMax && !input.empty(); ++i) {
    const bool is_segment = input.u8() != 'c';
    std::string file(input.block());
    if (flags & kRepair)
      is_segment ? repair_segment(file, flags & kChain) : repair_checkpoint(file);
    // Its name says the number that its header says, for both at the same place.
    const LogIndex number{file.size() < 32 ? 1 : get<std::uint64_t>(&file[24])};
    const std::string name = is_segment ? segment_name(number) : checkpoint_name(number);
    disk->set_contents(path_in(kDir, name), std::move(file));
  }
  return disk;
}

std::map<std::string, std::string> files_of(const FaultyFileSystem& disk) {
  std::map<std::string, std::string> files;
  for (const std::string& path : disk.paths()) files[path] = disk.contents(path);
  return files;
}

struct Found {
  Status status;
  std::uint64_t torn_bytes = 0;
  LogIndex checkpoint;
  LogIndex last;
  Status reading;   // of the records after the checkpoint
  Records records;  // before what can't be read
};

Found recovered(FaultyFileSystem& disk) {
  Found found;
  CheckpointStore checkpoints(disk, kDir);
  auto log = recover(disk, kDir, kSegmentBytes, kNewJournalId, checkpoints);
  if (!log) {
    found.status = log.error();
    return found;
  }
  found.torn_bytes = log->torn_bytes;
  found.checkpoint = checkpoints.newest_index();
  found.last = log->last;
  const LogReader reader(log->segments);
  const LogIndex from{found.checkpoint.value + 1};
  if (from > found.last) return found;
  found.reading = reader.scan(from, found.last, found.last,
                              [&](LogIndex index, std::string_view record) -> Status {
                                found.records[index.value] = record;
                                return {};
                              });
  return found;
}

std::string told(const Status& status) {
  return status ? "good" : status.error().message;
}

// ---- What must hold -----------------------------------------------------------------------------

// A recovery leaves what the next one finds unchanged.
void require_same(const Found& first, FaultyFileSystem& disk) {
  const Found again = recovered(disk);
  REQUIRE(again.status, told(again.status));
  REQUIRE(again.last == first.last, std::to_string(again.last.value));
  REQUIRE(again.checkpoint == first.checkpoint, std::to_string(again.checkpoint.value));
  REQUIRE(again.torn_bytes == 0, std::to_string(again.torn_bytes));
  REQUIRE(again.reading.has_value() == first.reading.has_value(), told(again.reading));
  REQUIRE(again.records == first.records, "records differ");
}

// Salvage finds every record that recovery found. (A batch made right may hold fewer records than
// its header says: then reading ends in it, and salvage takes it for damaged.)
void require_leftover(const Found& found, FaultyFileSystem& disk) {
  const auto listing = list_journal(disk, kDir);
  REQUIRE(listing, "no listing");
  Records records;
  LeftoverVisitor visitor;
  visitor.record = [&](LogIndex index, TimeMs, std::string_view record) -> Status {
    REQUIRE(records.empty() || records.rbegin()->first < index.value, "out of order");
    records[index.value] = record;
    return {};
  };
  visitor.lost = [](const LostRange&) { return Status(); };
  const auto left = read_leftover(disk, kDir, *listing, found.checkpoint, std::nullopt, visitor);
  if (!found.status) {
    if (!left) require_sayable(left.error());
    return;
  }
  if (listing->segments.empty() || !found.reading) return;
  REQUIRE(left, left.error().message);
  for (const auto& [index, record] : found.records) {
    const auto same = records.find(index);
    REQUIRE(same != records.end() && same->second == record, std::to_string(index));
  }
}

// The same batches, however much is read at once.
void require_same_batches(FaultyFileSystem& disk) {
  for (const std::string& path : disk.paths()) {
    if (!path.ends_with(".segment")) continue;
    const auto file = disk.open(path, OpenMode::kRead);
    REQUIRE(file, path);
    const auto header = read_segment_header(**file, path);
    if (!header) continue;
    const LogPosition start{kSegmentHeaderBytes, header->first, header->previous_crc};
    SegmentReader whole(**file, header->journal_id, start);
    SegmentReader pieces(**file, header->journal_id, start, 64);
    for (;;) {
      const auto step = whole.next();
      const auto other = pieces.next();
      REQUIRE(step && other && *step == *other, whole.reason() + "|" + pieces.reason());
      REQUIRE(whole.reason() == pieces.reason(), whole.reason() + "|" + pieces.reason());
      if (*step != Step::kBatch) break;
      REQUIRE(whole.stored() == pieces.stored(), path);
      REQUIRE(whole.position().offset == pieces.position().offset, path);
    }
  }
}

void check(const FaultyFileSystem& given, std::uint8_t flags) {
  const Disk disk = given.clone();
  const auto before = files_of(*disk);
  std::ostringstream report;
  const Status verified = verify(*disk, kDir, report);
  std::ostringstream shown;
  (void)inspect(
      *disk, kDir, {}, [](std::string_view) { return std::string("{}"); }, shown);
  REQUIRE(files_of(*disk) == before, "verify or inspect changed something");
  require_same_batches(*disk);

  const Disk mended = disk->clone();
  const Found found = recovered(*mended);
  REQUIRE(!verified || found.status, told(found.status) + "\n" + report.str());
  require_leftover(found, *disk);
  if (!found.status) {
    require_sayable(found.status.error());
    REQUIRE(found.status.error().code == Code::kCorruption, found.status.error().message);
    REQUIRE(files_of(*mended) == before, "a refused recovery changed something");
    return;
  }
  const bool no_checkpoints = report.str().find("checkpoint ") == std::string::npos;
  const bool no_files = before.empty();
  REQUIRE(!no_checkpoints || no_files || verified, report.str());
  const Disk cut = mended->clone();
  cut->crash(flags >> 2);
  require_same(found, *cut);
  require_same(found, *mended);
}

}  // namespace
}  // namespace waystation::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waystation::fuzz;
  be_quiet();
  Input input(data, size);
  const std::uint8_t flags = input.u8();
  check(*disk_of(input, flags), flags);
  return 0;
}
