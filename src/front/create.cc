// POST /v1/chat/completions, /v1/completions, /v1/embeddings: an HTTP request becomes an envelope,
// its events become the answer. The headers that go with it are in headers.h.
#include "broker/prepare.h"
#include "front/deps.h"
#include "front/feed.h"
#include "front/handlers.h"
#include "front/headers.h"

namespace waystation::front {
namespace {

// Why the server can't know this request's conversation.
Status check_turn(const Deps& deps, const broker::Prepared& prepared) {
  constexpr const char* kName = "X-Conversation-Memory";
  const auto bad = [](const char* what) {
    return Error{Code::kInvalidArgument, std::string("the header ") + kName + " " + what, kName};
  };
  if (prepared.identity.api != "chat.completions") return bad("is for chat completions only");
  if (prepared.submission.envelope.partitionkey().empty()) {
    return bad("needs X-Conversation-Id, the conversation to be remembered");
  }
  if (!deps.parts.submit_turn) return bad("asks for what is not enabled on this server");
  return {};
}

void create(const Deps& deps, ExchangePtr exchange, std::string_view endpoint) {
  const Request& request = exchange->request();
  auto options = read_prepare_options(deps, request);
  if (!options) return exchange->reply(options.error());
  const auto is_turn = flag_header(request, "X-Conversation-Memory");
  if (!is_turn) return exchange->reply(is_turn.error());
  auto prepared = broker::prepare(endpoint, request.body, *options);
  if (!prepared) return exchange->reply(prepared.error());
  if (*is_turn) {
    if (auto status = check_turn(deps, *prepared); !status) return exchange->reply(status.error());
  }
  auto sink = prepared->stream ? make_stream_sink(exchange, std::move(prepared->identity))
                               : make_answer_sink(exchange, std::move(prepared->identity),
                                                  deps.options.answer_bytes_max);
  auto feed = Feed::make(deps, std::move(exchange), std::move(sink), true);
  feed->submit(std::move(prepared->submission), *is_turn ? deps.parts.submit_turn : Feed::Submit());
}

}  // namespace

void handle_chat(const Deps& deps, ExchangePtr exchange) {
  create(deps, std::move(exchange), "/v1/chat/completions");
}

void handle_completions(const Deps& deps, ExchangePtr exchange) {
  create(deps, std::move(exchange), "/v1/completions");
}

void handle_embeddings(const Deps& deps, ExchangePtr exchange) {
  create(deps, std::move(exchange), "/v1/embeddings");
}

}  // namespace waystation::front
