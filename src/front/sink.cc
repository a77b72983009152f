#include "front/sink.h"

#include "message/openai.h"
#include "message/sse.h"

namespace waystation::front {
namespace {

using stream::ChatIdentity;
using stream::ChatRenderer;

ChatIdentity chat_identity(const Identity& identity, const ChatSinkOptions& options) {
  return {identity.id, options.model, identity.accepted_ms, options.include_usage};
}

// Collects bytes for one write, and opens the answer when there is something to show.
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

// OpenAI's stream: data lines only, no ids, no event names.
class ChatStreamSink final : public Sink {
 public:
  ChatStreamSink(ExchangePtr exchange, ChatSinkOptions options)
      : output_(std::move(exchange)), options_(std::move(options)) {}

  std::optional<Response> on_identity(const Identity& identity) override {
    renderer_.emplace(chat_identity(identity, options_), options_.numbered);
    return std::nullopt;
  }
  void on_event(Sequence sequence, const v1::Event& event) override {
    output_.open();
    std::string& out = output_.bytes();
    out += "data: ";
    renderer_->append_chunk(out, sequence, event);
    out += "\n\n";
  }
  void on_ending(const stream::Ending& ending) override {
    if (ending.state != v1::REQUEST_STATE_COMPLETED) return on_error(stream::error_of(ending));
    output_.open();
    message::append_sse_data(output_.bytes(), "[DONE]");
    output_.end(true);
  }
  void on_error(const Error& error) override {
    if (!output_.is_open()) return output_.exchange()->reply(error);
    message::append_sse_data(output_.bytes(), message::openai_error_body(error));
    output_.end(false);
  }
  void on_silence() override { output_.open(); }
  void on_quiet() override {
    if (output_.is_open()) output_.quiet();
  }
  void flush() override { output_.flush(); }

 private:
  SseOutput output_;
  const ChatSinkOptions options_;
  std::optional<ChatRenderer> renderer_;
};

// Waystation's own stream: every frame has its number, the last one the state.
class EventsSink final : public Sink {
 public:
  EventsSink(ExchangePtr exchange, Sequence from) : output_(std::move(exchange)), from_(from) {}

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
    renderer_.emplace(ChatIdentity{view.id, view.model, view.accepted_ms, view.stream_usage}, true);
    output_.open();
    return std::nullopt;
  }
  void on_event(Sequence sequence, const v1::Event& event) override {
    std::string& out = output_.bytes();
    out += "id: ";
    out += std::to_string(sequence);
    out += "\nevent: chat.completion.chunk\ndata: ";
    renderer_->append_chunk(out, sequence, event);
    out += "\n\n";
  }
  void on_ending(const stream::Ending& ending) override {
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
  const Sequence from_;
  std::optional<ChatRenderer> renderer_;
};

class ChatAnswerSink final : public Sink {
 public:
  ChatAnswerSink(ExchangePtr exchange, ChatSinkOptions options, std::size_t bytes_max)
      : exchange_(std::move(exchange)), options_(std::move(options)), bytes_max_(bytes_max) {}

  std::optional<Response> on_identity(const Identity& identity) override {
    identity_ = chat_identity(identity, options_);
    return std::nullopt;
  }
  void on_event(Sequence, const v1::Event& event) override {
    if (collector_.text_bytes() <= bytes_max_) collector_.add(event);
  }
  void on_ending(const stream::Ending& ending) override {
    if (ending.state != v1::REQUEST_STATE_COMPLETED) {
      return exchange_->reply(stream::error_of(ending));
    }
    if (collector_.text_bytes() > bytes_max_) {
      return exchange_->reply(Error{Code::kTooLarge,
                                    "the answer is too long to give at once; ask "
                                    "for it with stream: true"});
    }
    exchange_->reply(Response{.body = collector_.completion(identity_, ending)});
  }
  void on_error(const Error& error) override { exchange_->reply(error); }

 private:
  const ExchangePtr exchange_;
  const ChatSinkOptions options_;
  const std::size_t bytes_max_;
  ChatIdentity identity_;
  stream::ChatCollector collector_;
};

class ResultSink final : public Sink {
 public:
  ResultSink(ExchangePtr exchange, std::size_t bytes_max)
      : exchange_(std::move(exchange)), bytes_max_(bytes_max) {}

  std::optional<Response> on_identity(const Identity& identity) override {
    view_ = *identity.view;
    return std::nullopt;
  }
  void on_event(Sequence, const v1::Event& event) override {
    if (collector_.text_bytes() <= bytes_max_) collector_.add(event);
  }
  void on_ending(const stream::Ending& ending) override {
    if (collector_.text_bytes() > bytes_max_) {
      return exchange_->reply(Response{.body = request_json(view_, "", "too_large")});
    }
    const ChatIdentity identity{view_.id, view_.model, view_.accepted_ms, view_.stream_usage};
    exchange_->reply(
        Response{.body = request_json(view_, collector_.completion(identity, ending), "")});
  }
  void on_error(const Error& error) override { exchange_->reply(error); }

 private:
  const ExchangePtr exchange_;
  const std::size_t bytes_max_;
  broker::RequestView view_;
  stream::ChatCollector collector_;
};

}  // namespace

std::unique_ptr<Sink> make_chat_stream_sink(ExchangePtr exchange, ChatSinkOptions options) {
  return std::make_unique<ChatStreamSink>(std::move(exchange), std::move(options));
}

std::unique_ptr<Sink> make_chat_answer_sink(ExchangePtr exchange, ChatSinkOptions options,
                                            std::size_t bytes_max) {
  return std::make_unique<ChatAnswerSink>(std::move(exchange), std::move(options), bytes_max);
}

std::unique_ptr<Sink> make_events_sink(ExchangePtr exchange, Sequence from) {
  return std::make_unique<EventsSink>(std::move(exchange), from);
}

std::unique_ptr<Sink> make_result_sink(ExchangePtr exchange, std::size_t bytes_max) {
  return std::make_unique<ResultSink>(std::move(exchange), bytes_max);
}

}  // namespace waystation::front
