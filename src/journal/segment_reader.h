// Walks the batches of one segment file in order.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "journal/file_system.h"
#include "journal/format.h"

namespace waystation::journal {

// Where a walk stands, and what a valid batch there must say.
struct LogPosition {
  std::uint64_t offset = 0;                   // in the segment's file
  LogIndex next;                              // number of the next record
  std::optional<std::uint32_t> previous_crc;  // of the batch before; unknown when starting inside
};

enum class Step {
  kBatch,  // header() and stored() hold the batch
  kEnd,    // zeros, or the end of the file
  kBad,    // neither; reason() tells
};

// Reads with big reads and checks everything. The file must outlive it. One thread.
class SegmentReader {
 public:
  static constexpr std::size_t kReadBytes = 1u << 20;

  SegmentReader(const File& file, std::uint64_t journal_id, LogPosition start,
                std::size_t read_bytes = kReadBytes);

  // An error only when the file can't be read.
  Result<Step> next();

  const BatchHeader& header() const { return header_; }
  // As in the file, maybe compressed. Until the next call of next().
  std::string_view stored() const { return stored_; }
  std::uint64_t batch_offset() const { return batch_offset_; }
  // After the last valid batch.
  const LogPosition& position() const { return position_; }
  const std::string& reason() const { return reason_; }

 private:
  // Up to `size` bytes at position_.offset; fewer at the end of the file.
  Result<std::string_view> peek(std::size_t size);
  Step bad(std::string reason);

  const File& file_;
  const std::uint64_t journal_id_;
  const std::size_t read_bytes_;
  LogPosition position_;
  BatchHeader header_;
  std::string_view stored_;
  std::uint64_t batch_offset_ = 0;
  std::string reason_;
  std::unique_ptr<char[]> buffer_;  // not zeroed: most segments are small
  std::size_t buffer_capacity_ = 0;
  std::size_t buffer_size_ = 0;
  std::uint64_t buffer_offset_ = 0;
};

// The first valid batch header at or after `offset`, at any byte, that says `n` or later was
// synced. It proves that record `n` once was safely in this segment. Also tells how far bytes other
// than zero go.
struct TailSearch {
  std::optional<std::uint64_t> proof_offset;
  std::uint64_t used_bytes = 0;  // offset after the last byte that isn't zero
};
Result<TailSearch> search_tail(const File& file, std::uint64_t journal_id, std::uint64_t offset,
                               LogIndex n);

// Reads and checks a segment's header. Errors name `path`.
Result<SegmentHeader> read_segment_header(const File& file, const std::string& path);

}  // namespace waystation::journal
