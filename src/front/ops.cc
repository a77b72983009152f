// /healthz, /readyz, /metrics: for operators and their tools, without an API key.
#include "front/deps.h"
#include "front/handlers.h"
#include "message/json.h"
#include "queue/station.h"

namespace waystation::front {

// The process answers: that is all that liveness says.
void handle_healthz(const Deps&, ExchangePtr exchange) {
  exchange->reply(Response{.body = "{\"status\":\"ok\"}"});
}

void handle_readyz(const Deps& deps, ExchangePtr exchange) {
  const broker::Health health = deps.api.health();
  const Status queues =
      deps.parts.queues == nullptr ? Status() : deps.parts.queues->accepting();
  const bool is_ready = health.ready && !deps.draining && queues;
  Response response;
  response.status = is_ready ? 200 : 503;
  response.body = std::string("{\"status\":\"") + (is_ready ? "ready" : "not_ready") +
                  "\",\"accepting\":" + (health.accepting && !deps.draining ? "true" : "false");
  if (!is_ready) {
    std::string reason = health.reason;
    if (!queues) reason = queues.error().message;
    if (deps.draining) reason = "the server is shutting down";
    if (reason.empty()) reason = "no worker has joined yet";
    response.body += ",\"reason\":" + message::json_string(reason);
  }
  response.body += "}";
  exchange->reply(std::move(response));
}

void handle_metrics(const Deps& deps, ExchangePtr exchange) {
  Response response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  if (deps.render_metrics) response.body = deps.render_metrics();
  exchange->reply(std::move(response));
}

}  // namespace waystation::front
