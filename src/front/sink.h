// The four shapes in which the events of a request reach an HTTP client. A sink decides about
// status and bytes; its Feed decides about when. Loop's thread only.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "front/exchange.h"
#include "front/inbox.h"
#include "stream/render/chat_renderer.h"

namespace waystation::front {

class Sink {
 public:
  virtual ~Sink() = default;
  // The first call. An answer here ends it: the request can't be shown as asked.
  virtual std::optional<Response> on_identity(const Identity& identity) = 0;
  virtual void on_event(Sequence sequence, const v1::Event& event) = 0;
  // One of these two is the last call. on_error: refused, or interrupted.
  virtual void on_ending(const stream::Ending& ending) = 0;
  virtual void on_error(const Error& error) = 0;
  // No event came for as long as the status may be held back.
  virtual void on_silence() {}
  // Nothing was written for a while.
  virtual void on_quiet() {}
  // A burst of events is over: write them.
  virtual void flush() {}
};

struct ChatSinkOptions {
  std::string model;
  bool include_usage = false;
  bool numbered = false;
};

// POST /v1/chat/completions with and without stream.
std::unique_ptr<Sink> make_chat_stream_sink(ExchangePtr exchange, ChatSinkOptions options);
std::unique_ptr<Sink> make_chat_answer_sink(ExchangePtr exchange, ChatSinkOptions options,
                                            std::size_t bytes_max);
// GET /v1/requests/{id}/events, first event wanted: `from`.
std::unique_ptr<Sink> make_events_sink(ExchangePtr exchange, Sequence from);
// GET /v1/requests/{id} of an ended request: its description with `result`.
std::unique_ptr<Sink> make_result_sink(ExchangePtr exchange, std::size_t bytes_max);

// The description of a request, see requests.cc. `result`: JSON, empty for null. `omitted`: why
// there is no result although the request is complete; empty otherwise.
std::string request_json(const broker::RequestView& view, const std::string& result,
                         const std::string& omitted);

}  // namespace waystation::front
