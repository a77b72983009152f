#include "message/sse.h"

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

void SseParser::feed(std::string_view bytes, std::vector<SseFrame>& out) {
  for (const char c : bytes) {
    const bool second_of_crlf = c == '\n' && after_cr_;
    after_cr_ = c == '\r';
    if (second_of_crlf) continue;
    if (c != '\n' && c != '\r') {
      partial_.push_back(c);
      continue;
    }
    line(partial_, out);
    partial_.clear();
  }
}

void SseParser::line(std::string_view text, std::vector<SseFrame>& out) {
  if (text.empty()) {
    if (has_data_) {
      if (frame_.event.empty()) frame_.event = "message";
      out.push_back(std::exchange(frame_, {}));
    }
    frame_ = {};
    has_data_ = false;
    return;
  }
  const std::size_t colon = text.find(':');
  if (colon == 0) return;
  const std::string_view field = text.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "data") {
    if (has_data_) frame_.data.push_back('\n');
    frame_.data += value;
    has_data_ = true;
  } else if (field == "event") {
    frame_.event = value;
  } else if (field == "id") {
    frame_.id = value;
  }
}

}  // namespace waystation::message
