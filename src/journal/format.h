// The bytes of the journal: headers, batches, records, file names. The rules are in
// docs/formats/journal.md. Pure functions, no I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"

struct ZSTD_CCtx_s;

namespace waystation::journal {

inline constexpr std::uint16_t kFormatVersion = 1;
inline constexpr std::size_t kSegmentHeaderBytes = 48;
inline constexpr std::size_t kBatchHeaderBytes = 56;
inline constexpr std::uint64_t kBatchBytesMax = 1u << 30;
inline constexpr std::string_view kBatchMagic = "\x57\x53\x42\xa7";

// CRC32C of `data`, going on from an earlier value.
std::uint32_t crc32c(std::string_view data, std::uint32_t from = 0);

// Little-endian numbers at a place in memory.
template <typename T>
void put(char* at, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    at[i] = static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i));
  }
}
template <typename T>
T get(const char* at) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(at[i])} << (8 * i);
  }
  return static_cast<T>(value);
}

// Where `name` is in `dir`.
inline std::string path_in(const std::string& dir, std::string_view name) {
  return dir + "/" + std::string(name);
}

// Names of files in the folder.
std::string segment_name(LogIndex first);
std::string checkpoint_name(LogIndex index);
std::optional<LogIndex> parse_segment_name(std::string_view name);
std::optional<LogIndex> parse_checkpoint_name(std::string_view name);
bool is_temporary_name(std::string_view name);
inline constexpr std::string_view kLockName = "LOCK";
inline constexpr std::string_view kTemporarySuffix = ".tmp";

struct SegmentHeader {
  std::uint64_t journal_id = 0;
  LogIndex first;
  TimeMs previous_time_ms = 0;     // of the batch before this segment
  std::uint32_t previous_crc = 0;  // header CRC of the batch before this segment
};

std::string encode_segment_header(const SegmentHeader& header);
// kCorruption with a reason (no path) when it isn't one, or of an unknown version.
Result<SegmentHeader> decode_segment_header(std::string_view bytes);

struct BatchHeader {
  bool compressed = false;
  std::uint32_t stored_bytes = 0;  // of payload, in the file
  std::uint32_t raw_bytes = 0;     // of payload, decompressed
  LogIndex base;
  LogIndex synced;
  TimeMs time_ms = 0;
  std::uint32_t record_count = 0;
  std::uint32_t previous_crc = 0;
  std::uint32_t payload_crc = 0;
  std::uint32_t header_crc = 0;

  LogIndex end() const { return {base.value + record_count}; }  // number after its last record
};

// Nothing when the bytes (kBatchHeaderBytes of them) aren't a valid header of this journal.
std::optional<BatchHeader> decode_batch_header(std::string_view bytes, std::uint64_t journal_id);

// Makes batches. Keeps its working memory between calls. One thread.
class BatchEncoder {
 public:
  // Payloads of at least `compress_from_bytes` are compressed when that makes them smaller.
  explicit BatchEncoder(std::size_t compress_from_bytes);
  ~BatchEncoder();
  BatchEncoder(const BatchEncoder&) = delete;
  BatchEncoder& operator=(const BatchEncoder&) = delete;

  struct Position {
    std::uint64_t journal_id = 0;
    LogIndex base;
    LogIndex synced;
    TimeMs time_ms = 0;
    std::uint32_t previous_crc = 0;
  };
  // Appends the batch to `out` and returns its header CRC. No records: a closing mark.
  std::uint32_t encode(const Position& position, std::span<const std::string> records,
                       std::string& out);

 private:
  const std::size_t compress_from_bytes_;
  ZSTD_CCtx_s* compressor_ = nullptr;  // made at first need
  std::string scratch_;
};

// Payload bytes of these records, not compressed.
std::uint64_t raw_bytes_of(std::span<const std::string> records);

// The payload, decompressed into `scratch` if need be. kCorruption with a reason.
Result<std::string_view> decode_payload(const BatchHeader& header, std::string_view stored,
                                        std::string& scratch);

// Walks the records of a decompressed payload.
class RecordCursor {
 public:
  explicit RecordCursor(std::string_view raw) : rest_(raw) {}
  // False at the end, or when what is left isn't a record.
  bool next(std::string_view& record);
  bool at_end() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

// zstd for whole buffers (checkpoints). Nothing when it doesn't get smaller.
std::optional<std::string> compress(std::string_view raw);
// kCorruption with a reason.
Result<std::string> decompress(std::string_view stored, std::uint64_t raw_bytes);

}  // namespace waystation::journal
