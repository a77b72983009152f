// What the handlers of responses and conversations share.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "front/exchange.h"
#include "front/sink.h"
#include "memory/memory.h"

namespace waystation::front {

struct Deps;

// The part that keeps them; kUnavailable when this server has none.
Result<memory::Memory*> memory_of(const Deps& deps);

// ?limit (1 to 100, otherwise 20), ?order (asc or desc, otherwise desc), ?after.
Result<store::PageQuery> item_page_query(const Request& request);
Response item_page(const store::ItemPage& page);

// A response object as it stands.
std::string response_json(const memory::Found& found);
stream::RenderIdentity shown_response(const store::ResponseRow& row);

// The stream of a response, which opens at once. `skip`: frames that the client has seen.
// `is_stored`: the response can be read without its stream, so a refusal means that the events are
// past their retention.
std::unique_ptr<Sink> make_response_stream_sink(ExchangePtr exchange, stream::RenderIdentity shown,
                                                std::uint64_t skip, bool is_stored);

}  // namespace waystation::front
