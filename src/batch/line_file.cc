#include "batch/line_file.h"

namespace waystation::batch {
namespace {

constexpr std::size_t kReadBytes = 256 << 10;

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r") == std::string::npos;
}

}  // namespace

Result<bool> LineFile::fill() {
  if (at_end_) return false;
  buffer_.erase(0, begin_);
  begin_ = 0;
  auto more = reader_->read(buffer_, kReadBytes);
  if (more && !*more) at_end_ = true;
  return more;
}

Result<std::optional<Line>> LineFile::next() {
  for (;;) {
    Line line{number_ + 1, offset_, 0};
    text_.clear();
    bool has_break = false;
    for (;;) {
      const std::size_t found = buffer_.find('\n', begin_);
      const std::size_t size = (found == std::string::npos ? buffer_.size() : found) - begin_;
      if (line.size + size <= line_bytes_max_) text_.append(buffer_, begin_, size);
      line.size += size;
      begin_ += size;
      if (found != std::string::npos) {
        ++begin_;
        has_break = true;
        break;
      }
      auto more = fill();
      if (!more) return more.error();
      if (!*more) break;
    }
    if (!has_break && line.size == 0) return std::optional<Line>();
    ++number_;
    offset_ += line.size + (has_break ? 1 : 0);
    if (line.size > line_bytes_max_) {
      text_.clear();
      return std::optional<Line>(line);
    }
    // A byte order mark, which some editors put at the beginning.
    if (number_ == 1 && text_.starts_with("\xef\xbb\xbf")) {
      text_.erase(0, 3);
      line.offset += 3;
      line.size -= 3;
    }
    if (!is_blank(text_)) return std::optional<Line>(line);
  }
}

Result<std::string> LineFile::read(const Line& line) {
  return reader_->read_at(line.offset, line.size);
}

}  // namespace waystation::batch
