#include "journal/segment_writer.h"

#include "base/crash_point.h"

namespace waystation::journal {

SegmentWriter::SegmentWriter(FileSystem& file_system, std::string dir, std::shared_ptr<File> file,
                             std::shared_ptr<Segment> segment, std::uint64_t size)
    : file_system_(file_system),
      dir_(std::move(dir)),
      file_(std::move(file)),
      segment_(std::move(segment)),
      size_(size) {}

Result<std::unique_ptr<SegmentWriter>> SegmentWriter::begin(FileSystem& file_system,
                                                            const std::string& dir,
                                                            const SegmentHeader& header,
                                                            std::uint64_t size) {
  const std::string path = path_in(dir, segment_name(header.first));
  auto file = file_system.open(path + std::string(kTemporarySuffix), OpenMode::kCreate);
  if (!file) return file.error();
  if (auto reserved = (*file)->allocate(size); !reserved) return reserved.error();
  auto segment = std::make_shared<Segment>(file_system, path, header, 0);
  segment->index_while_writing();
  segment->last_time_ms = header.previous_time_ms;
  std::unique_ptr<SegmentWriter> writer(
      new SegmentWriter(file_system, dir, std::move(*file), std::move(segment), size));
  if (auto wrote = writer->write(encode_segment_header(header)); !wrote) return wrote.error();
  return writer;
}

Status SegmentWriter::write(std::string_view bytes) {
  if (auto wrote = file_->write_at(offset_, bytes); !wrote) return wrote;
  offset_ += bytes.size();
  segment_->used_bytes = offset_;
  return {};
}

Status SegmentWriter::publish() {
  if (auto synced = file_->sync(); !synced) return synced;
  const std::string& path = segment_->path();
  crash_point(CrashPoint::kSegmentBeforeRename);
  if (auto named = file_system_.rename(path + std::string(kTemporarySuffix), path); !named) {
    return named;
  }
  crash_point(CrashPoint::kSegmentAfterRename);
  if (auto synced = file_system_.sync_dir(dir_); !synced) return synced;
  segment_->pin(file_);
  return {};
}

Status SegmentWriter::seal() {
  segment_->unpin();
  if (offset_ >= size_) return {};
  return file_->truncate(offset_);
}

}  // namespace waystation::journal
