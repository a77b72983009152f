// What a request must pass before a handler sees it: the name it calls the server by, the route,
// the form of its body, the web page that sent it, the API key. Pure, but for the keys it asks.
#pragma once

#include <optional>
#include <string_view>

#include "front/deps.h"
#include "front/exchange.h"

namespace waystation::front {

struct Admission {
  const Route* route = nullptr;         // null: none matched
  std::optional<Response> answer = {};  // the request ends with this: refused, or a preflight
};

// Fills in the request's params and tenant.
Admission admit(const Deps& deps, Request& request);

// Whether a Host header names this machine by a loopback address, as localhost, or by a name that
// was allowed. A header that isn't there does.
bool is_own_host(const Options& options, std::string_view host);

// Whether web pages of this origin may use the server.
bool origin_allowed(const Options& options, std::string_view origin);

}  // namespace waystation::front
