// Makes the stored events of a request into what its client sees, in the API that the client spoke:
// a stream of server-sent events, or one whole answer. Pure: the same events give the same bytes,
// live or replayed, on any server of the same renderer version. A change of any byte that a stored
// request would show is a new version.
//
// One more API is: a source file with a Renderer and a Collector, and its row in renderer.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "message/proto/records.pb.h"
#include "stream/reader.h"

namespace waystation::stream {

inline constexpr int kRendererVersion = 2;

// What a renderer must know of a request; all of it is fixed at acceptance.
struct RenderIdentity {
  RequestId id;
  std::string api;  // as in the envelope: "chat.completions", "completions", …; empty: chat
  std::string model;
  TimeMs accepted_ms = 0;
  std::uint32_t choices = 1;
  std::int32_t priority = 0;
  bool include_usage = false;  // the client asked for usage in its stream
  bool numbered = false;       // chunks carry the event's number as `sequence_number`
  bool base64 = false;         // embeddings: the form of the vectors
  // What an API must show again of the request, in that API's own form. Only "responses" has it:
  // the response object's parameters as JSON, see responses_renderer.h.
  std::string echo;
};

// Takes whole frames, one by one.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  // `name`: the frame's type, "chat.completion.chunk"; empty for what belongs to the API's own
  // stream alone and is no event of the request, as "[DONE]" and errors in mid-stream are.
  // `data`: without line breaks; good for the call only.
  virtual void frame(std::string_view name, std::string_view data) = 0;
};

// Renders the events of one request. One per reader; not for two threads at once. Events are given
// in order, each once: on_event…, then on_ending or on_error.
class Renderer {
 public:
  virtual ~Renderer() = default;

  // Frames depend on earlier events: it must be fed from event 0, whatever the reader wants to see.
  // The caller drops the frames of the events that the reader has seen.
  virtual bool needs_start() const { return false; }

  // The API's own stream has `event:` lines.
  virtual bool names_frames() const { return false; }

  // Zero or more frames. One event makes the same frames each time it is rendered.
  virtual void on_event(FrameSink& out, Sequence sequence, const v1::Event& event) = 0;

  // The request ended, well or not: the API's last frames.
  virtual void on_ending(FrameSink& out, const Ending& ending) = 0;

  // The stream can't go on here; the request isn't over.
  virtual void on_error(FrameSink& out, const Error& error) = 0;
};

// Collects the events of one request, in order from 0, into the API's whole answer.
class Collector {
 public:
  virtual ~Collector() = default;
  virtual void add(const v1::Event& event) = 0;
  // What is held, near enough for a bound.
  virtual std::size_t bytes() const = 0;
  // A JSON object, the body of a 200; or the error of a request that didn't complete (error_of),
  // which the caller makes into a status and a body.
  virtual Result<std::string> answer(const Ending& ending) const = 0;
};

// Null when this version can't render the API (a newer one accepted the request).
std::unique_ptr<Renderer> make_renderer(const RenderIdentity& identity);
std::unique_ptr<Collector> make_collector(const RenderIdentity& identity);

// An answer as HTTP and batch files have it.
struct StatusAndBody {
  int status = 200;
  std::string body;  // JSON
};
StatusAndBody status_and_body(const Result<std::string>& answer);

// ---- Frames as bytes ----------------------------------------------------------------------------

// The API's own stream: "data:" lines, with "event:" where the API has names; never "id:".
class ApiFrames final : public FrameSink {
 public:
  // `out` outlives it.
  ApiFrames(std::string& out, bool named) : out_(out), named_(named) {}
  void frame(std::string_view name, std::string_view data) override;

 private:
  std::string& out_;
  const bool named_;
};

// The stream of /v1/requests/{id}/events: every frame has its name. The last frame of an event has
// the event's number as its id, so a client that saw an event in part gets all of it again.
class NumberedFrames final : public FrameSink {
 public:
  explicit NumberedFrames(std::string& out) : out_(out) {}
  void frame(std::string_view name, std::string_view data) override;
  // After all frames of the event: gives the last one its id. Without one, nothing happens.
  void end_event(Sequence sequence);

 private:
  std::string& out_;
  std::size_t last_ = std::string::npos;  // where the last frame begins
};

// ---- What all APIs share ------------------------------------------------------------------------

// "queued", "running", "completed", "failed", "cancelled", "expired", "dead".
std::string_view state_name(v1::RequestState state);
bool is_terminal(v1::RequestState state);

// Why a request that didn't complete ended: the code that its HTTP status comes from. Only for
// endings other than completed.
Error error_of(const Ending& ending);

// The last frame of /v1/requests/{id}/events.
void append_terminal_frame(std::string& out, const Ending& ending);

// The service tier that a priority stands for: "flex", "default", "priority".
std::string_view tier_name(std::int32_t priority);

// {"prompt_tokens":…,"completion_tokens":…,"total_tokens":…,"prompt_tokens_details":{…},
//  "completion_tokens_details":{…}}: chat's and completions' form.
std::string usage_json(const v1::Usage& usage);

}  // namespace waystation::stream
