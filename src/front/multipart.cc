#include "front/multipart.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace waystation::front {
namespace {

constexpr std::size_t kBoundaryBytesMax = 200;
constexpr std::size_t kPaddingBytesMax = 256;

Error malformed(const std::string& what) {
  return {Code::kInvalidArgument, "the multipart body is malformed: " + what};
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// "form-data; name=\"a\"; filename=b": the value, then its parameters with names in lower case.
struct HeaderValue {
  std::string value;
  std::vector<std::pair<std::string, std::string>> parameters;

  const std::string* find(std::string_view name) const {
    for (const auto& [key, text] : parameters) {
      if (key == name) return &text;
    }
    return nullptr;
  }
};

HeaderValue parse_header_value(std::string_view text) {
  HeaderValue out;
  const std::size_t first = std::min(text.find(';'), text.size());
  out.value = lower(trimmed(text.substr(0, first)));
  text.remove_prefix(first);
  while (!text.empty()) {
    text.remove_prefix(1);  // ';'
    const std::size_t equals = text.find_first_of("=;");
    if (equals == std::string_view::npos || text[equals] == ';') {
      text.remove_prefix(std::min(equals, text.size()));
      continue;
    }
    std::string name = lower(trimmed(text.substr(0, equals)));
    text = trimmed(text.substr(equals + 1));
    std::string value;
    if (text.starts_with('"')) {
      std::size_t i = 1;
      for (; i < text.size() && text[i] != '"'; ++i) {
        // Only these are escapes: old browsers sent paths with plain backslashes.
        if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '"' || text[i + 1] == '\\'))
          ++i;
        value.push_back(text[i]);
      }
      text.remove_prefix(std::min(i + 1, text.size()));
      text.remove_prefix(std::min(text.find(';'), text.size()));
    } else {
      const std::size_t end = std::min(text.find(';'), text.size());
      value = trimmed(text.substr(0, end));
      text.remove_prefix(end);
    }
    out.parameters.emplace_back(std::move(name), std::move(value));
  }
  return out;
}

// What browsers write for the characters that a quoted name can't hold.
std::string unescaped(std::string text) {
  static constexpr std::pair<std::string_view, char> kEscapes[] = {
      {"%22", '"'}, {"%0D", '\r'}, {"%0A", '\n'}};
  for (const auto& [escape, character] : kEscapes) {
    for (std::size_t at = 0; (at = text.find(escape, at)) != std::string::npos; ++at)
      text.replace(at, escape.size(), 1, character);
  }
  return text;
}

Result<Part> parse_part(std::string_view headers) {
  Part part;
  bool has_disposition = false;
  while (!headers.empty()) {
    const std::size_t end = std::min(headers.find("\r\n"), headers.size());
    const std::string_view line = headers.substr(0, end);
    headers.remove_prefix(std::min(end + 2, headers.size()));
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0)
      return malformed("a part's header has no ':'");
    const std::string name = lower(trimmed(line.substr(0, colon)));
    const std::string_view value = trimmed(line.substr(colon + 1));
    if (name == "content-type") part.content_type = value;
    if (name != "content-disposition") continue;
    const HeaderValue disposition = parse_header_value(value);
    const std::string* field = disposition.find("name");
    if (disposition.value != "form-data" || field == nullptr) {
      return malformed("a part's Content-Disposition must be form-data with a name");
    }
    has_disposition = true;
    part.name = unescaped(*field);
    if (const std::string* file = disposition.find("filename")) {
      part.is_file = true;
      part.filename = unescaped(*file);
      part.filename.erase(0, part.filename.find_last_of("/\\") + 1);
    }
  }
  if (!has_disposition) return malformed("a part has no Content-Disposition");
  return part;
}

}  // namespace

Result<std::string> multipart_boundary(std::string_view content_type) {
  const HeaderValue value = parse_header_value(content_type);
  if (value.value != "multipart/form-data") {
    return Error{Code::kInvalidArgument, "this call takes a body of type multipart/form-data",
                 "Content-Type"};
  }
  const std::string* boundary = value.find("boundary");
  if (boundary == nullptr || boundary->empty() || boundary->size() > kBoundaryBytesMax) {
    return Error{Code::kInvalidArgument,
                 "multipart/form-data needs a boundary of 1 to " +
                     std::to_string(kBoundaryBytesMax) + " characters",
                 "Content-Type"};
  }
  return *boundary;
}

