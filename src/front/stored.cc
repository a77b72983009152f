#include "front/stored.h"

#include "front/deps.h"
#include "front/paging.h"
#include "front/sse_output.h"
#include "stream/render/responses_renderer.h"

namespace waystation::front {
namespace {

constexpr std::size_t kPageDefault = 20;
constexpr std::size_t kPageMost = 100;

// Drops the first frames.
class LaterFrames final : public stream::FrameSink {
 public:
  LaterFrames(std::string& out, std::uint64_t skip) : frames_(out, true), skip_(skip) {}
  void frame(std::string_view name, std::string_view data) override {
    if (skip_ > 0) {
      --skip_;
    } else {
      frames_.frame(name, data);
    }
  }

 private:
  stream::ApiFrames frames_;
  std::uint64_t skip_;
};

class ResponseStreamSink final : public Sink {
 public:
  ResponseStreamSink(ExchangePtr exchange, stream::RenderIdentity shown, std::uint64_t skip,
                     bool is_stored)
      : output_(std::move(exchange)),
        frames_(output_.bytes(), skip),
        shown_(std::move(shown)),
        is_stored_(is_stored) {}

  std::optional<Response> on_identity(const Identity& identity) override {
    shown_.id = identity.id;
    renderer_.emplace(shown_);
    output_.open();
    renderer_->begin(frames_);
    output_.flush();
    return std::nullopt;
  }
  void on_event(Sequence sequence, const v1::Event& event) override {
    renderer_->on_event(frames_, sequence, event);
  }
  void on_ending(const stream::Ending& ending) override {
    renderer_->on_ending(frames_, ending);
    output_.end(true);
  }
  void on_error(const Error& error) override {
    const bool is_gone = error.code == Code::kNotFound || error.code == Code::kGone;
    if (is_stored_ && is_gone && !output_.is_open()) {
      return output_.exchange()->reply(
          Error{Code::kGone,
                "the events of this response are past their retention; it can still be read as a "
                "whole, without stream=true"});
    }
    if (!output_.is_open()) return output_.exchange()->reply(error);
    renderer_->on_error(frames_, error);
    output_.end(false);
  }
  void on_quiet() override {
    if (output_.is_open()) output_.quiet();
  }
  void flush() override { output_.flush(); }

 private:
  SseOutput output_;
  LaterFrames frames_;
  stream::RenderIdentity shown_;
  const bool is_stored_;
  std::optional<stream::ResponsesRenderer> renderer_;
};

}  // namespace

Result<memory::Memory*> memory_of(const Deps& deps) {
  if (deps.parts.memory != nullptr) return deps.parts.memory;
  return Error{Code::kUnavailable, "this server keeps no responses and conversations"};
}

Result<store::PageQuery> item_page_query(const Request& request) {
  return page_query(request, kPageDefault, kPageMost);
}

Response item_page(const store::ItemPage& page) {
  return page_response(page.items, page.has_more,
                       [](std::string& out, const message::Item& item) { out += item.json; });
}

stream::RenderIdentity shown_response(const store::ResponseRow& row) {
  stream::RenderIdentity shown;
  shown.id = row.id;
  shown.api = "responses";
  shown.model = row.model;
  shown.accepted_ms = row.created_ms;
  shown.echo = row.parameters;
  return shown;
}

std::string response_json(const memory::Found& found) {
  if (found.row.ended) return found.row.answer;
  const bool runs = found.view && found.view->state == v1::REQUEST_STATE_RUNNING;
  return stream::ResponsesRenderer(shown_response(found.row))
      .response_so_far(runs ? "in_progress" : "queued");
}

std::unique_ptr<Sink> make_response_stream_sink(ExchangePtr exchange, stream::RenderIdentity shown,
                                                std::uint64_t skip, bool is_stored) {
  return std::make_unique<ResponseStreamSink>(std::move(exchange), std::move(shown), skip,
                                              is_stored);
}

}  // namespace waystation::front
