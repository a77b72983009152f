#include "journal/checkpoint_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/crash_point.h"
#include "base/log.h"
#include "journal/format.h"

namespace waystation::journal {
namespace {

constexpr std::string_view kMagic = "WAYSTCKP";
constexpr std::size_t kHeaderBytes = 56;
constexpr std::uint32_t kFlagCompressed = 1;
constexpr std::string_view kVersionParam = "version";  // marks an error that has no fallback

std::string encode(const Checkpoint& checkpoint, std::uint64_t journal_id) {
  const auto compressed = compress(checkpoint.state);
  const std::string& stored = compressed ? *compressed : checkpoint.state;
  std::string out(kHeaderBytes, '\0');
  std::memcpy(out.data(), kMagic.data(), kMagic.size());
  put<std::uint16_t>(&out[8], kFormatVersion);
  put<std::uint16_t>(&out[10], kHeaderBytes);
  put<std::uint32_t>(&out[12], compressed ? kFlagCompressed : 0);
  put<std::uint64_t>(&out[16], journal_id);
  put<std::uint64_t>(&out[24], checkpoint.index.value);
  put<std::uint64_t>(&out[32], stored.size());
  put<std::uint64_t>(&out[40], checkpoint.state.size());
  put<std::uint32_t>(&out[48], crc32c(stored));
  put<std::uint32_t>(&out[52], crc32c({out.data(), 52}));
  return out + stored;
}

// What is wrong with the bytes, or the checkpoint.
Result<StoredCheckpoint> decode(std::string_view bytes, LogIndex named) {
  const auto wrong = [](std::string reason) { return Error{Code::kCorruption, std::move(reason)}; };
  if (bytes.size() < kHeaderBytes) return wrong("it is too short");
  if (!bytes.starts_with(kMagic)) return wrong("it doesn't start as a checkpoint does");
  if (const auto version = get<std::uint16_t>(&bytes[8]); version != kFormatVersion) {
    return Error{Code::kCorruption,
                 "its format is version " + std::to_string(version) +
                     ", this program knows version " + std::to_string(kFormatVersion) +
                     "; start it with the version of Waystation that wrote it",
                 std::string(kVersionParam)};
  }
  if (get<std::uint32_t>(&bytes[52]) != crc32c(bytes.substr(0, 52))) {
    return wrong("its header has a wrong checksum");
  }
  StoredCheckpoint stored;
  stored.journal_id = get<std::uint64_t>(&bytes[16]);
  stored.checkpoint.index.value = get<std::uint64_t>(&bytes[24]);
  if (stored.checkpoint.index != named) return wrong("its header and its name differ");
  const std::string_view state = bytes.substr(kHeaderBytes);
  if (state.size() != get<std::uint64_t>(&bytes[32])) return wrong("its size is wrong");
  if (crc32c(state) != get<std::uint32_t>(&bytes[48]))
    return wrong("its state has a wrong checksum");
  if (get<std::uint32_t>(&bytes[12]) & kFlagCompressed) {
    auto raw = decompress(state, get<std::uint64_t>(&bytes[40]));
    if (!raw) return raw.error();
    stored.checkpoint.state = std::move(*raw);
  } else {
    stored.checkpoint.state = state;
  }
  return stored;
}

}  // namespace

Result<StoredCheckpoint> read_checkpoint(FileSystem& file_system, const std::string& path,
                                         LogIndex named) {
  const auto file = file_system.open(path, OpenMode::kRead);
  if (!file) return file.error();
  const auto size = (*file)->size();
  if (!size) return size.error();
  std::string bytes(*size, '\0');
  const auto got = (*file)->read_at(0, bytes.data(), bytes.size());
  if (!got) return got.error();
  bytes.resize(*got);
  auto stored = decode(bytes, named);
  if (!stored) {
    return Error{stored.error().code, "checkpoint " + path + ": " + stored.error().message,
                 stored.error().param};
  }
  return stored;
}

std::string CheckpointStore::path_of(LogIndex index) const {
  return path_in(dir_, checkpoint_name(index));
}

Result<std::optional<std::uint64_t>> CheckpointStore::load(std::vector<LogIndex> found) {
  std::lock_guard lock(mutex_);
  kept_ = std::move(found);
  while (!kept_.empty()) {
    auto stored = read_checkpoint(file_system_, path_of(kept_.back()), kept_.back());
    if (stored) {
      loaded_ = std::move(stored->checkpoint);
      return std::optional(stored->journal_id);
    }
    if (stored.error().code != Code::kCorruption || stored.error().param == kVersionParam)
      return stored.error();
    WS_LOG(warn, "journal checkpoint unreadable, trying the one before: {}",
           stored.error().message);
    bad_.push_back(kept_.back());
    kept_.pop_back();
  }
  return std::optional<std::uint64_t>();
}

Status CheckpointStore::write(const Checkpoint& checkpoint) {
  std::lock_guard lock(mutex_);
  if (!kept_.empty() && checkpoint.index < kept_.back()) {
    return Error{Code::kInvalidArgument,
                 "a checkpoint at record " + std::to_string(checkpoint.index.value) +
                     " is older than the newest one, at " + std::to_string(kept_.back().value)};
  }
  const std::string path = path_of(checkpoint.index);
  const std::string temporary = path + std::string(kTemporarySuffix);
  {
    const auto file = file_system_.open(temporary, OpenMode::kCreate);
    if (!file) return file.error();
    if (auto wrote = (*file)->write_at(0, encode(checkpoint, journal_id_)); !wrote) return wrote;
    if (auto synced = (*file)->sync(); !synced) return synced;
  }
  crash_point(CrashPoint::kCheckpointBeforeRename);
  if (auto named = file_system_.rename(temporary, path); !named) return named;
  crash_point(CrashPoint::kCheckpointAfterRename);
  if (auto synced = file_system_.sync_dir(dir_); !synced) return synced;

  loaded_.reset();
  std::erase(bad_, checkpoint.index);
  if (kept_.empty() || kept_.back() < checkpoint.index) kept_.push_back(checkpoint.index);
  while (kept_.size() > 2) {
    bad_.push_back(kept_.front());
    kept_.erase(kept_.begin());
  }
  // Only now, and in any order: the two kept ones are durable.
  while (!bad_.empty()) {
    auto removed = file_system_.remove(path_of(bad_.back()));
    if (!removed && removed.error().code != Code::kNotFound) return removed;
    bad_.pop_back();
  }
  return {};
}

Result<std::optional<Checkpoint>> CheckpointStore::newest() const {
  std::lock_guard lock(mutex_);
  if (loaded_) return std::exchange(loaded_, std::nullopt);
  if (kept_.empty()) return std::optional<Checkpoint>();
  auto stored = read_checkpoint(file_system_, path_of(kept_.back()), kept_.back());
  if (!stored) return stored.error();
  return std::optional(std::move(stored->checkpoint));
}

LogIndex CheckpointStore::newest_index() const {
  std::lock_guard lock(mutex_);
  return kept_.empty() ? LogIndex{} : kept_.back();
}

LogIndex CheckpointStore::older_index() const {
  std::lock_guard lock(mutex_);
  return kept_.size() < 2 ? LogIndex{} : kept_.front();
}

}  // namespace waystation::journal
