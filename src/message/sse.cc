#include "message/sse.h"

#include <algorithm>
#include <utility>

namespace waystation::message {

void append_sse_data(std::string& out, std::string_view data) {
  out += "data: ";
  out += data;
  out += "\n\n";
}

void append_sse_frame(std::string& out, std::uint64_t id, std::string_view event,
                      std::string_view data) {
  out += "id: ";
  out += std::to_string(id);
  out += "\nevent: ";
  out += event;
  out += "\n";
  append_sse_data(out, data);
}

void append_sse_comment(std::string& out, std::string_view text) {
  out += ": ";
  out += text;
  out += "\n\n";
}

bool SseParser::feed(std::string_view bytes, std::vector<SseFrame>& out) {
  while (!bytes.empty() && !too_large_) {
    if (std::exchange(after_cr_, false) && bytes.front() == '\n') {
      bytes.remove_prefix(1);
      continue;
    }
    const std::size_t feed = bytes.find('\n');
    const std::size_t end = std::min(feed, bytes.substr(0, feed).find('\r'));
    const std::string_view rest = bytes.substr(0, end);
    if (rest.size() > frame_bytes_max_ - partial_.size()) {
      too_large_ = true;
    } else if (end == std::string_view::npos) {
      partial_ += rest;
      return true;
    } else if (partial_.empty()) {
      too_large_ = !line(rest, out);
    } else {
      partial_ += rest;
      too_large_ = !line(partial_, out);
      partial_.clear();
    }
    if (too_large_) break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
  }
  return !too_large_;
}

bool SseParser::line(std::string_view text, std::vector<SseFrame>& out) {
  if (text.empty()) {
    if (has_data_) {
      if (frame_.event.empty()) frame_.event = "message";
      out.push_back(std::exchange(frame_, {}));
    }
    frame_ = {};
    has_data_ = false;
    return true;
  }
  const std::size_t colon = text.find(':');
  if (colon == 0) return true;
  const std::string_view field = text.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "data") {
    if (value.size() >= frame_bytes_max_ - frame_.data.size()) return false;
    if (has_data_) frame_.data.push_back('\n');
    frame_.data += value;
    has_data_ = true;
  } else if (field == "event") {
    frame_.event = value;
  } else if (field == "id") {
    frame_.id = value;
  }
  return true;
}

}  // namespace waystation::message
