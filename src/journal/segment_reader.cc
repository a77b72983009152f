#include "journal/segment_reader.h"

#include <algorithm>

namespace waystation::journal {

SegmentReader::SegmentReader(const File& file, std::uint64_t journal_id, LogPosition start,
                             std::size_t read_bytes)
    : file_(file), journal_id_(journal_id), read_bytes_(read_bytes), position_(start) {}

Step SegmentReader::bad(std::string reason) {
  reason_ = std::move(reason);
  return Step::kBad;
}

Result<std::string_view> SegmentReader::peek(std::size_t size) {
  const std::uint64_t at = position_.offset;
  if (at < buffer_offset_ || at + size > buffer_offset_ + buffer_size_) {
    const std::size_t wanted = std::max(size, read_bytes_);
    if (buffer_capacity_ < wanted) {
      buffer_ = std::make_unique_for_overwrite<char[]>(wanted);
      buffer_capacity_ = wanted;
    }
    buffer_size_ = 0;
    buffer_offset_ = at;
    const auto got = file_.read_at(at, buffer_.get(), wanted);
    if (!got) return got.error();
    buffer_size_ = *got;
  }
  return std::string_view(buffer_.get(), buffer_size_).substr(at - buffer_offset_, size);
}

Result<Step> SegmentReader::next() {
  const auto bytes = peek(kBatchHeaderBytes);
  if (!bytes) return bytes.error();
  if (bytes->find_first_not_of('\0') == std::string_view::npos) return Step::kEnd;
  if (bytes->size() < kBatchHeaderBytes) return bad("a batch's header is cut off");
  const auto header = decode_batch_header(*bytes, journal_id_);
  if (!header) return bad("a batch's header is damaged");
  if (header->base != position_.next) {
    return bad("a batch starts at record " + std::to_string(header->base.value) + " where " +
               std::to_string(position_.next.value) + " must come");
  }
  if (position_.previous_crc && header->previous_crc != *position_.previous_crc) {
    return bad("a batch doesn't follow the one before it");
  }
  const auto whole = peek(kBatchHeaderBytes + header->stored_bytes);
  if (!whole) return whole.error();
  if (whole->size() < kBatchHeaderBytes + header->stored_bytes) {
    return bad("a batch's payload is cut off");
  }
  const std::string_view stored = whole->substr(kBatchHeaderBytes);
  if (crc32c(stored) != header->payload_crc) return bad("a batch's payload is damaged");

  header_ = *header;
  stored_ = stored;
  batch_offset_ = position_.offset;
  position_.offset += whole->size();
  position_.next = header->end();
  position_.previous_crc = header->header_crc;
  return Step::kBatch;
}

Result<TailSearch> search_tail(const File& file, std::uint64_t journal_id, std::uint64_t offset,
                               LogIndex n) {
  TailSearch found{.proof_offset = std::nullopt, .used_bytes = offset};
  constexpr std::size_t kSize = SegmentReader::kReadBytes;
  const auto buffer = std::make_unique_for_overwrite<char[]>(kSize);
  for (;;) {
    const auto got = file.read_at(offset, buffer.get(), kSize);
    if (!got) return got.error();
    const std::string_view bytes(buffer.get(), *got);
    const std::size_t last = bytes.find_last_not_of('\0');
    if (last != std::string_view::npos) found.used_bytes = offset + last + 1;
    std::size_t at =
        last == std::string_view::npos ? std::string_view::npos : bytes.find(kBatchMagic);
    for (; at != std::string_view::npos; at = bytes.find(kBatchMagic, at + 1)) {
      const auto header = decode_batch_header(bytes.substr(at), journal_id);
      if (header && header->synced >= n) {
        found.proof_offset = offset + at;
        return found;
      }
    }
    if (*got < kSize) return found;
    offset += *got - kBatchHeaderBytes + 1;  // a header may lie across two reads
  }
}

Result<SegmentHeader> read_segment_header(const File& file, const std::string& path) {
  std::string bytes(kSegmentHeaderBytes, '\0');
  const auto got = file.read_at(0, bytes.data(), bytes.size());
  if (!got) return got.error();
  bytes.resize(*got);
  auto header = decode_segment_header(bytes);
  if (!header) return Error{Code::kCorruption, "segment " + path + ": " + header.error().message};
  return header;
}

}  // namespace waystation::journal
