#include "front/sink.h"

#include "base/check.h"
#include "front/sse_output.h"

namespace waystation::front {
namespace {

// The API's own stream.
class StreamSink final : public Sink {
 public:
  StreamSink(ExchangePtr exchange, stream::RenderIdentity shown)
      : output_(std::move(exchange)), shown_(std::move(shown)) {}

  std::optional<Response> on_identity(const Identity& identity) override {
    shown_.id = identity.id;
    shown_.accepted_ms = identity.accepted_ms;
    renderer_ = stream::make_renderer(shown_);
    CHECK(renderer_ != nullptr);
    frames_.emplace(output_.bytes(), renderer_->names_frames());
    return std::nullopt;
  }
  bool waits_for_events() const override { return true; }
  void on_event(Sequence sequence, const v1::Event& event) override {
    output_.open();
    renderer_->on_event(*frames_, sequence, event);
  }
  void on_ending(const stream::Ending& ending) override {
    const bool is_complete = ending.state == v1::REQUEST_STATE_COMPLETED;
    // Nothing was shown yet: the status can still say it.
    if (!is_complete && !output_.is_open()) {
      return output_.exchange()->reply(stream::error_of(ending));
    }
    output_.open();
    renderer_->on_ending(*frames_, ending);
    output_.end(is_complete);
  }
  void on_error(const Error& error) override {
    if (!output_.is_open()) return output_.exchange()->reply(error);
    renderer_->on_error(*frames_, error);
    output_.end(false);
  }
  void on_silence() override { output_.open(); }
  void on_quiet() override {
    if (output_.is_open()) output_.quiet();
  }
  void flush() override { output_.flush(); }

 private:
  SseOutput output_;
  stream::RenderIdentity shown_;
  std::unique_ptr<stream::Renderer> renderer_;
  std::optional<stream::ApiFrames> frames_;
};

// Swallows the frames that a reader has seen.
class NoFrames final : public stream::FrameSink {
 public:
  void frame(std::string_view, std::string_view) override {}
};

// Waystation's own stream: every frame has its number, the last one the state.
class EventsSink final : public Sink {
 public:
  EventsSink(ExchangePtr exchange, Sequence from, std::string echo)
      : output_(std::move(exchange)),
        frames_(output_.bytes()),
        from_(from),
        echo_(std::move(echo)) {}

  std::optional<Response> on_identity(const Identity& identity) override {
    const broker::RequestView& view = *identity.view;
    if (from_ > view.event_count) {
      // An EventSource that has seen the last frame asks once more; 204 tells it to stop.
      if (stream::is_terminal(view.state)) return Response{.status = 204};
      return error_response({Code::kInvalidArgument,
                             "starting_after is past the newest event, which is number " +
                                 std::to_string(static_cast<std::int64_t>(view.event_count) - 1),
                             "starting_after"});
    }
    renderer_ = stream::make_renderer(shown_of(view, echo_));
    if (renderer_ == nullptr) {
      return error_response(
          {Code::kInvalidArgument, "this version of Waystation can't show requests of '" +
                                       view.api + "'; a newer one accepted it"});
    }
    output_.open();
    return std::nullopt;
  }
  void on_event(Sequence sequence, const v1::Event& event) override {
    if (sequence < from_) {
      NoFrames seen;
      return renderer_->on_event(seen, sequence, event);
    }
    renderer_->on_event(frames_, sequence, event);
    frames_.end_event(sequence);
  }
  void on_ending(const stream::Ending& ending) override {
    renderer_->on_ending(frames_, ending);
    stream::append_terminal_frame(output_.bytes(), ending);
    output_.end(true);
  }
  void on_error(const Error& error) override {
    if (!output_.is_open()) return output_.exchange()->reply(error);
    // Not the end of the request: the client comes back with Last-Event-ID.
    message::append_sse_comment(output_.bytes(), "interrupted");
    output_.end(false);
  }
  void on_quiet() override {
    if (output_.is_open()) output_.quiet();
  }
  void flush() override { output_.flush(); }

