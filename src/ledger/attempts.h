// What several attempts at one answer add up to. Pure; for the ledger's own sources.
#pragma once

#include <string>

#include "ledger/request.h"

namespace waystation::ledger {

// Adds what an event says of the tokens used.
void add_usage(const v1::Event& event, v1::Usage& usage);

// The tokens of the whole answer, when the worker that ends it has counted those of its own
// attempt. What it went on from was in its prompt; the client's prompt is that of the first
// attempt.
v1::Usage usage_of_all(const Request& request, v1::Usage usage);

// Who broke the answer off that its present worker can't go on from, and how; a client that sees
// the error asks for this first. Empty: nobody did.
std::string what_broke(const Request& request);

}  // namespace waystation::ledger
