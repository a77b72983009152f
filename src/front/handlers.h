// The handlers of all routes; one source file a family. Each runs on its connection's loop.
#pragma once

#include "front/exchange.h"

namespace waystation::front {

struct Deps;

// chat.cc
void handle_chat(const Deps& deps, ExchangePtr exchange);

// models.cc
void handle_models(const Deps& deps, ExchangePtr exchange);
void handle_model(const Deps& deps, ExchangePtr exchange);

// requests.cc
void handle_request(const Deps& deps, ExchangePtr exchange);
void handle_request_events(const Deps& deps, ExchangePtr exchange);
void handle_request_cancel(const Deps& deps, ExchangePtr exchange);

// ops.cc
void handle_healthz(const Deps& deps, ExchangePtr exchange);
void handle_readyz(const Deps& deps, ExchangePtr exchange);
void handle_metrics(const Deps& deps, ExchangePtr exchange);

}  // namespace waystation::front
