// The bodies of HTTP requests, read as the routes' handlers read them.
//
//   input   a letter for the route (kRoutes; any other one is taken modulo their number), then the
//           body
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "broker/prepare.h"
#include "fuzz/fuzz.h"
#include "message/batch.h"
#include "message/json.h"
#include "message/openai.h"
#include "message/responses.h"
#include "queue/json.h"

namespace waystation::fuzz {
namespace {

constexpr TimeMs kNowMs = 1'800'000'000'000;

RequestId some_id() {
  return RequestId::make(kNowMs, 1, 2);
}

void require_json(std::string_view text) {
  REQUIRE(message::canonical_json(text), text);
}

// The document in the one spelling that is compared.
std::string canonical(std::string_view text) {
  const auto spelled = message::canonical_json(text);
  REQUIRE(spelled, text);
  return *spelled;
}

// A refusal can be said, and is the client's fault.
void require_refusal(const Error& error) {
  require_sayable(error);
  REQUIRE(http_status(error.code) >= 400 && http_status(error.code) < 500, error.message);
  require_json(message::openai_error_body(error));
}

// Its answer is text in JSON; the same document gives it again in its canonical spelling.
template <typename Read>
void check_json_body(std::string_view body, Read read) {
  const Result<std::string> once = read(body);
  if (!once) return require_refusal(once.error());
  const std::string spelled = canonical(body.empty() ? "{}" : body);
  REQUIRE(canonical(spelled) == spelled, spelled);
  const Result<std::string> again = read(spelled);
  REQUIRE(again, again.error().message);
  REQUIRE(*again == *once, *once + "\n" + *again);
}

// ---- Requests -----------------------------------------------------------------------------------

Result<std::string> prepared(std::string_view endpoint, std::string_view body) {
  broker::PrepareOptions options;
  options.tenant = "acme";
  options.now_ms = kNowMs;
  options.id = some_id().to_string();
  options.cache = broker::CacheUse::kFull;
  auto out = broker::prepare(endpoint, std::string(body), options);
  if (!out) return out.error();
  v1::Envelope& envelope = out->submission.envelope;
  REQUIRE(envelope.IsInitialized() && !envelope.model().empty(), "an envelope without a model");
  REQUIRE(envelope.fingerprint().size() == 32, "no fingerprint");
  REQUIRE(out->submission.choices >= 1, "no choices");
  v1::Envelope stored;
  REQUIRE(stored.ParseFromString(envelope.SerializeAsString()), "it can't be stored");
  envelope.clear_data();
  return envelope.SerializeAsString() + std::to_string(out->submission.choices) +
         (out->stream ? "s" : "") + canonical("{" + out->identity.echo + "}");
}

void check_chat(std::string_view body) {
  check_json_body(body, [](auto text) { return prepared("/v1/chat/completions", text); });
  if (const auto items = message::items_of_chat(body, some_id())) {
    REQUIRE(message::parse_stored_items(message::items_json(*items)), "items can't be stored");
  }
}
void check_completion(std::string_view body) {
  check_json_body(body, [](auto text) { return prepared("/v1/completions", text); });
}
void check_embedding(std::string_view body) {
  check_json_body(body, [](auto text) { return prepared("/v1/embeddings", text); });
}

// Items are stored and read back as they were.
void require_stored(const std::vector<message::Item>& items) {
  const std::string stored = message::items_json(items);
  require_json(stored);
  const auto again = message::parse_stored_items(stored);
  REQUIRE(again, stored);
  REQUIRE(message::items_json(*again) == stored, stored);
}

// A response that is stored: its own items and parameters, then the chat that a model hears.
Result<std::string> response(std::string_view body) {
  const auto request = message::parse_response_request(body, some_id());
  if (!request) return request.error();
  bool has_reference = false;
  std::vector<message::Item> own;
  for (const message::Item& item : request->input) {
    if (item.type == "item_reference") {
      has_reference = true;
    } else {
      own.push_back(item);
    }
  }
  require_stored(own);
  const std::string out =
      canonical("{" + request->parameters + "}") + canonical(message::items_json(own));
  if (has_reference) return out;
  const auto chat = message::response_chat_body(*request, {});
  if (!chat) return chat.error();
  const auto ready = prepared("/v1/chat/completions", *chat);
  if (!ready) return message::as_response_error(ready.error());
  return out + *ready;
}

void check_response(std::string_view body) {
  check_json_body(body, response);
  check_json_body(body, [](auto text) { return prepared("/v1/responses", text); });
}

void check_conversation(std::string_view body) {
  check_json_body(body, [](std::string_view text) -> Result<std::string> {
    const auto metadata = message::parse_metadata(text);
    if (!metadata) return metadata.error();
    return canonical(*metadata);
  });
  check_json_body(body, [](std::string_view text) -> Result<std::string> {
    auto items = message::parse_items_member(text, "items", some_id());
    if (!items) return items.error();
    std::erase_if(*items, [](const auto& item) { return item.type == "item_reference"; });
    require_stored(*items);
    const auto messages = message::chat_messages(*items, "be brief", true);
    if (!messages) {
      require_refusal(messages.error());
    } else {
      require_json(*messages);
    }
    return canonical(message::items_json(*items));
  });
}

// ---- Batches ------------------------------------------------------------------------------------

void check_batch(std::string_view body) {
  check_json_body(body, [](std::string_view text) -> Result<std::string> {
    const auto batch = message::parse_batch_request(text);
    if (!batch) return batch.error();
    return batch->input_file_id + "|" + batch->endpoint + "|" +
           canonical(batch->metadata.empty() ? "{}" : batch->metadata) + "|" +
           std::to_string(batch->output_expires_after_s.value_or(0));
  });
}

void check_batch_lines(std::string_view body) {
  Input lines(body);
  while (!lines.empty()) {
    const auto line = message::parse_batch_line(lines.line(), "/v1/chat/completions");
    if (!line) {
      const message::BatchLineError& error = line.error();
      REQUIRE(!error.code.empty() && !error.message.empty(), error.message);
      REQUIRE(is_utf8(error.message) && is_utf8(error.param), error.message);
      continue;
    }
    require_json(line->body);
    const auto ready = prepared("/v1/chat/completions", line->body);
    if (!ready) require_refusal(ready.error());
  }
}

// ---- Queues -------------------------------------------------------------------------------------

// What is published is what a consumer is given, over HTTP too, and what the journal keeps.
std::string require_published(const queue::Publication& publication) {
  const queue::PayloadPtr& payload = publication.payload;
  REQUIRE(payload && payload->count() > 0, "nothing to publish");
  REQUIRE(publication.options.size() <= 1 || publication.options.size() == payload->count(),
          "options that belong to no message");
  queue::Taken taken{.lease = 1, .messages = payload->count()};
  taken.pieces.push_back(
      {.first = 1, .count = static_cast<std::uint32_t>(payload->count()), .payload = payload});
  require_json(queue::taken_json(taken));
  std::vector<std::string_view> messages;
  for (std::size_t i = 0; i < payload->count(); ++i) messages.push_back(payload->message(i));
  const auto same = queue::Payload::of(messages);
  REQUIRE(same && (*same)->bytes() == payload->bytes(), "another payload");
  std::string record = queue::encode_published("", "", publication.options, *payload);
  queue::place_published(record, queue::QueueId{1}, 1, kNowMs);
  const auto read = queue::decode(record);
  REQUIRE(read, read.error().message);
  const auto& stored = std::get<queue::Published>(read->body);
  REQUIRE(stored.payload->bytes() == payload->bytes(), "another payload is stored");
  REQUIRE(stored.options == publication.options, "other options are stored");
  return record;
}

void check_publish(std::string_view body) {
  // Not by its canonical spelling: a payload is the client's bytes as they came.
  const auto publication = queue::parse_message(body, kNowMs);
  if (!publication) return require_refusal(publication.error());
  require_published(*publication);
  // One message is the same as one line.
  std::string line(body);
  for (char& c : line) c = c == '\n' || c == '\r' ? ' ' : c;
  const auto one = queue::parse_messages(line, kNowMs);
  REQUIRE(one, one.error().message);
  REQUIRE(require_published(*one) == require_published(*publication), line);
}

void check_publish_lines(std::string_view body) {
  const auto publication = queue::parse_messages(body, kNowMs);
  if (!publication) return require_refusal(publication.error());
  require_published(*publication);
  const auto again = queue::parse_messages(std::string(body) + "\r\n\n", kNowMs);
  REQUIRE(again && require_published(*again) == require_published(*publication), "blank lines");
}

void check_lease(std::string_view body) {
  const auto request = queue::parse_lease(body);
  if (!request) return require_refusal(request.error());
  REQUIRE(request->how.window >= 1 && request->how.window <= 1000, "window");
  REQUIRE(request->wait_ms >= 0 && request->how.lease_ms >= 0, "a negative time");
}

void check_settle(std::string_view body) {
  for (const auto action : {queue::Action::kAck, queue::Action::kNack, queue::Action::kExtend,
                            queue::Action::kTerminate}) {
    const auto settle = queue::parse_settle(action, body);
    if (!settle) {
      require_refusal(settle.error());
      continue;
    }
    REQUIRE(settle->lease > 0 && settle->ms >= 0, "no lease");
    for (std::size_t i = 0; i < settle->ranges.size(); ++i) {
      const queue::Range& range = settle->ranges[i];
      REQUIRE(range.first > 0 && range.count > 0 && range.end() > range.first, "a bad range");
      if (i > 0) REQUIRE(settle->ranges[i - 1].first <= range.first, "ranges out of order");
    }
  }
}

void check_dead_letters(std::string_view body) {
  if (const auto ids = queue::parse_ids(body); !ids) require_refusal(ids.error());
}

void check_settings(std::string_view body) {
  queue::Settings settings;
  if (const Status status = queue::parse_settings(body, settings); !status) {
    require_refusal(status.error());
    REQUIRE(settings == queue::Settings{}, "refused, and changed all the same");
    return;
  }
  REQUIRE(settings.attempts_max >= 1 && settings.lease_ms >= 1, "settings that can't work");
  queue::QueueInfo info;
  info.name = "q";
  info.settings = settings;
  require_json(queue::info_json(info, kNowMs));
}

struct Route {
  char letter;
  void (*check)(std::string_view body);
};
constexpr std::array kRoutes{
    Route{'c', check_chat},           // POST /v1/chat/completions
    Route{'t', check_completion},     // POST /v1/completions
    Route{'e', check_embedding},      // POST /v1/embeddings
    Route{'r', check_response},       // POST /v1/responses
    Route{'i', check_conversation},   // POST /v1/conversations, …/{id}, …/{id}/items
    Route{'b', check_batch},          // POST /v1/batches
    Route{'l', check_batch_lines},    // the lines of a batch's file
    Route{'p', check_publish},        // POST /v1/queues/{name}/messages, one message
    Route{'n', check_publish_lines},  // the same, a line each
    Route{'a', check_lease},          // POST …/leases
    Route{'s', check_settle},         // POST …/ack, nack, extend, terminate
    Route{'d', check_dead_letters},   // POST …/dead_letters/requeue, discard
    Route{'q', check_settings},       // PUT /v1/queues/{name}
};

const Route& route_of(std::uint8_t letter) {
  for (const Route& route : kRoutes) {
    if (route.letter == static_cast<char>(letter)) return route;
  }
  return kRoutes[letter % kRoutes.size()];
}

}  // namespace
}  // namespace waystation::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waystation::fuzz;
  be_quiet();
  Input input(data, size);
  const std::uint8_t letter = input.u8();
  route_of(letter).check(input.rest());
  return 0;
}
