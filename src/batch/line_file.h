// The lines of a batch's input file: read one after another, and again by their place. Disk work;
// the runner's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "store/blobs.h"

namespace waystation::batch {

struct Line {
  std::uint64_t number = 0;  // from 1, empty lines count
  std::uint64_t offset = 0;  // in bytes
  std::size_t size = 0;      // without its line break
};

class LineFile {
 public:
  LineFile(std::unique_ptr<store::BlobReader> reader, std::size_t line_bytes_max)
      : reader_(std::move(reader)), line_bytes_max_(line_bytes_max) {}

  // Goes to the next line that isn't blank; nullopt at the end. A line over the bound is given with
  // its size, and without its text.
  Result<std::optional<Line>> next();
  // Of the line that next() gave last; good until the next call.
  const std::string& text() const { return text_; }
  // Bytes passed so far.
  std::uint64_t offset() const { return offset_; }

  // Any line again.
  Result<std::string> read(const Line& line);

 private:
  Result<bool> fill();

  std::unique_ptr<store::BlobReader> reader_;
  const std::size_t line_bytes_max_;
  std::string buffer_;
  std::size_t begin_ = 0;  // of what isn't taken yet
  bool at_end_ = false;
  std::string text_;
  std::uint64_t number_ = 0;
  std::uint64_t offset_ = 0;
};

}  // namespace waystation::batch
