// Server-sent events (WHATWG HTML, "text/event-stream"): writing frames, and reading them back.
// Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace waystation::message {

// "data: …" of an OpenAI stream: no id, no event name. `data` must not hold line breaks.
void append_sse_data(std::string& out, std::string_view data);

// A frame with an id and an event name. `data` must not hold line breaks.
void append_sse_frame(std::string& out, std::uint64_t id, std::string_view event,
                      std::string_view data);

// A comment, which clients ignore: keeps a quiet connection alive.
void append_sse_comment(std::string& out, std::string_view text);

struct SseFrame {
  std::string id;     // of this frame; empty when it had none
  std::string event;  // "message" when it had no name
  std::string data;   // lines joined by '\n'
};

// Takes a stream in pieces of any size and gives whole frames: the same ones however it is cut.
// Comments are dropped.
class SseParser {
 public:
  // A line, and the data of one frame, have at most so many bytes; so it never holds more than
  // twice as many.
  explicit SseParser(std::size_t frame_bytes_max = std::numeric_limits<std::size_t>::max())
      : frame_bytes_max_(frame_bytes_max) {}

  // Appends the frames that `bytes` completes. False, now and for ever, once a line or a frame is
  // larger than it may be; the frames before it are there.
  bool feed(std::string_view bytes, std::vector<SseFrame>& out);

 private:
  bool line(std::string_view text, std::vector<SseFrame>& out);

  const std::size_t frame_bytes_max_;
  std::string partial_;
  bool after_cr_ = false;
  bool too_large_ = false;
  SseFrame frame_;
  bool has_data_ = false;
};

}  // namespace waystation::message
