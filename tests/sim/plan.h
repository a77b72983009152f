// What a run will be like: drawn from its seed before it starts. Each kind of trouble is there in
// some runs only, and strong in some, so that many different mixes are seen.
#pragma once

#include <cstdint>

#include "broker/broker.h"
#include "sim/dice.h"
#include "sim/scheduler.h"

namespace waystation::sim {

struct Plan {
  // ---- The system
  // --------------------------------------------------------------------------------
  broker::Config config;
  std::uint64_t segment_bytes = 0;
  std::uint32_t answer_tokens = 0;
  std::uint32_t token_interval_ms = 0;
  std::uint32_t slots = 0;  // of a worker
  int workers_small = 0;    // workers of the model "small"; there is one of "large"

  // ---- The load
  // ----------------------------------------------------------------------------------
  int clients = 0;
  int calls = 0;  // of each client
  Micros think_max = 0;
  int lanes = 0;  // conversations of a tenant
  int keys = 0;   // idempotency keys of a tenant: few, so that they are used again

  // ---- The trouble: per cent, or how often a demon strikes
  // ---------------------------------------
  Micros chaos = 0;        // for how long
  Micros strike_max = 0;   // between two strikes
  Micros latency_max = 0;  // of the network
  Micros disk_max = 0;     // of one operation on the disk
  int kills = 0;           // weights of the strikes
  int power_cuts = 0;
  int clean_stops = 0;
  int crashes_in_disk = 0;  // at an operation of the file system
  int disk_faults = 0;
  int worker_crashes = 0;
  int worker_stalls = 0;
  int worker_leaves = 0;
  int cuts = 0;  // of a worker's connection
  int partitions = 0;
  int stale_replays = 0;  // outputs of an old fence are sent again in a newer session
  int clock_jumps = 0;
  int server_stalls = 0;
  int engine_failures = 0;  // per mille of the requests that a worker starts

  static Plan draw(Dice dice);
};

}  // namespace waystation::sim
