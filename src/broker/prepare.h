// From the body of an API call to a submission, for whoever accepts such bodies: the HTTP door, and
// the batch runner for the lines of its files. Pure.
//
//   auto prepared = prepare("/v1/chat/completions", body, options);
//   api.submit(prepared->submission with a reader, …);
//   prepared->identity.id = …, .accepted_ms = …;            // once it is accepted
//   auto collector = stream::make_collector(prepared->identity);
//   collector->add(each event); stream::status_and_body(collector->answer(ending));
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "broker/api.h"
#include "stream/render/renderer.h"

namespace waystation::broker {

// What is said of a request beside its body.
struct PrepareOptions {
  std::string tenant;
  std::string source = "/front";  // who made the envelope
  TimeMs now_ms = 0;              // wall
  std::string id;                 // a new UUIDv7; empty: the broker makes one
  std::string idempotency_key;
  std::string conversation;
  std::optional<bool> resumable;  // goes on when its client goes away; unless said: with a key
  TimeMs expiry_ms = 0;           // wall; 0: none
  std::optional<std::int32_t> priority;  // instead of the body's service_tier
  std::optional<bool> block_on_dead;     // as Submission's
  CacheUse cache = CacheUse::kNone;      // if the request turns out to be cacheable
  TimeMs cache_ttl_ms = 0;
  std::string traceparent;
  std::string tracestate;
  std::string hops;  // the servers that it has passed
};

struct Prepared {
  Submission submission;            // without a reader
  stream::RenderIdentity identity;  // but for id and accepted_ms
  bool stream = false;              // the body asked for a stream
};

// `endpoint`: "/v1/chat/completions", "/v1/completions", "/v1/embeddings"; "/v1/responses" for a
// response that stands alone (not stored, in no conversation). Any other one, or a body that its
// API refuses: kInvalidArgument with `param`.
Result<Prepared> prepare(std::string_view endpoint, std::string body,
                         const PrepareOptions& options);

// The endpoints that prepare() knows.
bool is_prepared_endpoint(std::string_view endpoint);

// Whether an answer may be kept for the next caller with the same words: greedy or with a seed, so
// that it would be the same again; and not a turn of a conversation.
bool is_cacheable(const Submission& submission);

}  // namespace waystation::broker
