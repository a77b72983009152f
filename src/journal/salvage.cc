#include "journal/salvage.h"

#include <algorithm>
#include <utility>

namespace waystation::journal {
namespace {

constexpr std::uint64_t kGatherBytes = 256u << 10;

// Reads the batches of the segments one after the other, over holes.
class Walk {
 public:
  Walk(std::uint64_t journal_id, LogIndex first, const LeftoverVisitor& visitor)
      : journal_id_(journal_id), next_(first), visitor_(visitor) {}

  // `bound`: the first number of the next segment; {} in the last one.
  Status segment(const std::string& path, std::string_view bytes, LogIndex first, LogIndex bound) {
    path_ = path;
    check_header(bytes, first);
    std::uint64_t at = std::min<std::uint64_t>(kSegmentHeaderBytes, bytes.size());
    for (;;) {
      const auto batch = batch_at(bytes, at, bound);
      if (!batch) return batch.error();
      if (*batch != 0) {
        at += *batch;
        continue;
      }
      if (bound.value != 0 && next_ >= bound) return {};  // what follows is a recovery's leftover
      note(at, bytes.substr(at, kBatchHeaderBytes).find_first_not_of('\0') == std::string_view::npos
                   ? "a batch is missing"
                   : "a batch is damaged");
      const std::size_t magic =
          at + 1 < bytes.size() ? bytes.find(kBatchMagic, at + 1) : std::string_view::npos;
      if (magic == std::string_view::npos) break;
      at = magic;
    }
    const std::size_t used = bytes.find_last_not_of('\0');
    end_of_file_ = used == std::string_view::npos ? 0 : used + 1;
    return {};
  }

  // After the last segment. `covered`: a number up to which there were records.
  Status finish(LogIndex covered, Leftover& out) {
    const LogIndex known = std::max(covered, synced_);
    if (known >= next_) {
      if (!hole_) note(end_of_file_, "records are missing at the end");
      hole_->reason += known == synced_ ? ", and a later batch shows that it had been written"
                                        : ", and the newest checkpoint covers it";
      if (auto told = tell(end_of_file_, {known.value + 1}); !told) return told;
    } else if (hole_ && hole_->path == path_) {
      out.torn_bytes = end_of_file_ > hole_->from_byte ? end_of_file_ - hole_->from_byte : 0;
    }
    out.last.value = next_.value - 1;
    return {};
  }

 private:
  void note(std::uint64_t at, std::string reason) {
    if (!hole_) hole_ = LostRange{path_, at, 0, next_, {}, std::move(reason)};
  }

  // Reading goes on at this byte, with record `next`.
  Status tell(std::uint64_t at, LogIndex next) {
    LostRange hole = *std::exchange(hole_, std::nullopt);
    hole.to_byte = at;
    hole.last.value = next.value - 1;
    next_ = next;
    return visitor_.lost(hole);
  }

  void check_header(std::string_view bytes, LogIndex first) {
    const auto header = decode_segment_header(bytes.substr(0, kSegmentHeaderBytes));
    if (!header) return note(0, header.error().message);
    if (header->journal_id != journal_id_) return note(0, "it belongs to another journal");
    if (header->first != first) note(0, "its header names another first record than its name does");
  }

  // How many bytes a good batch takes here that goes on with the log; 0: there is none.
  Result<std::uint64_t> batch_at(std::string_view bytes, std::uint64_t at, LogIndex bound) {
    const auto header = decode_batch_header(bytes.substr(at, kBatchHeaderBytes), journal_id_);
    if (!header) return 0;
    synced_ = std::max(synced_, header->synced);
    const std::string_view stored = bytes.substr(at + kBatchHeaderBytes, header->stored_bytes);
    if (stored.size() < header->stored_bytes || crc32c(stored) != header->payload_crc) return 0;
    if (header->base < next_ || (bound.value != 0 && header->end() > bound)) return 0;
    const auto raw = decode_payload(*header, stored, scratch_);
    if (!raw || !split(*raw, header->record_count)) return 0;
    if (!hole_ && header->base == next_ && !previous_crcs_.empty() &&
        std::ranges::count(previous_crcs_, header->previous_crc) == 0) {
      note(at, "a batch doesn't follow the one before it");
    }
    if (header->base > next_) note(at, "records are missing before it");
    if (hole_) {
      if (auto told = tell(at, header->base); !told) return told.error();
    }
    for (const std::string_view record : records_) {
      if (auto seen = visitor_.record(next_, header->time_ms, record); !seen) return seen.error();
      ++next_.value;
    }
    if (!records_.empty()) previous_crcs_.clear();
    previous_crcs_.push_back(header->header_crc);
    return kBatchHeaderBytes + std::uint64_t{header->stored_bytes};
  }

  bool split(std::string_view raw, std::uint32_t count) {
    records_.clear();
    RecordCursor cursor(raw);
    for (std::string_view record; cursor.next(record);) records_.push_back(record);
    return cursor.at_end() && records_.size() == count;
  }

