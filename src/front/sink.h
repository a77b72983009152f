// The shapes in which the events of a request reach an HTTP client. A sink decides about
// status and bytes; its Feed decides about when. Loop's thread only.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "front/exchange.h"
#include "front/inbox.h"
#include "stream/render/renderer.h"

namespace waystation::front {

class Sink {
 public:
  virtual ~Sink() = default;
  // The first call. An answer here ends it: the request can't be shown as asked.
  virtual std::optional<Response> on_identity(const Identity& identity) = 0;
  // Whether on_identity has nothing to show, so that the loop needn't be woken for it alone.
  virtual bool waits_for_events() const { return false; }
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

// The answer to the POST that makes a request, with and without stream. `shown`: but for id and
// accepted_ms, which come with the identity.
std::unique_ptr<Sink> make_stream_sink(ExchangePtr exchange, stream::RenderIdentity shown);
std::unique_ptr<Sink> make_answer_sink(ExchangePtr exchange, stream::RenderIdentity shown,
                                       std::size_t bytes_max);
// GET /v1/requests/{id}/events, first event wanted: `from`. `echo`: see RenderIdentity.
std::unique_ptr<Sink> make_events_sink(ExchangePtr exchange, Sequence from, std::string echo);
// GET /v1/requests/{id} of an ended request: its description with `result`.
std::unique_ptr<Sink> make_result_sink(ExchangePtr exchange, std::string echo,
                                       std::size_t bytes_max);

// How a request that was joined is shown.
stream::RenderIdentity shown_of(const broker::RequestView& view, std::string echo);

// The description of a request, see requests.cc. `result`: JSON, empty for null. `omitted`: why
// there is no result although the request is complete; empty otherwise.
std::string request_json(const broker::RequestView& view, const std::string& result,
                         const std::string& omitted);

}  // namespace waystation::front