Status Multipart::feed(std::string_view bytes) {
  buffer_ += bytes;
  rest_ = buffer_;
  for (;;) {
    const Result<bool> went_on = step();
    if (!went_on) return went_on.error();
    if (!*went_on) break;
  }
  buffer_.erase(0, buffer_.size() - rest_.size());
  rest_ = {};
  return {};
}

Status Multipart::finish() const {
  if (state_ == State::kEpilogue) return {};
  if (state_ == State::kPreamble) return malformed("its boundary doesn't occur in it");
  return malformed("it ends without its closing boundary");
}

Result<bool> Multipart::step() {
  switch (state_) {
    case State::kPreamble:
      return skip_preamble();
    case State::kDelimiter:
      return read_delimiter();
    case State::kHeaders:
      return read_headers();
    case State::kData:
      return read_data();
    case State::kEpilogue:
      rest_ = {};
      return false;
  }
  return false;
}

bool Multipart::skip_preamble() {
  const std::string_view bare = std::string_view(delimiter_).substr(2);
  if (at_start_) {
    if (rest_.size() < bare.size() && bare.starts_with(rest_)) return false;
    at_start_ = false;
    if (rest_.starts_with(bare)) {
      rest_.remove_prefix(bare.size());
      state_ = State::kDelimiter;
      return true;
    }
  }
  const std::size_t found = rest_.find(delimiter_);
  if (found == std::string_view::npos) {
    rest_.remove_prefix(rest_.size() - std::min(rest_.size(), delimiter_.size() - 1));
    return false;
  }
  rest_.remove_prefix(found + delimiter_.size());
  state_ = State::kDelimiter;
  return true;
}

// After "--boundary": "--" ends the body, a line break begins a part.
Result<bool> Multipart::read_delimiter() {
  if (rest_.size() < 2) return false;
  if (rest_.starts_with("--")) {
    state_ = State::kEpilogue;
    return true;
  }
  const std::size_t end = rest_.find("\r\n");
  std::string_view padding = rest_.substr(0, end);
  // Only half of the line break may have come.
  if (end == std::string_view::npos && padding.ends_with('\r')) padding.remove_suffix(1);
  if (!trimmed(padding).empty() || padding.size() > kPaddingBytesMax) {
    return malformed("a boundary isn't followed by a line break");
  }
  if (end == std::string_view::npos) return false;
  if (++parts_ > kPartsMax) {
    return malformed("it has more than " + std::to_string(kPartsMax) + " parts");
  }
  // The line break stays: headers end with an empty line, and a part without any has it at once.
  rest_.remove_prefix(end);
  state_ = State::kHeaders;
  return true;
}

Result<bool> Multipart::read_headers() {
  constexpr std::string_view kEnd = "\r\n\r\n";
  const std::size_t end = rest_.find(kEnd);
  // All but the last byte of the end may have come.
  const std::size_t most = kHeaderBytesMax + (end == std::string_view::npos ? kEnd.size() - 1 : 0);
  if (std::min(end, rest_.size()) > most) {
    return malformed("a part's header is over " + std::to_string(kHeaderBytesMax) + " bytes");
  }
  if (end == std::string_view::npos) return false;
  const std::string_view headers = end == 0 ? std::string_view() : rest_.substr(2, end - 2);
  auto part = parse_part(headers);
  if (!part) return part.error();
  if (Status s = sink_.on_part(*part); !s) return s.error();
  // The last line break stays: it belongs to the delimiter of a part without data.
  rest_.remove_prefix(end + 2);
  state_ = State::kData;
  at_start_ = true;
  return true;
}

Result<bool> Multipart::read_data() {
  if (at_start_) {
    if (rest_.size() < delimiter_.size() && std::string_view(delimiter_).starts_with(rest_))
      return false;
    at_start_ = false;
    if (!rest_.starts_with(delimiter_)) rest_.remove_prefix(2);
  }
  const std::size_t found = rest_.find(delimiter_);
  std::size_t size = found;
  if (found == std::string_view::npos) {
    size = rest_.size() - std::min(rest_.size(), delimiter_.size() - 1);
    // Only a line break can be the beginning of a delimiter.
    const std::size_t held = rest_.find('\r', size);
    size = std::min(held, rest_.size());
  }
  if (size > 0) {
    if (Status s = sink_.on_data(rest_.substr(0, size)); !s) return s.error();
    rest_.remove_prefix(size);
  }
  if (found == std::string_view::npos) return false;
  rest_.remove_prefix(delimiter_.size());
  if (Status s = sink_.on_part_end(); !s) return s.error();
  state_ = State::kDelimiter;
  return true;
}

}  // namespace waystation::front