  const std::uint64_t journal_id_;
  LogIndex next_;
  const LeftoverVisitor& visitor_;
  LogIndex synced_;
  std::string path_;
  // What the next batch may name as the one before it: a recovery may have left out closing marks.
  std::vector<std::uint32_t> previous_crcs_;
  std::optional<LostRange> hole_;
  std::uint64_t end_of_file_ = 0;
  std::string scratch_;
  std::vector<std::string_view> records_;  // into scratch_, or the file
};

Result<std::string> read_file(FileSystem& file_system, const std::string& path,
                              std::uint64_t bytes_max) {
  const auto file = file_system.open(path, OpenMode::kRead);
  if (!file) return file.error();
  const auto size = (*file)->size();
  if (!size) return size.error();
  std::string bytes(std::min(*size, bytes_max), '\0');
  const auto got = (*file)->read_at(0, bytes.data(), bytes.size());
  if (!got) return got.error();
  bytes.resize(*got);
  return bytes;
}

// Of the first segment that tells it.
Result<std::optional<std::uint64_t>> find_journal_id(FileSystem& file_system,
                                                     const std::string& dir,
                                                     const Listing& listing) {
  for (const LogIndex first : listing.segments) {
    const auto bytes =
        read_file(file_system, path_in(dir, segment_name(first)), kSegmentHeaderBytes);
    if (!bytes) return bytes.error();
    if (const auto header = decode_segment_header(*bytes)) return std::optional(header->journal_id);
  }
  return std::optional<std::uint64_t>();
}

}  // namespace

Result<Leftover> read_leftover(FileSystem& file_system, const std::string& dir,
                               const Listing& listing, LogIndex covered,
                               std::optional<std::uint64_t> journal_id,
                               const LeftoverVisitor& visitor) {
  if (listing.segments.empty()) return Error{Code::kNotFound, dir + " holds no segments"};
  const auto told = find_journal_id(file_system, dir, listing);
  if (!told) return told.error();
  if (*told) journal_id = **told;
  if (!journal_id) {
    return Error{Code::kCorruption,
                 "no file in " + dir + " has a readable header, so nothing can be saved from it"};
  }
  Leftover out{.journal_id = *journal_id, .first = listing.segments.front(), .last = {}};
  Walk walk(*journal_id, out.first, visitor);
  for (std::size_t i = 0; i < listing.segments.size(); ++i) {
    const LogIndex first = listing.segments[i];
    const bool is_last = i + 1 == listing.segments.size();
    const std::string path = path_in(dir, segment_name(first));
    const auto bytes = read_file(file_system, path, UINT64_MAX);
    if (!bytes) return bytes.error();
    if (auto walked =
            walk.segment(path, *bytes, first, is_last ? LogIndex{} : listing.segments[i + 1]);
        !walked) {
      return walked.error();
    }
  }
  if (auto finished = walk.finish(covered, out); !finished) return finished.error();
  return out;
}

LogCopy::LogCopy(Options options)
    : options_(std::move(options)),
      encoder_(16u << 10),
      written_next_(options_.first),
      synced_{options_.first.value - 1} {}

Status LogCopy::append(std::string record, TimeMs time_ms) {
  gathered_bytes_ += record.size();
  gathered_.push_back(std::move(record));
  time_ms_ = std::max(time_ms_, time_ms);
  return gathered_bytes_ < kGatherBytes ? Status() : flush();
}

Status LogCopy::flush() {
  if (gathered_.empty()) return {};
  if (auto wrote = write_batch(gathered_); !wrote) return wrote;
  written_next_.value += gathered_.size();
  gathered_.clear();
  gathered_bytes_ = 0;
  return {};
}

Status LogCopy::write_batch(std::span<const std::string> records) {
  std::string bytes;
  const std::uint32_t crc = encoder_.encode(
      {options_.journal_id, written_next_, synced_, time_ms_, previous_crc_}, records, bytes);
  if (!writer_ || writer_->room() < bytes.size()) {
    // A batch names what was synced before it; a new segment changes nothing else in it.
    if (auto rolled = roll(bytes.size()); !rolled) return rolled;
    return write_batch(records);
  }
  if (auto wrote = writer_->write(bytes); !wrote) return wrote;
  previous_crc_ = crc;
  written_time_ms_ = time_ms_;
  return {};
}

Status LogCopy::roll(std::uint64_t bytes) {
  if (writer_) {
    if (auto published = writer_->publish(); !published) return published;
    if (auto sealed = writer_->seal(); !sealed) return sealed;
    synced_.value = written_next_.value - 1;
  }
  const SegmentHeader header{options_.journal_id, written_next_, written_time_ms_, previous_crc_};
  auto writer = SegmentWriter::begin(*options_.file_system, options_.dir, header,
                                     std::max(options_.segment_bytes, kSegmentHeaderBytes + bytes));
  if (!writer) return writer.error();
  writer_ = std::move(*writer);
  return {};
}

Status LogCopy::finish() {
  if (auto flushed = flush(); !flushed) return flushed;
  synced_.value = written_next_.value - 1;
  if (auto wrote = write_batch({}); !wrote) return wrote;
  if (auto published = writer_->publish(); !published) return published;
  return writer_->seal();
}

}  // namespace waystation::journal
