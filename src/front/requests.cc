// /v1/requests/{id}, …/events and …/cancel. DELETE answers {"id", "object": "request", "deleted":
// true}. A request is described as
//   {"id": "…", "object": "request",
//    "state": "queued|running|completed|failed|cancelled|expired|dead",
//    "api": "chat.completions|completions|responses|embeddings", "model": "…",
//    "conversation": "…"|null, "detached": true|false, "choices": 1, "priority": 0,
//    "queue_position": 0 (running or ended) | 1 (next) …,
//    "accepted_at": ms, "first_token_at": ms|null, "ended_at": ms|null,   wall milliseconds
//    "events": how many are stored, "finish_reason": "…"|null, "usage": {…}|null,
//    "error": {…}|null,
//    "requeue_of": the dead letter it was made of | null,
//    "requeued_as": the request that was made of this dead letter | null, "discarded": true|false,
//    "blocks_conversation": true|false,   the conversation waits until this one is dealt with
//    "attempts": [{"number", "worker", "model", "started_at", "ended_at", "outcome", "detail",
//                  "continuation": null|"exact"|"prefill", "resumed_tokens", "prefilled_bytes"}],
//    "result": what the API answers for a completed request | null,
//    "result_omitted": why a complete request has no result here: "too_large" (its events can be
//                      read), "unknown_api" (of a newer version)}
#include <charconv>
#include <functional>
#include <limits>
#include <optional>

#include "base/utf8.h"
#include "front/deps.h"
#include "front/feed.h"
#include "front/handlers.h"
#include "front/on_loop.h"
#include "message/json.h"
#include "message/openai.h"

namespace waystation::front {
namespace {

using message::append_json_string;

void append_text_or_null(std::string& out, std::string_view text) {
  if (text.empty()) {
    out += "null";
  } else {
    append_json_string(out, text);
  }
}

std::string number_or_null(TimeMs ms) {
  return ms == 0 ? "null" : std::to_string(ms);
}

std::string id_or_null(const std::optional<RequestId>& id) {
  return id ? "\"" + id->to_string() + "\"" : "null";
}

void append_attempt(std::string& out, const broker::AttemptView& attempt) {
  out += "{\"number\":" + std::to_string(attempt.number) + ",\"worker\":";
  append_text_or_null(out, attempt.worker);
  out += ",\"model\":";
  append_text_or_null(out, attempt.model);
  out += ",\"started_at\":" + number_or_null(attempt.started_ms);
  out += ",\"ended_at\":" + number_or_null(attempt.ended_ms) + ",\"outcome\":";
  append_text_or_null(out, attempt.outcome);
  out += ",\"detail\":";
  append_text_or_null(out, attempt.detail);
  out += ",\"continuation\":";
  append_text_or_null(out, attempt.continuation);
  out += ",\"resumed_tokens\":" + std::to_string(attempt.resumed_tokens);
  out += ",\"prefilled_bytes\":" + std::to_string(attempt.prefilled_bytes) + "}";
}

// What made a request end otherwise than completed; "null" when nothing did.
std::string error_json(const broker::RequestView& view) {
  if (!stream::is_terminal(view.state) || view.state == v1::REQUEST_STATE_COMPLETED) return "null";
  stream::Ending ending;
  ending.state = view.state;
  ending.failure = view.failure;
  return message::openai_error_object(stream::error_of(ending));
}

Result<std::uint64_t> event_number(std::string_view text, const char* name) {
  std::uint64_t number = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || ec != std::errc() || end != text.data() + text.size() ||
      number > std::numeric_limits<std::int64_t>::max()) {
    return Error{Code::kInvalidArgument,
                 std::string(name) + " must be the number of the last event seen", name};
  }
  return number;
}

// The first event wanted. Last-Event-ID wins: a browser that comes back repeats the old query.
Result<Sequence> first_wanted(const Request& request) {
  if (request.has_header("Last-Event-ID")) {
    auto seen = event_number(request.header("Last-Event-ID"), "Last-Event-ID");
    if (!seen) return seen.error();
    return *seen + 1;
  }
  if (const auto after = request.query_value("starting_after")) {
    auto seen = event_number(*after, "starting_after");
    if (!seen) return seen.error();
    return *seen + 1;
  }
  return Sequence{0};
}

using Then = std::function<void(std::string echo)>;

// Goes on, on the exchange's loop, with what the request's API must show again of it.
void with_echo(const Deps& deps, const ExchangePtr& exchange, const broker::RequestView& view,
               Then then) {
  if (view.api != "responses" || !deps.parts.find_echo) return then("");
  deps.parts.find_echo(exchange->request().tenant, view.id,
                       [exchange, then = std::move(then)](Result<std::string> echo) {
                         exchange->loop()->post([exchange, then, echo = std::move(echo)] {
                           if (exchange->is_open()) then(echo.value_or(""));
                         });
                       });
}

void answer_view(const Deps& deps, const ExchangePtr& exchange,
                 const Result<broker::RequestView>& view) {
  if (!view) return exchange->reply(view.error());
  exchange->set_request_id(view->id.to_string());
  if (view->state != v1::REQUEST_STATE_COMPLETED) {
    return exchange->reply(Response{.body = request_json(*view, "", "")});
  }
  if (view->event_count > deps.options.result_events_max) {
    return exchange->reply(Response{.body = request_json(*view, "", "too_large")});
  }
  with_echo(deps, exchange, *view, [&deps, exchange, id = view->id](std::string echo) {
    auto sink = make_result_sink(exchange, std::move(echo), deps.options.answer_bytes_max);
    Feed::make(deps, exchange, std::move(sink), false)->attach(id, 0);
  });
}

// The events from `wanted` on. A renderer that depends on earlier ones is fed from the start.
void answer_events(const Deps& deps, const ExchangePtr& exchange,
                   const Result<broker::RequestView>& view, Sequence wanted) {
  if (!view) return exchange->reply(view.error());
  with_echo(deps, exchange, *view, [&deps, exchange, view = *view, wanted](std::string echo) {
    const auto renderer = stream::make_renderer(shown_of(view, echo));
    const bool from_start = renderer != nullptr && renderer->needs_start();
    auto sink = make_events_sink(exchange, wanted, std::move(echo));
    Feed::make(deps, exchange, std::move(sink), false)->attach(view.id, from_start ? 0 : wanted);
  });
}

// The broker answers on its own thread; the rest happens on the exchange's loop, if the client is
// still there.
template <typename Next>
broker::Callback<broker::RequestView> on_loop(ExchangePtr exchange, Next next) {
  return [exchange = std::move(exchange), next](Result<broker::RequestView> view) {
    exchange->loop()->post([exchange, next, view = std::move(view)] {
      if (exchange->is_open()) next(view);
    });
  };
}

}  // namespace

