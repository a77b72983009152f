#include "upstream/call.h"

#include <utility>

#include "base/clock.h"

namespace waystation::upstream {
namespace {

constexpr std::size_t kRefusalBytesMax = 64 << 10;
constexpr std::size_t kReserveBytesMax = 1 << 20;
constexpr TimeMs kGoodbyeMs = 2'000;  // from [DONE] to the end of the response

std::string hex(const std::string& bytes) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    out.push_back(kHex[static_cast<unsigned char>(c) >> 4]);
    out.push_back(kHex[static_cast<unsigned char>(c) & 15]);
  }
  return out;
}

}  // namespace

Call::Call(CallHost& host, link::ConnectionId session, v1::Fence fence, Body body,
           std::uint32_t choices, const Options& options)
    : host_(host),
      session_(session),
      fence_(std::move(fence)),
      stream_(body.stream),
      options_(options),
      answer_(body.kind, choices, std::move(body.resumed), options.echo, hex(fence_.request()),
              options.event_bytes_max) {
  request.body = std::move(body.text);
  timeouts.connect_ms = options.connect_timeout_ms;
  timeouts.first_byte_ms = stream_ ? options.first_byte_timeout_ms : options.answer_timeout_ms;
  timeouts.idle_ms = options.idle_timeout_ms;
  timeouts.total_ms = options.total_timeout_ms;
}

void Call::take(std::vector<v1::Output>& out) {
  const std::size_t from = out.size();
  answer_.take(out);
  for (std::size_t i = from; i < out.size(); ++i) *out[i].mutable_fence() = fence_;
}

bool Call::on_head(const ResponseHead& head) {
  head_ = head;
  if (head.status < 200 || head.status > 299) {
    mode_ = Mode::kRefusal;
    return true;
  }
  if (!head.content_encoding.empty() && head.content_encoding != "identity") {
    return give_up({Code::kUnavailable, "sent its answer compressed (" + head.content_encoding +
                                            "), which it wasn't asked for"});
  }
  const bool json = head.content_type == "application/json";
  if (stream_ && !json) {
    if (!head.content_type.empty() && head.content_type != "text/event-stream") {
      return give_up(
          {Code::kUnavailable, "answered with " + head.content_type + " instead of a stream"});
    }
    mode_ = Mode::kStream;
    return true;
  }
  // A server that knows no streams answers with the whole document: as good.
  if (!json && !head.content_type.empty()) {
    return give_up({Code::kUnavailable, "answered with " + head.content_type + " instead of JSON"});
  }
  mode_ = Mode::kDocument;
  document_.reserve(std::min<std::size_t>(head.body_bytes, kReserveBytesMax));
  return true;
}

bool Call::on_body(std::string_view piece) {
  if (ended_) return true;
  switch (mode_) {
    case Mode::kStream:
      return read_stream(piece);
    case Mode::kDocument:
      if (document_.size() + piece.size() > options_.answer_bytes_max) {
        return give_up({Code::kUnavailable, "sent an answer of more than " +
                                                std::to_string(options_.answer_bytes_max) +
                                                " bytes"});
      }
      document_ += piece;
      return true;
    case Mode::kRefusal:
      document_ += piece.substr(0, kRefusalBytesMax - std::min(kRefusalBytesMax, document_.size()));
      return true;
    case Mode::kNothing:
      break;
  }
  return true;
}

bool Call::read_stream(std::string_view piece) {
  if (Status ok = answer_.feed(piece); !ok) return give_up(ok.error());
  if (answer_.done()) {
    // What is left to come is the end of the response, so that the connection can be used again.
    hurry(kGoodbyeMs);
    end_stream("");
  } else {
    host_.on_news(*this);
  }
  return true;
}

void Call::on_complete() {
  if (ended_) return;
  switch (mode_) {
    case Mode::kStream:
      end_stream("");
      return;
    case Mode::kDocument:
      if (Status ok = answer_.on_document(document_); !ok) {
        end({0, named(ok.error()), ok.error().code == Code::kUnavailable, false});
      } else {
        end({});
      }
      return;
    case Mode::kRefusal:
    case Mode::kNothing:
      end(judge(options_.name, {head_.status, head_.retry_after, head_.retry_after_ms, document_},
                SystemClock().wall_ms()));
  }
}

void Call::on_failed(HttpFailure failure) {
  if (ended_) return;
  if (mode_ == Mode::kStream) {
    end_stream(failure.what);
  } else if (mode_ == Mode::kRefusal) {  // the status says enough
    on_complete();
  } else {
    end({0, named({Code::kUnavailable, std::move(failure.what)}), true, failure.unreached,
         failure.unreached});
  }
}

// An answer whose finish reasons have all come is whole, however its stream ended.
void Call::end_stream(const std::string& how_it_ended) {
  Status whole = answer_.end();
  if (whole) {
    end({});
  } else if (!how_it_ended.empty()) {
    end({0, named({Code::kUnavailable, how_it_ended}), true, false});
  } else {
    end({0, named(whole.error()), true, false});
  }
}

bool Call::give_up(Error error) {
  const auto self = shared_from_this();
  const bool theirs = error.code == Code::kUnavailable;
  abort();
  end({0, theirs ? named(std::move(error)) : std::move(error), theirs, false});
  return false;
}

void Call::end(Verdict verdict) {
  if (std::exchange(ended_, true)) return;
  host_.on_ended(*this, std::move(verdict));
}

Error Call::named(Error error) const {
  if (error.code == Code::kUnavailable) error.message = options_.name + " " + error.message;
  return error;
}

}  // namespace waystation::upstream
