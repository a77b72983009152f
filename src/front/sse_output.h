// Collects the bytes of a stream for one write, and opens the answer when there is something to
// show. Loop's thread only.
#pragma once

#include <string>
#include <utility>

#include "front/exchange.h"
#include "message/sse.h"

namespace waystation::front {

class SseOutput {
 public:
  explicit SseOutput(ExchangePtr exchange) : exchange_(std::move(exchange)) {}

  bool is_open() const { return is_open_; }
  void open() {
    if (std::exchange(is_open_, true)) return;
    Response head;
    head.content_type = "text/event-stream; charset=utf-8";
    // Proxies must neither keep nor hold back what passes.
    head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    exchange_->begin_stream(std::move(head));
  }
  std::string& bytes() { return bytes_; }
  void flush() {
    if (bytes_.empty()) return;
    exchange_->stream(bytes_);
    bytes_.clear();
  }
  void end(bool keep_alive) {
    flush();
    exchange_->end_stream(keep_alive);
  }
  void quiet() {
    message::append_sse_comment(bytes_, "keep-alive");
    flush();
  }
  const ExchangePtr& exchange() const { return exchange_; }

 private:
  const ExchangePtr exchange_;
  std::string bytes_;
  bool is_open_ = false;
};

}  // namespace waystation::front
