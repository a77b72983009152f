// POST /v1/responses and what can be done with a response afterwards: read it whole or as a stream,
// cancel it, delete it, list its input. The headers of headers.h apply to the POST, but for
// X-Conversation-Memory, which is the parameter `conversation` here.
#include <charconv>

#include "base/sha256.h"
#include "base/utf8.h"
#include "broker/prepare.h"
#include "front/deps.h"
#include "front/feed.h"
#include "front/handlers.h"
#include "front/headers.h"
#include "front/on_loop.h"
#include "front/stored.h"
#include "message/json.h"
#include "message/responses.h"
#include "stream/render/responses_renderer.h"

namespace waystation::front {
namespace {

using memory::Context;
using memory::Found;
using memory::Memory;

// A request that is ready to be submitted.
struct Ready {
  broker::Submission submission;
  stream::RenderIdentity shown;
  std::optional<store::ResponseRow> row;  // what the store keeps of it
  bool stream = false;
  bool background = false;
};

store::ResponseRow row_of(const message::ResponseRequest& request, const std::string& tenant,
                          RequestId id) {
  store::ResponseRow row;
  row.id = id;
  row.tenant = tenant;
  row.created_ms = id.time_ms();
  row.api = "responses";
  row.model = request.model;
  row.conversation = request.conversation;
  row.previous = message::parse_response_id(request.previous_response_id);
  row.visible = request.store;
  row.background = request.background;
  row.parameters = request.parameters;
  row.instructions = request.instructions;
  row.input = message::items_json(request.input);
  return row;
}

Result<Ready> make_ready(const Request& http, broker::PrepareOptions options, Context context,
                         RequestId id, bool refuse_busy) {
  message::ResponseRequest& request = context.request;
  const bool is_turn = !request.conversation.empty();
  if (is_turn && !options.conversation.empty() && options.conversation != request.conversation) {
    return Error{Code::kInvalidArgument,
                 "the header X-Conversation-Id names another conversation than the body",
                 "conversation"};
  }
  if (is_turn) options.conversation = request.conversation;
  options.id = id.to_string();
  options.source = "/front/responses";
  options.cache = broker::CacheUse::kNone;  // a response is a thing of its own, with an id
  auto body = message::response_chat_body(request, context.earlier);
  if (!body) return body.error();
  auto prepared = broker::prepare("/v1/chat/completions", std::move(*body), options);
  if (!prepared) return message::as_response_error(prepared.error());
  auto canonical = message::canonical_json(http.body);
  if (!canonical) return canonical.error();

  Ready ready;
  ready.submission = std::move(prepared->submission);
  v1::Envelope& envelope = ready.submission.envelope;
  envelope.set_api("responses");
  envelope.set_fingerprint(sha256("POST /v1/responses\n" + *canonical));
  envelope.clear_cachekey();
  ready.submission.detached |= request.background;
  ready.submission.compose = is_turn;
  ready.submission.locked = is_turn && refuse_busy;
  if (request.store || is_turn) ready.row = row_of(request, http.tenant, id);
  ready.stream = request.stream;
  ready.background = request.background;
  ready.shown = std::move(prepared->identity);
  ready.shown.id = id;
  ready.shown.api = "responses";
  ready.shown.echo = std::move(request.parameters);
  return ready;
}

// Answers at once; nobody reads along.
void begin_in_background(const ExchangePtr& exchange, Memory* memory, Ready ready) {
  auto shown = std::make_shared<stream::RenderIdentity>(std::move(ready.shown));
  auto done = value_on_loop<broker::Submitted>(
      exchange, [exchange, memory, shown](const broker::Submitted& submitted) {
        exchange->set_request_id(submitted.id.to_string());
        if (!submitted.duplicate) {
          return exchange->reply(
              Response{.body = stream::ResponsesRenderer(*shown).response_so_far("queued")});
        }
        auto status = memory->find(exchange->request().tenant, submitted.id,
                                   value_on_loop<Found>(exchange, [exchange](const Found& found) {
                                     exchange->reply(Response{.body = response_json(found)});
                                   }));
        if (!status) exchange->reply(status.error());
      });
  auto status = memory->submit(std::move(*ready.row), std::move(ready.submission), std::move(done));
  if (!status) exchange->reply(status.error());
}

void begin(const Deps& deps, ExchangePtr exchange, Memory* memory, Result<Ready> ready) {
  if (!ready) return exchange->reply(ready.error());
  if (ready->background && !ready->stream) {
    return begin_in_background(exchange, memory, std::move(*ready));
  }
  std::unique_ptr<Sink> sink;
  if (ready->background) {
    sink = make_response_stream_sink(exchange, std::move(ready->shown), 0, false);
  } else if (ready->stream) {
    sink = make_stream_sink(exchange, std::move(ready->shown));
  } else {
    sink = make_answer_sink(exchange, std::move(ready->shown), deps.options.answer_bytes_max);
  }
  Feed::Submit how;
  if (ready->row) {
    how = [memory, row = std::move(*ready->row)](broker::Submission submission,
                                                 broker::Callback<broker::Submitted> done) {
      return memory->submit(row, std::move(submission), std::move(done));
    };
  }
  auto feed = Feed::make(deps, std::move(exchange), std::move(sink), true);
  feed->submit(std::move(ready->submission), how);
}

bool has_history(const message::ResponseRequest& request) {
  if (!request.previous_response_id.empty() || !request.conversation.empty()) return true;
  for (const message::Item& item : request.input) {
    if (item.type == "item_reference") return true;
  }
  return false;
}

Result<RequestId> response_id_of(const Request& request) {
  const auto id = message::parse_response_id(request.params.at(0));
  if (!id) {
    return Error{Code::kNotFound,
                 "there is no response '" + utf8_prefix(request.params[0], 100) + "'",
                 "response_id"};
  }
  return *id;
}

// Calls `call(memory, tenant, id)`, whose error is the answer.
template <typename Call>
void with_response(const Deps& deps, const ExchangePtr& exchange, Call call) {
  const auto memory = memory_of(deps);
  if (!memory) return exchange->reply(memory.error());
  const auto id = response_id_of(exchange->request());
  if (!id) return exchange->reply(id.error());
  exchange->set_request_id(id->to_string());
  const Status status = call(**memory, exchange->request().tenant, *id);
  if (!status) exchange->reply(status.error());
}

broker::Callback<Found> answer_with(ExchangePtr exchange) {
  return value_on_loop<Found>(exchange, [exchange](const Found& found) {
    exchange->reply(Response{.body = response_json(found)});
  });
}

// How many frames the client has seen.
Result<std::uint64_t> frames_seen(const Request& request) {
  const auto after = request.query_value("starting_after");
  if (!after) return std::uint64_t{0};
  std::uint64_t number = 0;
  const auto [end, ec] = std::from_chars(after->data(), after->data() + after->size(), number);
  if (after->empty() || ec != std::errc() || end != after->data() + after->size() ||
      number > std::uint64_t{1} << 62) {
    return Error{Code::kInvalidArgument,
                 "starting_after must be the sequence_number of the last event seen",
                 "starting_after"};
  }
  return number + 1;
}

void stream_response(const Deps& deps, const ExchangePtr& exchange, const Found& found,
                     std::uint64_t skip) {
  auto sink = make_response_stream_sink(exchange, shown_response(found.row), skip, true);
  Feed::make(deps, exchange, std::move(sink), false)->attach(found.row.id, 0);
}

}  // namespace

void handle_responses_create(const Deps& deps, ExchangePtr exchange) {
  const Request& http = exchange->request();
  const auto memory = memory_of(deps);
  if (!memory) return exchange->reply(memory.error());
  auto options = read_prepare_options(deps, http);
  if (!options) return exchange->reply(options.error());
  const auto is_turn = flag_header(http, "X-Conversation-Memory");
  if (!is_turn) return exchange->reply(is_turn.error());
  if (*is_turn) {
    return exchange->reply(Error{Code::kInvalidArgument,
                                 "X-Conversation-Memory is for chat completions; name the "
                                 "conversation in the parameter 'conversation'",
                                 "X-Conversation-Memory"});
  }
  const RequestId id = (*memory)->new_id();
  auto request = message::parse_response_request(http.body, id);
  if (!request) return exchange->reply(request.error());
  const auto go_on = [&deps, exchange, memory = *memory, options = std::move(*options),
                      id](Context context) {
    begin(deps, exchange, memory,
          make_ready(exchange->request(), options, std::move(context), id, memory->refuses_busy()));
  };
  if (!has_history(*request)) return go_on(Context{std::move(*request), {}});
  const Status status =
      (*memory)->prepare(http.tenant, std::move(*request), value_on_loop<Context>(exchange, go_on));
  if (!status) exchange->reply(status.error());
}

void handle_response(const Deps& deps, ExchangePtr exchange) {
  const std::string stream = exchange->request().query_value("stream").value_or("false");
  if (stream != "true" && stream != "false") {
    return exchange->reply(Error{Code::kInvalidArgument, "stream must be true or false", "stream"});
  }
  const auto skip = frames_seen(exchange->request());
  if (!skip) return exchange->reply(skip.error());
  with_response(deps, exchange, [&](Memory& memory, const std::string& tenant, RequestId id) {
    if (stream == "false") return memory.find(tenant, id, answer_with(exchange));
    return memory.find(tenant, id,
                       value_on_loop<Found>(exchange, [&deps, exchange, skip = *skip](Found found) {
                         stream_response(deps, exchange, found, skip);
                       }));
  });
}

void handle_response_cancel(const Deps& deps, ExchangePtr exchange) {
  with_response(deps, exchange, [&](Memory& memory, const std::string& tenant, RequestId id) {
    return memory.cancel(tenant, id, answer_with(exchange));
  });
}

void handle_response_delete(const Deps& deps, ExchangePtr exchange) {
  with_response(deps, exchange, [&](Memory& memory, const std::string& tenant, RequestId id) {
    return memory.remove(
        tenant, id, value_on_loop<void>(exchange, [exchange, id] {
          exchange->reply(Response{.body = "{\"id\":\"" + message::response_id(id) +
                                           "\",\"object\":\"response\","
                                           "\"deleted\":true}"});
        }));
  });
}

void handle_response_input_items(const Deps& deps, ExchangePtr exchange) {
  const auto wanted = item_page_query(exchange->request());
  if (!wanted) return exchange->reply(wanted.error());
  with_response(deps, exchange, [&](Memory& memory, const std::string& tenant, RequestId id) {
    return memory.find(
        tenant, id,
        value_on_loop<Found>(exchange, [exchange, wanted = *wanted](const Found& found) {
          const auto items = message::parse_stored_items(found.row.input);
          if (!items) return exchange->reply(items.error());
          const auto page = store::page_of(*items, wanted);
          if (!page) return exchange->reply(page.error());
          exchange->reply(item_page(*page));
        }));
  });
}

}  // namespace waystation::front
