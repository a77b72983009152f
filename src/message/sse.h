// Server-sent events (WHATWG HTML, "text/event-stream"): writing frames, and reading them back.
// Pure.
#pragma once

#include <cstdint>
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

// Takes a stream in pieces of any size and gives whole frames. Comments are dropped.
class SseParser {
 public:
  // Appends the frames that `bytes` completes.
  void feed(std::string_view bytes, std::vector<SseFrame>& out);

 private:
  void line(std::string_view text, std::vector<SseFrame>& out);

  std::string partial_;
  bool after_cr_ = false;
  SseFrame frame_;
  bool has_data_ = false;
};

}  // namespace waystation::message
