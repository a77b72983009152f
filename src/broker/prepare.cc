#include "broker/prepare.h"

#include <array>
#include <utility>

#include "base/sha256.h"
#include "base/utf8.h"
#include "message/chat.h"
#include "message/completion.h"
#include "message/embedding.h"
#include "message/envelope.h"
#include "message/json.h"
#include "message/responses.h"

namespace waystation::broker {
namespace {

// What the body says, in the words that all APIs share.
struct Parsed {
  std::string model;
  message::Generation generation;
  bool base64 = false;
  bool is_deterministic = false;  // the same words would be answered the same again
};

Parsed parsed_of(std::string model, message::Generation generation) {
  const bool is_deterministic = generation.temperature == 0 || generation.seed.has_value();
  return {std::move(model), std::move(generation), false, is_deterministic};
}

Result<Parsed> parse_chat(std::string_view body) {
  auto request = message::parse_chat_request(body);
  if (!request) return request.error();
  return parsed_of(std::move(request->model), std::move(*request));
}

Result<Parsed> parse_completion(std::string_view body) {
  auto request = message::parse_completion_request(body);
  if (!request) return request.error();
  return parsed_of(std::move(request->model), std::move(*request));
}

Result<Parsed> parse_embedding(std::string_view body) {
  auto request = message::parse_embedding_request(body);
  if (!request) return request.error();
  return Parsed{std::move(request->model), {}, request->base64, true};
}

struct Row {
  std::string_view endpoint;
  std::string_view api;
  std::string_view type;
  Result<Parsed> (*parse)(std::string_view body);
};

constexpr std::array kRows{
    Row{"/v1/chat/completions", "chat.completions", message::kChatRequestType, parse_chat},
    Row{"/v1/completions", "completions", message::kCompletionRequestType, parse_completion},
    Row{"/v1/embeddings", "embeddings", message::kEmbeddingRequestType, parse_embedding},
};

constexpr const char* kResponses = "/v1/responses";

const Row* row_of(std::string_view endpoint) {
  for (const Row& row : kRows) {
    if (row.endpoint == endpoint) return &row;
  }
  return nullptr;
}

std::int32_t priority_of(std::string_view service_tier) {
  if (service_tier == "flex") return -1;
  return service_tier == "priority" ? 1 : 0;
}

// The words of the request, without what changes no byte of its answer but for the stream's usage.
Result<std::string> cache_key(const Row& row, const PrepareOptions& options,
                              const std::string& body, bool include_usage) {
  auto canonical =
      message::canonical_json(body, {"stream", "stream_options", "user", "metadata", "store",
                                     "service_tier", "safety_identifier", "prompt_cache_key",
                                     "prompt_cache_options", "prompt_cache_retention"});
  if (!canonical) return canonical.error();
  // Lengths keep one part from reaching into the next.
  std::string words = std::to_string(options.tenant.size()) + ":" + options.tenant + "\n";
  words += row.api;
  words += include_usage ? "\nusage\n" : "\nplain\n";
  return sha256(words + *canonical);
}

v1::Envelope make_envelope(const Row& row, const PrepareOptions& options, std::string model) {
  v1::Envelope envelope;
  envelope.set_id(options.id);
  envelope.set_source(options.source);
  envelope.set_specversion(std::string(message::kSpecVersion));
  envelope.set_type(std::string(row.type));
  envelope.set_api(std::string(row.api));
  envelope.set_time_ms(options.now_ms);
  envelope.set_datacontenttype("application/json");
  envelope.set_partitionkey(options.conversation);
  envelope.set_idempotencykey(options.idempotency_key);
  envelope.set_expirytime_ms(options.expiry_ms);
  envelope.set_tenant(options.tenant);
  envelope.set_traceparent(options.traceparent);
  envelope.set_tracestate(options.tracestate);
  envelope.set_hops(options.hops);
  envelope.set_model(std::move(model));
  return envelope;
}

// A body that says store: true is refused, so one that says nothing means false. Of two members of
// one name the last counts.
std::string without_storing(const std::string& body) {
  const std::size_t open = body.find('{');
  const std::size_t next =
      open == std::string::npos ? open : body.find_first_not_of(" \t\r\n", open + 1);
  if (next == std::string::npos || body[next] != '"') return body;
  return body.substr(0, open + 1) + "\"store\":false," + body.substr(open + 1);
}

// A response that stands alone: nothing is kept of it but the request, so it can't be asked for by
// its id, and it goes on from none.
Result<Prepared> prepare_response(const std::string& body, const PrepareOptions& options) {
  const auto alone = [](const char* param, const char* must) {
    return Error{Code::kInvalidArgument,
                 std::string(param) + " must be " + must + " here, where responses aren't stored",
                 param};
  };
  const auto id = RequestId::parse(options.id).value_or(RequestId{});
  auto request = message::parse_response_request(without_storing(body), id);
  if (!request) return request.error();
  if (request->store) return alone("store", "false");
  if (request->background) return alone("background", "false");
  if (!request->previous_response_id.empty()) return alone("previous_response_id", "left out");
  if (!request->conversation.empty()) return alone("conversation", "left out");
  auto chat = message::response_chat_body(*request, {});
  if (!chat) return chat.error();
  PrepareOptions uncached = options;
  uncached.cache = CacheUse::kNone;  // a response is a thing of its own, with an id
  auto out = prepare("/v1/chat/completions", std::move(*chat), uncached);
  if (!out) return message::as_response_error(out.error());
  auto canonical = message::canonical_json(body);
  if (!canonical) return canonical.error();
  v1::Envelope& envelope = out->submission.envelope;
  envelope.set_api("responses");
  envelope.set_fingerprint(sha256(std::string("POST ") + kResponses + "\n" + *canonical));
  envelope.clear_cachekey();
  out->identity.api = "responses";
  out->identity.echo = std::move(request->parameters);
  out->stream = request->stream;
  return out;
}

}  // namespace

Result<Prepared> prepare(std::string_view endpoint, std::string body,
                         const PrepareOptions& options) {
  if (endpoint == kResponses) return prepare_response(body, options);
  const Row* row = row_of(endpoint);
  if (row == nullptr) {
    return Error{Code::kInvalidArgument,
                 "the endpoint '" + utf8_prefix(endpoint, 100) + "' takes no requests", "url"};
  }
  auto parsed = row->parse(body);
  if (!parsed) return parsed.error();
  auto canonical = message::canonical_json(body);
  if (!canonical) return canonical.error();

  Prepared out;
  Submission& submission = out.submission;
  submission.envelope = make_envelope(*row, options, parsed->model);
  submission.envelope.set_fingerprint(sha256("POST " + std::string(endpoint) + "\n" + *canonical));
  submission.envelope.set_priority(
      options.priority.value_or(priority_of(parsed->generation.service_tier)));
  submission.detached = options.resumable.value_or(!options.idempotency_key.empty());
  submission.stream_usage = parsed->generation.include_usage;
  submission.choices = parsed->generation.choices;
  submission.block_on_dead = options.block_on_dead;
  if (parsed->is_deterministic && options.conversation.empty()) {
    auto key = cache_key(*row, options, body, submission.stream_usage);
    if (!key) return key.error();
    submission.envelope.set_cachekey(std::move(*key));
    submission.cache = options.cache;
    submission.cache_ttl_ms = options.cache_ttl_ms;
  }
  submission.envelope.set_data(std::move(body));

  out.stream = parsed->generation.stream;
  out.identity.api = row->api;
  out.identity.model = std::move(parsed->model);
  out.identity.choices = submission.choices;
  out.identity.priority = submission.envelope.priority();
  out.identity.include_usage = submission.stream_usage;
  out.identity.numbered = submission.detached;
  out.identity.base64 = parsed->base64;
  return out;
}

bool is_prepared_endpoint(std::string_view endpoint) {
  return row_of(endpoint) != nullptr || endpoint == kResponses;
}

bool is_cacheable(const Submission& submission) {
  return !submission.envelope.cachekey().empty();
}

}  // namespace waystation::broker
