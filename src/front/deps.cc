#include "front/deps.h"

namespace waystation::front {
namespace {

std::size_t answer_index(unsigned status) {
  if (status >= 500) return 2;
  return status >= 400 ? 1 : 0;
}

}  // namespace

Deps::Deps(const Options& options_in, broker::Api& api_in, const guard::KeyFile* keys_in,
           std::function<std::string()> render_metrics_in, Clock& clock_in, Meter& meter_in,
           Parts parts_in)
    : options(options_in),
      api(api_in),
      keys(keys_in),
      render_metrics(std::move(render_metrics_in)),
      clock(clock_in),
      parts(std::move(parts_in)),
      router(make_router()),
      first_event_seconds(meter_in.histogram(
          "waystation_http_first_event_seconds",
          "From the receipt of a chat request to its first event, as the front door sees it.",
          {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60})),
      connections_gauge_(meter_in.gauge("waystation_http_connections", "Open HTTP connections.")) {
  const auto add = [&](const Route* route) {
    const std::string name = route == nullptr ? "none" : route->pattern;
    const std::string method =
        route == nullptr ? "any" : std::string(boost::beast::http::to_string(route->method));
    for (const int status_class : {2, 4, 5}) {  // in answer_index's order
      answers_[route].push_back(&meter_in.counter(
          "waystation_http_answers_total", "HTTP answers by route and class of status.",
          {{"route", name}, {"method", method}, {"status", std::to_string(status_class) + "xx"}}));
    }
  };
  add(nullptr);
  for (const Route& route : router.routes()) add(&route);
}

void Deps::count_answer(const Route* route, unsigned status) const {
  answers_.at(route)[answer_index(status)]->add();
}

void Deps::connections_changed(int change) {
  connections_gauge_.set(connections.fetch_add(change) + change);
  if (change < 0) connections.notify_all();
}

}  // namespace waystation::front
