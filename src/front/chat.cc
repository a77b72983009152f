// POST /v1/chat/completions: an HTTP request becomes an envelope, its events become the answer.
//
// Waystation's own request headers:
//   Idempotency-Key    1 to 255 printable characters: same key and body, same request
//   X-Conversation-Id  1 to 256 printable characters: one request of a conversation at a time, in
//   order X-Resumable        "true": the request goes on when its client goes away X-Deadline-Ms 1
//   to 604800000, from now: later than that it ends as expired (504)
#include <algorithm>
#include <charconv>

#include "front/deps.h"
#include "front/feed.h"
#include "front/handlers.h"
#include "guard/sha256.h"
#include "message/chat.h"
#include "message/envelope.h"
#include "message/json.h"

namespace waystation::front {
namespace {

constexpr std::size_t kKeyBytesMax = 255;
constexpr std::size_t kConversationBytesMax = 256;
constexpr std::size_t kTraceparentBytesMax = 128;
constexpr std::size_t kTracestateBytesMax = 512;
constexpr std::int64_t kDeadlineMsMax = 7LL * 24 * 3600 * 1000;

Error bad_header(const char* name, const std::string& what) {
  return {Code::kInvalidArgument, std::string("the header ") + name + " " + what, name};
}

// A header's value; empty when it is absent. Present but empty is an error, since it would be a
// client's mistake that goes unnoticed.
Result<std::string> text_header(const Request& request, const char* name, std::size_t bytes_max) {
  if (!request.has_header(name)) return std::string();
  const std::string_view value = request.header(name);
  if (value.empty()) return bad_header(name, "must not be empty");
  if (value.size() > bytes_max) {
    return bad_header(name, "is longer than " + std::to_string(bytes_max) + " bytes");
  }
  const bool printable = std::all_of(value.begin(), value.end(),
                                     [](unsigned char c) { return c >= 0x20 && c < 0x7f; });
  if (!printable) return bad_header(name, "may hold printable ASCII characters only");
  return std::string(value);
}

Result<bool> flag_header(const Request& request, const char* name) {
  if (!request.has_header(name)) return false;
  std::string value(request.header(name));
  std::transform(value.begin(), value.end(), value.begin(),
                 [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  if (value == "true" || value == "1") return true;
  if (value == "false" || value == "0") return false;
  return bad_header(name, "must be true or false");
}

// The deadline in wall milliseconds; 0 when none was asked for.
Result<TimeMs> deadline(const Request& request, TimeMs now_ms) {
  constexpr const char* kName = "X-Deadline-Ms";
  if (!request.has_header(kName)) return TimeMs{0};
  const std::string_view text = request.header(kName);
  std::int64_t wait_ms = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), wait_ms);
  if (text.empty() || ec != std::errc() || end != text.data() + text.size() || wait_ms < 1 ||
      wait_ms > kDeadlineMsMax) {
    return bad_header(kName, "must be a whole number of milliseconds from 1 to " +
                                 std::to_string(kDeadlineMsMax));
  }
  return now_ms + wait_ms;
}

Result<v1::Envelope> make_envelope(const Deps& deps, const Request& request,
                                   const message::ChatRequest& chat) {
  auto key = text_header(request, "Idempotency-Key", kKeyBytesMax);
  if (!key) return key.error();
  auto conversation = text_header(request, "X-Conversation-Id", kConversationBytesMax);
  if (!conversation) return conversation.error();
  const TimeMs now_ms = deps.clock.wall_ms();
  auto expiry_ms = deadline(request, now_ms);
  if (!expiry_ms) return expiry_ms.error();
  auto canonical = message::canonical_json(request.body);
  if (!canonical) return canonical.error();

  v1::Envelope envelope;
  envelope.set_source("/front/chat");
  envelope.set_specversion(std::string(message::kSpecVersion));
  envelope.set_type(std::string(message::kChatRequestType));
  envelope.set_time_ms(now_ms);
  envelope.set_datacontenttype("application/json");
  envelope.set_data(request.body);
  envelope.set_partitionkey(std::move(*conversation));
  envelope.set_idempotencykey(std::move(*key));
  envelope.set_fingerprint(guard::sha256("POST /v1/chat/completions\n" + *canonical));
  envelope.set_expirytime_ms(*expiry_ms);
  envelope.set_tenant(request.tenant);
  envelope.set_model(chat.model);
  // Trace context is passed on, never a reason to refuse.
  if (auto parent = text_header(request, "traceparent", kTraceparentBytesMax)) {
    envelope.set_traceparent(std::move(*parent));
    if (auto state = text_header(request, "tracestate", kTracestateBytesMax)) {
      envelope.set_tracestate(std::move(*state));
    }
  }
  return envelope;
}

}  // namespace

void handle_chat(const Deps& deps, ExchangePtr exchange) {
  const Request& request = exchange->request();
  auto chat = message::parse_chat_request(request.body);
  if (!chat) return exchange->reply(chat.error());
  auto resumable = flag_header(request, "X-Resumable");
  if (!resumable) return exchange->reply(resumable.error());
  auto envelope = make_envelope(deps, request, *chat);
  if (!envelope) return exchange->reply(envelope.error());

  broker::Submission submission;
  submission.detached = *resumable || !envelope->idempotencykey().empty();
  submission.stream_usage = chat->include_usage;
  submission.envelope = std::move(*envelope);

  const ChatSinkOptions options{chat->model, chat->include_usage, submission.detached};
  auto sink = chat->stream
                  ? make_chat_stream_sink(exchange, options)
                  : make_chat_answer_sink(exchange, options, deps.options.answer_bytes_max);
  Feed::make(deps, std::move(exchange), std::move(sink), true)->submit(std::move(submission));
}

}  // namespace waystation::front
