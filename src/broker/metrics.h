// What the broker counts. Names are part of the contract (docs/metrics.md).
#pragma once

#include "base/meter.h"

namespace waystation::broker {

struct Metrics {
  explicit Metrics(Meter& meter);

  Gauge& queued;
  Gauge& running;
  Gauge& retained;
  Gauge& open_letters;
  Gauge& blocked_lanes;
  Gauge& workers;
  Gauge& readers;
  Counter& accepted;
  Counter& duplicates;
  Counter& refused;
  Counter& cache_hits;
  Counter& cache_misses;
  Counter& completed;
  Counter& failed;
  Counter& cancelled;
  Counter& expired;
  Counter& dead;
  Counter& tokens;
  Counter& attempts_lost;
  Counter& fenced;
  Histogram& first_token_seconds;
  Histogram& duration_seconds;
};

}  // namespace waystation::broker
