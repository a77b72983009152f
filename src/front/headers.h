// Waystation's own request headers, on every POST that makes a request:
//   Idempotency-Key        1 to 255 printable characters: same key and body, same request
//   X-Conversation-Id      1 to 256 printable characters: a conversation's requests run one at a
//                          time, in order
//   X-Conversation-Memory  "true": the server knows the conversation's earlier turns
//   X-Resumable            "true": the request goes on when its client goes away; "false": it
//                          doesn't, even with an Idempotency-Key
//   X-Deadline-Ms          1 to 604800000, from now: later than that it ends as expired (504)
//   X-On-Dead              "block": should it die, its conversation waits until it is requeued or
//                          discarded; "skip": it goes on
//   Cache-Control          "no-cache": not answered from the cache; "no-store": not kept either
//   X-Cache-TTL            1 to 2592000 seconds: an answer older than this is not given again
//   traceparent, tracestate  W3C trace context, passed on
//   X-Waystation-Hops      ids of the servers whose upstream this one is, passed on; 508 when this
//                          one's is among them
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "broker/prepare.h"
#include "front/exchange.h"
#include "store/bound_keys.h"

namespace waystation::front {

struct Deps;

// A header's value; empty when it is absent. Present but empty is an error, since it would be a
// client's mistake that goes unnoticed. So is anything but printable ASCII.
Result<std::string> text_header(const Request& request, const char* name, std::size_t bytes_max);
Result<bool> flag_header(const Request& request, const char* name);

// The Idempotency-Key of a POST that makes something other than a request, with the fingerprint of
// `route` and the body. kInvalidArgument: a bad key, or a body that isn't JSON.
Result<store::KeyUse> read_key_use(const Request& request, std::string_view route);

// All of the above but X-Conversation-Memory. kInvalidArgument with `param` naming the header;
// kLoop.
Result<broker::PrepareOptions> read_prepare_options(const Deps& deps, const Request& request);

}  // namespace waystation::front
