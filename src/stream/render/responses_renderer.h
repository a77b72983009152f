// OpenAI's Responses: its stream of typed events, and the response object. See renderer.h.
//
// One stored event makes zero or more frames, numbered from 0 without gaps by `sequence_number`. So
// a stream is always rendered from its beginning, and frames that the reader has seen are dropped.
//
//   START   response.created [response.queued] response.in_progress
//   DELTA   [output_item.added, content_part.added] …delta
//   FINISH  …done, content_part.done, output_item.done of all that is open
//   ending  response.completed | response.incomplete | response.failed (also when it was cancelled)
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stream/render/renderer.h"

namespace waystation::stream {

// RenderIdentity::echo of this API: the members of the response object that show how it was asked
// for, `"background":false,"model":…`, background first (message/responses.h makes them). When it
// is empty, as for a request whose parameters weren't kept, the defaults are shown.
class ResponsesRenderer final : public Renderer {
 public:
  explicit ResponsesRenderer(const RenderIdentity& identity);

  bool needs_start() const override { return true; }
  bool names_frames() const override { return true; }
  void on_event(FrameSink& out, Sequence sequence, const v1::Event& event) override;
  void on_ending(FrameSink& out, const Ending& ending) override;
  void on_error(FrameSink& out, const Error& error) override;

  // The first frames. May be asked for before the first event; they are the same then.
  void begin(FrameSink& out);

  // The response object of a request that has ended, after its events.
  std::string response(const Ending& ending) const;
  // Of one that hasn't: `status` is "queued" or "in_progress".
  std::string response_so_far(std::string_view status) const;
  // What it brought out, as a JSON array.
  std::string output(const Ending& ending) const;
  std::size_t bytes() const { return bytes_; }

 private:
  enum class Kind { kReasoning, kMessage, kCall };
  struct Piece {
    Kind kind;
    std::string id = {};
    std::string text = {};      // or a call's arguments
    std::string logprobs = {};  // members of the array
    std::string call_id = {};
    std::string name = {};
    std::uint32_t call_index = 0;
    bool closed = false;
  };

  void start(FrameSink& out);
  void add_reasoning(FrameSink& out, std::string_view text);
  void add_text(FrameSink& out, const v1::Event& event);
  void add_call(FrameSink& out, const v1::ToolCallDelta& delta);
  std::size_t open(FrameSink& out, Kind kind);
  std::size_t open_call(FrameSink& out, const v1::ToolCallDelta& delta);
  void close(FrameSink& out, std::size_t index);
  void close_texts(FrameSink& out);
  void close_all(FrameSink& out);
  void announce(FrameSink& out, std::size_t index);

  std::string item(const Piece& piece, std::string_view status) const;
  std::string output(std::string_view open_status) const;
  std::string object(std::string_view status, std::string_view error, std::string_view incomplete,
                     std::string_view usage, std::string_view open_status) const;
  // {"type":…,"sequence_number":…
  std::string head(std::string_view type);
  std::string item_head(std::string_view type, std::size_t index, bool in_part);
  void send(FrameSink& out, std::string_view type, std::string_view data);
  void send_response(FrameSink& out, std::string_view type, const std::string& response);

  const RenderIdentity identity_;
  const std::string echo_;
  const bool background_;
  bool begun_ = false;
  bool started_ = false;
  bool cut_short_ = false;  // finish_reason "length": what is open then stays incomplete
  std::uint64_t next_ = 0;
  std::size_t bytes_ = 0;
  std::vector<Piece> pieces_;
};

// Renders nothing but the object at the end.
class ResponsesCollector final : public Collector {
 public:
  explicit ResponsesCollector(const RenderIdentity& identity) : renderer_(identity) {}
  void add(const v1::Event& event) override;
  std::size_t bytes() const override { return renderer_.bytes(); }
  Result<std::string> answer(const Ending& ending) const override;

  // Whatever the ending: failed and cancelled responses are objects, too.
  std::string response(const Ending& ending) const { return renderer_.response(ending); }
  std::string output(const Ending& ending) const { return renderer_.output(ending); }

 private:
  ResponsesRenderer renderer_;
};

std::unique_ptr<Renderer> make_responses_renderer(const RenderIdentity& identity);
std::unique_ptr<Collector> make_responses_collector(const RenderIdentity& identity);

}  // namespace waystation::stream