Result<RequestId> request_id_of(const Request& request) {
  const auto id = RequestId::parse(request.params.at(0));
  if (!id) {
    return Error{Code::kNotFound,
                 "there is no request '" + utf8_prefix(request.params[0], 100) + "'"};
  }
  return *id;
}

std::string request_json(const broker::RequestView& view, const std::string& result,
                         const std::string& omitted) {
  std::string out = "{\"id\":\"" + view.id.to_string() + "\",\"object\":\"request\",\"state\":";
  append_json_string(out, stream::state_name(view.state));
  out += ",\"api\":";
  append_json_string(out, view.api.empty() ? "chat.completions" : view.api);
  out += ",\"model\":";
  append_json_string(out, view.model);
  out += ",\"conversation\":";
  append_text_or_null(out, view.conversation);
  out += std::string(",\"detached\":") + (view.detached ? "true" : "false");
  out += ",\"choices\":" + std::to_string(view.choices);
  out += ",\"priority\":" + std::to_string(view.priority);
  out += ",\"queue_position\":" + std::to_string(view.queue_position);
  out += ",\"accepted_at\":" + number_or_null(view.accepted_ms);
  out += ",\"first_token_at\":" + number_or_null(view.first_token_ms);
  out += ",\"ended_at\":" + number_or_null(view.ended_ms);
  out += ",\"events\":" + std::to_string(view.event_count) + ",\"finish_reason\":";
  append_text_or_null(out, view.finish_reason);
  out +=
      ",\"usage\":" + (stream::is_terminal(view.state) ? stream::usage_json(view.usage) : "null");
  out += ",\"error\":" + error_json(view);
  out += ",\"requeue_of\":" + id_or_null(view.requeue_of);
  out += ",\"requeued_as\":" + id_or_null(view.requeued_as);
  out += std::string(",\"discarded\":") + (view.discarded ? "true" : "false");
  out += std::string(",\"blocks_conversation\":") + (view.blocks_lane ? "true" : "false");
  out += ",\"attempts\":[";
  for (const auto& attempt : view.attempts) {
    if (&attempt != &view.attempts.front()) out += ",";
    append_attempt(out, attempt);
  }
  out += "],\"result\":" + (result.empty() ? "null" : result);
  if (!omitted.empty()) out += ",\"result_omitted\":" + message::json_string(omitted);
  out += "}";
  return out;
}

void handle_request(const Deps& deps, ExchangePtr exchange) {
  const auto id = request_id_of(exchange->request());
  if (!id) return exchange->reply(id.error());
  const auto next = [&deps, exchange](const Result<broker::RequestView>& view) {
    answer_view(deps, exchange, view);
  };
  const auto status = deps.api.get(exchange->request().tenant, *id, on_loop(exchange, next));
  if (!status) exchange->reply(status.error());
}

void handle_request_cancel(const Deps& deps, ExchangePtr exchange) {
  const auto id = request_id_of(exchange->request());
  if (!id) return exchange->reply(id.error());
  const auto next = [&deps, exchange](const Result<broker::RequestView>& view) {
    answer_view(deps, exchange, view);
  };
  const auto status = deps.api.cancel(exchange->request().tenant, *id, on_loop(exchange, next));
  if (!status) exchange->reply(status.error());
}

void handle_request_delete(const Deps& deps, ExchangePtr exchange) {
  const auto id = request_id_of(exchange->request());
  if (!id) return exchange->reply(id.error());
  exchange->set_request_id(id->to_string());
  const auto status = deps.api.erase(
      exchange->request().tenant, *id, value_on_loop<void>(exchange, [exchange, id = *id] {
        exchange->reply(Response{.body = "{\"id\":\"" + id.to_string() +
                                         "\",\"object\":\"request\",\"deleted\":true}"});
      }));
  if (!status) exchange->reply(status.error());
}

void handle_request_events(const Deps& deps, ExchangePtr exchange) {
  const auto id = request_id_of(exchange->request());
  if (!id) return exchange->reply(id.error());
  const auto from = first_wanted(exchange->request());
  if (!from) return exchange->reply(from.error());
  if (exchange->request().method == boost::beast::http::verb::head) {
    return exchange->reply(Response{.content_type = "text/event-stream; charset=utf-8"});
  }
  const auto next = [&deps, exchange, wanted = *from](const Result<broker::RequestView>& view) {
    answer_events(deps, exchange, view, wanted);
  };
  const auto status = deps.api.get(exchange->request().tenant, *id, on_loop(exchange, next));
  if (!status) exchange->reply(status.error());
}

}  // namespace waystation::front
