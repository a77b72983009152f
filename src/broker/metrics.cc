#include "broker/metrics.h"

namespace waystation::broker {
namespace {

Counter& ended(Meter& meter, const char* state) {
  return meter.counter("waystation_requests_ended_total", "Requests that ended, by state",
                       {{"state", state}});
}

Gauge& live(Meter& meter, const char* state) {
  return meter.gauge("waystation_requests", "Requests held now, by state", {{"state", state}});
}

}  // namespace

Metrics::Metrics(Meter& meter)
    : queued(live(meter, "queued")),
      running(live(meter, "running")),
      retained(live(meter, "ended")),
      open_letters(meter.gauge("waystation_dead_letters",
                               "Dead requests that were neither requeued nor discarded")),
      blocked_lanes(meter.gauge("waystation_lanes_blocked",
                                "Conversations that wait for their dead letter to be dealt with")),
      workers(meter.gauge("waystation_workers", "Workers joined now")),
      readers(meter.gauge("waystation_stream_readers", "Readers of streams now")),
      accepted(meter.counter("waystation_requests_accepted_total", "Requests accepted")),
      duplicates(meter.counter("waystation_requests_duplicate_total",
                               "Requests answered by an earlier one of the same Idempotency-Key")),
      refused(meter.counter("waystation_requests_refused_total", "Requests refused")),
      cache_hits(meter.counter("waystation_cache_hits_total",
                               "Requests answered by an earlier equal one, done or running")),
      cache_misses(
          meter.counter("waystation_cache_misses_total",
                        "Requests that might have been answered from the cache, and weren't")),
      completed(ended(meter, "completed")),
      failed(ended(meter, "failed")),
      cancelled(ended(meter, "cancelled")),
      expired(ended(meter, "expired")),
      dead(ended(meter, "dead")),
      tokens(meter.counter("waystation_tokens_total", "Tokens made durable and visible")),
      attempts_lost(meter.counter("waystation_attempts_lost_total",
                                  "Attempts that ended with their worker or by an engine's fault")),
      fenced(meter.counter("waystation_fenced_total",
                           "Outputs refused because their attempt was not the current one")),
      first_token_seconds(meter.histogram(
          "waystation_time_to_first_token_seconds", "From acceptance to the first visible token",
          {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60})),
      duration_seconds(
          meter.histogram("waystation_request_duration_seconds", "From acceptance to the end",
                          {0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900})) {}

}  // namespace waystation::broker
