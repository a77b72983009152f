// Reads a multipart/form-data body (RFC 7578) that comes in pieces, without holding more of it than
// one delimiter. Pure.
//
//   part    = "--boundary" CRLF headers CRLF CRLF data CRLF
//   body    = preamble part… "--boundary--" epilogue
//
// A delimiter is CRLF "--boundary"; the first one may lack its CRLF. The data of a part ends where
// a delimiter begins, so what could be the beginning of one is held back until more comes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::front {

struct Part {
  std::string name;      // of the form's field
  std::string filename;  // without folders; empty when there was none
  bool is_file = false;  // it had a filename
  std::string content_type;
};

class PartSink {
 public:
  virtual ~PartSink() = default;
  // For each part: on_part, on_data for its pieces (never empty), on_part_end. An error ends it
  // all.
  virtual Status on_part(const Part& part) = 0;
  virtual Status on_data(std::string_view bytes) = 0;
  virtual Status on_part_end() = 0;
};

// The boundary of a Content-Type header. kInvalidArgument when it is another type or has none.
Result<std::string> multipart_boundary(std::string_view content_type);

class Multipart {
 public:
  static constexpr std::size_t kHeaderBytesMax = 8 << 10;  // of one part
  static constexpr std::size_t kPartsMax = 32;

  // `sink` outlives it.
  Multipart(std::string_view boundary, PartSink& sink)
      : delimiter_("\r\n--" + std::string(boundary)), sink_(sink) {}

  // kInvalidArgument, or what the sink said. After an error it must not be called again.
  Status feed(std::string_view bytes);
  // The body is over. kInvalidArgument when the last part isn't.
  Status finish() const;

 private:
  enum class State { kPreamble, kDelimiter, kHeaders, kData, kEpilogue };

  // Each takes what it can from the front of `rest_`. False: it needs more bytes.
  Result<bool> step();
  bool skip_preamble();
  Result<bool> read_delimiter();
  Result<bool> read_headers();
  Result<bool> read_data();

  const std::string delimiter_;
  PartSink& sink_;
  State state_ = State::kPreamble;
  bool at_start_ = true;  // no byte was seen: the first delimiter may lack its CRLF
  std::size_t parts_ = 0;
  std::string buffer_;     // not yet taken
  std::string_view rest_;  // during feed(): what of the buffer is left
};

}  // namespace waystation::front
