// Makes a segment file and appends to it.
#pragma once

#include <memory>
#include <string>

#include "journal/file_system.h"
#include "journal/format.h"
#include "journal/segment.h"

namespace waystation::journal {

// begin() → write()… → publish() → write(), sync()… → seal(). The file has a temporary name until
// publish(). After any error the file is never touched again. One thread at a time.
class SegmentWriter {
 public:
  // `size`: how much to preallocate, header included.
  static Result<std::unique_ptr<SegmentWriter>> begin(FileSystem& file_system,
                                                      const std::string& dir,
                                                      const SegmentHeader& header,
                                                      std::uint64_t size);
  // Appends.
  Status write(std::string_view bytes);
  Status sync() { return file_->sync_data(); }
  // Syncs what was written, gives the file its name and makes the name durable.
  Status publish();
  // Gives back the space that was not needed. Everything written must be synced.
  Status seal();

  std::uint64_t offset() const { return offset_; }
  std::uint64_t room() const { return size_ > offset_ ? size_ - offset_ : 0; }
  // As readers see it; pinned to the open file.
  const std::shared_ptr<Segment>& segment() const { return segment_; }

 private:
  SegmentWriter(FileSystem& file_system, std::string dir, std::shared_ptr<File> file,
                std::shared_ptr<Segment> segment, std::uint64_t size);

  FileSystem& file_system_;
  const std::string dir_;
  const std::shared_ptr<File> file_;
  const std::shared_ptr<Segment> segment_;
  const std::uint64_t size_;
  std::uint64_t offset_ = 0;
};

}  // namespace waystation::journal
