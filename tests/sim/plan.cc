#include "sim/plan.h"

namespace waystation::sim {
namespace {

void draw_system(Plan& plan, Dice& dice) {
  plan.segment_bytes = dice.percent(70) ? static_cast<std::uint64_t>(dice.between(2, 6)) << 10
                                        : static_cast<std::uint64_t>(dice.between(8, 64)) << 10;
  plan.answer_tokens = static_cast<std::uint32_t>(dice.between(3, 12));
  plan.token_interval_ms = dice.percent(15) ? 0 : static_cast<std::uint32_t>(dice.between(1, 40));
  plan.slots = static_cast<std::uint32_t>(dice.between(1, 4));
  plan.workers_small = static_cast<int>(dice.between(1, 3));

  broker::Config& config = plan.config;
  config.link.heartbeat_ms = 100;
  config.link.lease_ms = 400;
  config.expected_models = {"small", "large"};
  if (dice.percent(40)) config.fallbacks["large"] = {"small"};
  config.block_on_dead = dice.percent(30);
  if (dice.percent(30)) {  // many dead letters
    config.limits.attempts_max = static_cast<std::uint32_t>(dice.between(1, 2));
    plan.engine_failures = static_cast<int>(dice.between(50, 300));
  }
  config.orphan_wait_ms = dice.between(200, 1500);
  config.inbox_max = 256;
  config.checkpoint_records = 20 * plan.slots;
  config.callers_help = dice.percent(50);
  if (dice.percent(40))
    config.hub_bytes_max = dice.percent(50) ? 0 : 2048;  // so that readers come from the disk
  if (dice.percent(30)) {                                // full queues
    config.limits.live_requests_max = static_cast<std::size_t>(dice.between(2, 6));
    config.limits.lane_requests_max = static_cast<std::size_t>(dice.between(1, 3));
  }
  if (dice.percent(30)) {  // requests are forgotten
    config.limits.idempotency_ttl_ms = dice.between(300, 3000);
    config.limits.retain_ms = dice.between(300, 3000);
  }
  if (dice.percent(30)) {  // the journal is full
    config.journal_bytes_max = static_cast<std::uint64_t>(dice.between(4, 12)) * plan.segment_bytes;
    if (dice.percent(50)) config.limits.idempotency_ttl_ms = dice.between(300, 3000);
  }
}

void draw_load(Plan& plan, Dice& dice) {
  plan.clients = static_cast<int>(dice.between(2, 6));
  plan.calls = static_cast<int>(dice.between(3, 12));
  plan.think_max = dice.between(5, 400) * kMs;
  plan.lanes = static_cast<int>(dice.between(1, 3));
  plan.keys = static_cast<int>(dice.between(1, 8));
}

}  // namespace

Plan Plan::draw(Dice dice) {
  Plan plan;
  draw_system(plan, dice);
  draw_load(plan, dice);
  plan.chaos = dice.between(1, 6) * kSecond;
  plan.strike_max = dice.between(30, 800) * kMs;
  plan.latency_max = dice.percent(50) ? 2 * kMs : dice.between(1, 60) * kMs;
  plan.disk_max = dice.percent(50) ? 2 * kMs : dice.between(1, 100) * kMs;
  const auto maybe = [&](int weight) { return dice.percent(50) ? weight : 0; };
  plan.kills = maybe(4);
  plan.power_cuts = maybe(6);
  plan.clean_stops = maybe(2);
  plan.crashes_in_disk = maybe(6);
  plan.disk_faults = maybe(4);
  plan.worker_crashes = maybe(4);
  plan.worker_stalls = maybe(4);
  plan.worker_leaves = maybe(3);
  plan.cuts = maybe(4);
  plan.partitions = maybe(4);
  plan.stale_replays = maybe(6);
  plan.clock_jumps = maybe(2);
  plan.server_stalls = maybe(2);
  if (dice.percent(30)) plan.engine_failures = static_cast<int>(dice.between(5, 200));
  return plan;
}

}  // namespace waystation::sim
