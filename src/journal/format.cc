#include "journal/format.h"

#include <isa-l/crc.h>
#include <zstd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/check.h"

namespace waystation::journal {
namespace {

constexpr std::string_view kSegmentMagic = "WAYSTSEG";
constexpr std::string_view kSegmentSuffix = ".segment";
constexpr std::string_view kCheckpointPrefix = "checkpoint-";
constexpr std::string_view kCheckpointSuffix = ".ckpt";
constexpr std::size_t kDigits = 20;
constexpr std::uint8_t kFlagCompressed = 1;
constexpr int kCompressionLevel = 1;

std::string padded(LogIndex index) {
  char text[kDigits + 1];
  std::snprintf(text, sizeof text, "%020llu", static_cast<unsigned long long>(index.value));
  return text;
}

std::optional<LogIndex> parse_digits(std::string_view text) {
  if (text.size() != kDigits) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return LogIndex{value};
}

std::size_t varint_bytes(std::uint64_t value) {
  std::size_t n = 1;
  for (; value >= 0x80; value >>= 7) ++n;
  return n;
}

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void append_records(std::string& out, std::span<const std::string> records) {
  for (const std::string& record : records) {
    append_varint(out, record.size());
    out += record;
  }
}

// A batch's CRC starts from its journal's id, so that no other journal's batch is valid in it.
std::uint32_t batch_header_crc(const char* header, std::uint64_t journal_id) {
  char id[8];
  put<std::uint64_t>(id, journal_id);
  return crc32c({header, kBatchHeaderBytes - 4}, crc32c({id, sizeof id}));
}

}  // namespace

std::uint32_t crc32c(std::string_view data, std::uint32_t from) {
  std::uint32_t crc = ~from;
  while (!data.empty()) {
    const std::size_t n = std::min<std::size_t>(data.size(), 1u << 30);
    // The library's signature isn't const, but it only reads.
    auto* bytes = reinterpret_cast<unsigned char*>(const_cast<char*>(data.data()));  // NOLINT
    crc = crc32_iscsi(bytes, static_cast<int>(n), crc);
    data.remove_prefix(n);
  }
  return ~crc;
}

std::string segment_name(LogIndex first) {
  return padded(first) + std::string(kSegmentSuffix);
}

std::string checkpoint_name(LogIndex index) {
  return std::string(kCheckpointPrefix) + padded(index) + std::string(kCheckpointSuffix);
}

std::optional<LogIndex> parse_segment_name(std::string_view name) {
  if (!name.ends_with(kSegmentSuffix)) return std::nullopt;
  return parse_digits(name.substr(0, name.size() - kSegmentSuffix.size()));
}

std::optional<LogIndex> parse_checkpoint_name(std::string_view name) {
  if (!name.starts_with(kCheckpointPrefix) || !name.ends_with(kCheckpointSuffix))
    return std::nullopt;
  name.remove_prefix(kCheckpointPrefix.size());
  return parse_digits(name.substr(0, name.size() - kCheckpointSuffix.size()));
}

bool is_temporary_name(std::string_view name) {
  if (!name.ends_with(kTemporarySuffix)) return false;
  name.remove_suffix(kTemporarySuffix.size());
  return parse_segment_name(name) || parse_checkpoint_name(name);
}

std::string encode_segment_header(const SegmentHeader& header) {
  std::string out(kSegmentHeaderBytes, '\0');
  std::memcpy(out.data(), kSegmentMagic.data(), kSegmentMagic.size());
  put<std::uint16_t>(&out[8], kFormatVersion);
  put<std::uint16_t>(&out[10], kSegmentHeaderBytes);
  put<std::uint64_t>(&out[16], header.journal_id);
  put<std::uint64_t>(&out[24], header.first.value);
  put<std::int64_t>(&out[32], header.previous_time_ms);
  put<std::uint32_t>(&out[40], header.previous_crc);
  put<std::uint32_t>(&out[44], crc32c({out.data(), 44}));
  return out;
}

Result<SegmentHeader> decode_segment_header(std::string_view bytes) {
  if (bytes.empty()) return Error{Code::kCorruption, "the file is empty"};
  if (bytes.size() < kSegmentHeaderBytes) {
    return Error{Code::kCorruption, "the file is shorter than a segment's header"};
  }
  if (!bytes.starts_with(kSegmentMagic)) {
    return Error{Code::kCorruption, "it doesn't start as a segment does"};
  }
  const auto version = get<std::uint16_t>(&bytes[8]);
  if (version != kFormatVersion) {
    return Error{Code::kCorruption, "its format is version " + std::to_string(version) +
                                        ", this program knows version " +
                                        std::to_string(kFormatVersion) +
                                        "; start it with the version of Waystation that wrote it"};
  }
  if (get<std::uint32_t>(&bytes[44]) != crc32c(bytes.substr(0, 44))) {
    return Error{Code::kCorruption, "its header has a wrong checksum"};
  }
  SegmentHeader header;
  header.journal_id = get<std::uint64_t>(&bytes[16]);
  header.first.value = get<std::uint64_t>(&bytes[24]);
  header.previous_time_ms = get<std::int64_t>(&bytes[32]);
  header.previous_crc = get<std::uint32_t>(&bytes[40]);
  if (header.journal_id == 0 || header.first.value == 0) {
    return Error{Code::kCorruption, "its header names no journal or no record"};
  }
  return header;
}

std::optional<BatchHeader> decode_batch_header(std::string_view bytes, std::uint64_t journal_id) {
  if (bytes.size() < kBatchHeaderBytes || !bytes.starts_with(kBatchMagic)) return std::nullopt;
  const char* at = bytes.data();
  BatchHeader header;
  header.header_crc = get<std::uint32_t>(at + 52);
  if (header.header_crc != batch_header_crc(at, journal_id)) return std::nullopt;
  const auto flags = get<std::uint8_t>(at + 5);
  if (get<std::uint8_t>(at + 4) != kFormatVersion || (flags & ~kFlagCompressed) != 0) {
    return std::nullopt;
  }
  header.compressed = flags & kFlagCompressed;
  header.stored_bytes = get<std::uint32_t>(at + 8);
  header.raw_bytes = get<std::uint32_t>(at + 12);
  header.base.value = get<std::uint64_t>(at + 16);
  header.synced.value = get<std::uint64_t>(at + 24);
  header.time_ms = get<std::int64_t>(at + 32);
  header.record_count = get<std::uint32_t>(at + 40);
  header.previous_crc = get<std::uint32_t>(at + 44);
  header.payload_crc = get<std::uint32_t>(at + 48);
  return header;
}

BatchEncoder::BatchEncoder(std::size_t compress_from_bytes)
    : compress_from_bytes_(compress_from_bytes) {}

BatchEncoder::~BatchEncoder() {
  ZSTD_freeCCtx(compressor_);
}

std::uint32_t BatchEncoder::encode(const Position& position, std::span<const std::string> records,
                                   std::string& out) {
  const std::uint64_t raw_bytes = raw_bytes_of(records);
  CHECK(raw_bytes <= kBatchBytesMax);
  const std::size_t start = out.size();
  const std::size_t payload = start + kBatchHeaderBytes;
  out.resize(payload);

  bool compressed = false;
  if (raw_bytes >= compress_from_bytes_ && raw_bytes > 0) {
    if (compressor_ == nullptr) compressor_ = ZSTD_createCCtx();
    scratch_.clear();
    append_records(scratch_, records);
    out.resize(payload + ZSTD_compressBound(raw_bytes));
    const std::size_t n = ZSTD_compressCCtx(compressor_, &out[payload], out.size() - payload,
                                            scratch_.data(), scratch_.size(), kCompressionLevel);
    compressed = !ZSTD_isError(n) && n < raw_bytes;
    out.resize(payload + (compressed ? n : 0));
    if (!compressed) out += scratch_;
    if (scratch_.capacity() > (8u << 20)) scratch_ = {};
  } else {
    append_records(out, records);
  }

  const std::string_view stored(out.data() + payload, out.size() - payload);
  char* at = &out[start];
  std::memcpy(at, kBatchMagic.data(), kBatchMagic.size());
  put<std::uint8_t>(at + 4, kFormatVersion);
  put<std::uint8_t>(at + 5, compressed ? kFlagCompressed : 0);
  put<std::uint16_t>(at + 6, 0);
  put<std::uint32_t>(at + 8, stored.size());
  put<std::uint32_t>(at + 12, raw_bytes);
  put<std::uint64_t>(at + 16, position.base.value);
  put<std::uint64_t>(at + 24, position.synced.value);
  put<std::int64_t>(at + 32, position.time_ms);
  put<std::uint32_t>(at + 40, records.size());
  put<std::uint32_t>(at + 44, position.previous_crc);
  put<std::uint32_t>(at + 48, crc32c(stored));
  const std::uint32_t crc = batch_header_crc(at, position.journal_id);
  put<std::uint32_t>(at + 52, crc);
  return crc;
}

std::uint64_t raw_bytes_of(std::span<const std::string> records) {
  std::uint64_t bytes = 0;
  for (const std::string& record : records) bytes += varint_bytes(record.size()) + record.size();
  return bytes;
}

Result<std::string_view> decode_payload(const BatchHeader& header, std::string_view stored,
                                        std::string& scratch) {
  if (!header.compressed) return stored;
  scratch.resize(header.raw_bytes);
  const std::size_t n =
      ZSTD_decompress(scratch.data(), scratch.size(), stored.data(), stored.size());
  if (ZSTD_isError(n) || n != header.raw_bytes) {
    return Error{Code::kCorruption, "its payload doesn't decompress"};
  }
  return std::string_view(scratch);
}

bool RecordCursor::next(std::string_view& record) {
  std::uint64_t length = 0;
  std::size_t at = 0;
  for (int shift = 0;; shift += 7) {
    if (at == rest_.size() || shift > 28) return false;
    const auto byte = static_cast<unsigned char>(rest_[at++]);
    length |= std::uint64_t{byte & 0x7fu} << shift;
    if ((byte & 0x80) == 0) break;
  }
  if (length > rest_.size() - at) return false;
  record = rest_.substr(at, length);
  rest_.remove_prefix(at + length);
  return true;
}

std::optional<std::string> compress(std::string_view raw) {
  std::string out(ZSTD_compressBound(raw.size()), '\0');
  const std::size_t n =
      ZSTD_compress(out.data(), out.size(), raw.data(), raw.size(), kCompressionLevel);
  if (ZSTD_isError(n) || n >= raw.size()) return std::nullopt;
  out.resize(n);
  return out;
}

Result<std::string> decompress(std::string_view stored, std::uint64_t raw_bytes) {
  // The frame names its size too; a wrong header must not make us take memory for nothing.
  if (ZSTD_getFrameContentSize(stored.data(), stored.size()) != raw_bytes) {
    return Error{Code::kCorruption, "its content doesn't decompress"};
  }
  std::string out(raw_bytes, '\0');
  const std::size_t n = ZSTD_decompress(out.data(), out.size(), stored.data(), stored.size());
  if (ZSTD_isError(n) || n != raw_bytes) {
    return Error{Code::kCorruption, "its content doesn't decompress"};
  }
  return out;
}

}  // namespace waystation::journal