 private:
  SseOutput output_;
  stream::NumberedFrames frames_;
  const Sequence from_;
  const std::string echo_;
  std::unique_ptr<stream::Renderer> renderer_;
};

class AnswerSink final : public Sink {
 public:
  AnswerSink(ExchangePtr exchange, stream::RenderIdentity shown, std::size_t bytes_max)
      : exchange_(std::move(exchange)), bytes_max_(bytes_max), shown_(std::move(shown)) {}

  std::optional<Response> on_identity(const Identity& identity) override {
    shown_.id = identity.id;
    shown_.accepted_ms = identity.accepted_ms;
    collector_ = stream::make_collector(shown_);
    CHECK(collector_ != nullptr);
    return std::nullopt;
  }
  bool waits_for_events() const override { return true; }
  void on_event(Sequence, const v1::Event& event) override {
    if (collector_->bytes() <= bytes_max_) collector_->add(event);
  }
  void on_ending(const stream::Ending& ending) override {
    if (collector_->bytes() > bytes_max_) {
      return exchange_->reply(Error{Code::kTooLarge,
                                    "the answer is too long to give at once; ask "
                                    "for it with stream: true"});
    }
    auto answer = collector_->answer(ending);
    if (!answer) return exchange_->reply(answer.error());
    exchange_->reply(Response{.body = std::move(*answer)});
  }
  void on_error(const Error& error) override { exchange_->reply(error); }

 private:
  const ExchangePtr exchange_;
  const std::size_t bytes_max_;
  stream::RenderIdentity shown_;
  std::unique_ptr<stream::Collector> collector_;
};

class ResultSink final : public Sink {
 public:
  ResultSink(ExchangePtr exchange, std::string echo, std::size_t bytes_max)
      : exchange_(std::move(exchange)), echo_(std::move(echo)), bytes_max_(bytes_max) {}

  std::optional<Response> on_identity(const Identity& identity) override {
    view_ = *identity.view;
    collector_ = stream::make_collector(shown_of(view_, echo_));
    if (collector_ == nullptr) return Response{.body = request_json(view_, "", "unknown_api")};
    return std::nullopt;
  }
  void on_event(Sequence, const v1::Event& event) override {
    if (collector_->bytes() <= bytes_max_) collector_->add(event);
  }
  void on_ending(const stream::Ending& ending) override {
    if (collector_->bytes() > bytes_max_) {
      return exchange_->reply(Response{.body = request_json(view_, "", "too_large")});
    }
    const auto answer = collector_->answer(ending);
    exchange_->reply(Response{.body = request_json(view_, answer.value_or(""), "")});
  }
  void on_error(const Error& error) override { exchange_->reply(error); }

 private:
  const ExchangePtr exchange_;
  const std::string echo_;
  const std::size_t bytes_max_;
  broker::RequestView view_;
  std::unique_ptr<stream::Collector> collector_;
};

}  // namespace

stream::RenderIdentity shown_of(const broker::RequestView& view, std::string echo) {
  stream::RenderIdentity shown;
  shown.id = view.id;
  shown.api = view.api;
  shown.model = view.model;
  shown.accepted_ms = view.accepted_ms;
  shown.choices = view.choices;
  shown.priority = view.priority;
  shown.include_usage = view.stream_usage;
  shown.numbered = true;
  shown.echo = std::move(echo);
  return shown;
}

std::unique_ptr<Sink> make_stream_sink(ExchangePtr exchange, stream::RenderIdentity shown) {
  return std::make_unique<StreamSink>(std::move(exchange), std::move(shown));
}

std::unique_ptr<Sink> make_answer_sink(ExchangePtr exchange, stream::RenderIdentity shown,
                                       std::size_t bytes_max) {
  return std::make_unique<AnswerSink>(std::move(exchange), std::move(shown), bytes_max);
}

std::unique_ptr<Sink> make_events_sink(ExchangePtr exchange, Sequence from, std::string echo) {
  return std::make_unique<EventsSink>(std::move(exchange), from, std::move(echo));
}

std::unique_ptr<Sink> make_result_sink(ExchangePtr exchange, std::string echo,
                                       std::size_t bytes_max) {
  return std::make_unique<ResultSink>(std::move(exchange), std::move(echo), bytes_max);
}

}  // namespace waystation::front
