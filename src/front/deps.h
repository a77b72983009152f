// What handlers and connections need of the rest of the server. One for the whole front door; it
// outlives every loop.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/meter.h"
#include "broker/api.h"
#include "front/options.h"
#include "front/parts.h"
#include "front/router.h"
#include "guard/keys.h"

namespace waystation::front {

struct Deps {
  Deps(const Options& options_in, broker::Api& api_in, const guard::KeyFile* keys_in,
       std::function<std::string()> render_metrics_in, Clock& clock_in, Meter& meter_in,
       Parts parts_in = {});

  // Counts an answer of `route` (null: none matched).
  void count_answer(const Route* route, unsigned status) const;
  // Open connections changed by `change`.
  void connections_changed(int change);

  const Options options;
  broker::Api& api;
  const guard::KeyFile* const keys;  // null: every caller is the default tenant
  const std::function<std::string()> render_metrics;
  Clock& clock;
  const Parts parts;
  const Router router;

  std::atomic<int> connections{0};
  std::atomic<bool> draining{false};  // answers close their connections

  Histogram& first_event_seconds;  // from a chat request's receipt to its first event

 private:
  Gauge& connections_gauge_;
  std::map<const Route*, std::vector<Counter*>> answers_;  // 2xx, 4xx, 5xx
};

}  // namespace waystation::front
