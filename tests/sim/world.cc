#include "sim/world.h"

#include <functional>
#include <utility>

#include "sim/disk_image.h"
#include "sim/reader.h"

namespace waystation::sim {
namespace {

constexpr Micros kCalmMax = 120 * kSecond;  // enough for whatever was accepted
constexpr Micros kReckoningMax = 20 * kSecond;

enum Strike {
  kKill,
  kPowerCut,
  kCleanStop,
  kCrashInDisk,
  kDiskFault,
  kWorkerCrash,
  kWorkerStall,
  kWorkerLeave,
  kCut,
  kPartition,
  kStaleReplay,
  kClockJump,
  kServerStall,
  kStrikes
};

}  // namespace

World::World(std::uint64_t seed, RunOptions options)
    : plan_(Plan::draw(Dice(seed))),
      options_(options),
      scheduler_(Dice(seed ^ 0x5eed)),
      history_(scheduler_, options.trace),
      dice_(seed ^ 0xd1ce),
      clock_(scheduler_),
      checker_(history_, plan_.config.limits, plan_.answer_tokens),
      disk_(scheduler_, history_, dice_.fork(), plan_.disk_max,
            [this] { server_dies(dice_.percent(50) ? Death::kKilled : Death::kPowerCut); }),
      network_(scheduler_, history_, dice_.fork(), plan_.latency_max),
      server_(scheduler_, history_, checker_, disk_, network_, clock_, plan_, dice_.fork(),
              [this] { server_dies(Death::kStopped); }),
      image_dice_(dice_.fork()) {
  disk_.on_change([this] { examine_power_cuts(); });
  for (int i = 0; i <= plan_.workers_small; ++i) {
    workers_.push_back(std::make_unique<WorkerProcess>(
        scheduler_, history_, network_, clock_, plan_, dice_.fork(), said_,
        "worker " + std::to_string(i), i == 0 ? "large" : "small"));
  }
  for (int i = 0; i < plan_.clients; ++i) {
    clients_.push_back(std::make_unique<Client>(scheduler_, history_, checker_, server_, clock_,
                                                plan_, dice_.fork(), i));
  }
}

// A run may end anywhere. Whatever is still queued is not to be written, and nobody to be told.
World::~World() {
  disk_.set_dead();
  server_.bury(true);
}

Outcome World::run() {
  start_server();
  for (auto& worker : workers_) worker->start();
  for (auto& client : clients_) client->start();
  plan_strike();
  run_until(plan_.chaos);
  calm();
  reckoning();
  std::uint64_t requeued = 0;
  for (const auto& [raw, entry] : checker_.book().entries()) requeued += entry.requeued != 0;
  return {.violation = history_.violation(),
          .history_hash = history_.hash(),
          .steps = scheduler_.steps(),
          .records = checker_.book().size(),
          .requests = checker_.book().entries().size(),
          .requeued = requeued,
          .changes = changes_,
          .restarts = restarts_,
          .last_lines = {history_.recent().begin(), history_.recent().end()}};
}

bool World::step(Micros limit) {
  if (history_.violation()) return false;
  const bool more = scheduler_.step(limit);
  if (death_ != Death::kNone) bury_server();
  return more;
}

void World::run_until(Micros limit) {
  while (step(limit)) {
  }
}

bool World::run_while_not(const std::function<bool()>& condition, Micros limit) {
  const Micros end = scheduler_.now() + limit;
  while (!condition()) {
    if (!step(end)) return condition();
  }
  return true;
}

// ---- The three parts of a run
// --------------------------------------------------------------------

void World::calm() {
  if (history_.violation()) return;
  history_.note("world: calm from here on");
  calm_ = true;
  disk_.calm();
  network_.calm(2 * kMs);
  for (auto& worker : workers_) worker->calm();
  for (auto& client : clients_) client->calm();
  if (server_.up() && server_.failed()) server_dies(Death::kKilled);
  const auto all_done = [this] {
    for (const auto& client : clients_) {
      if (!client->done()) return false;
    }
    for (const auto& [raw, entry] : checker_.book().entries()) {
      if (entry.live() || (entry.blocks() && !entry.gone())) return false;
    }
    return true;
  };
  if (run_while_not(all_done, kCalmMax) || history_.violation()) return;
  checker_.at_end();
  for (const auto& client : clients_) {
    if (!client->done()) history_.violated("I1", client->waits_for() + " waits for ever");
  }
}

void World::reckoning() {
  if (history_.violation()) return;
  history_.note("world: reckoning");
  run_while_not([this] { return server_.up(); }, kReckoningMax);
  const int before = restarts_;
  server_.stop();
  run_while_not([&] { return restarts_ > before && server_.up(); }, kReckoningMax);
  struct Judge final : JudgingReader {
    using JudgingReader::JudgingReader;
    void on_end(const stream::Ending& ending) override {
      JudgingReader::on_end(ending);
      over = true;
    }
    bool over = false;
  };
  std::vector<std::shared_ptr<Judge>> readers;
  for (const auto& [raw, entry] : checker_.book().entries()) {
    if (entry.gone()) continue;
    auto reader = std::make_shared<Judge>(checker_, history_, "reckoning " + short_name(entry.id),
                                          entry.id, 0);
    readers.push_back(reader);
    const Status taken = server_.broker().attach(
        entry.tenant, entry.id, 0, reader, [this, entry, reader](Result<broker::RequestView> view) {
          if (view) return checker_.saw_view(entry.tenant, *view, false);
          checker_.saw_no_request(entry.tenant, entry.id, view.error());
          reader->over = true;
        });
    if (!taken) history_.violated("I10", "the reckoning finds a full inbox");
    server_.poke();
    const bool read = run_while_not([&] { return reader->over; }, kReckoningMax);
    if (history_.violation()) return;
    if (!read && !checker_.book().find(entry.id)->gone()) {
      history_.violated("I2", short_name(entry.id) + " can't be read to its end any more");
    }
  }
  checker_.at_end();
}

// ---- The server's lives
// --------------------------------------------------------------------------

void World::start_server() {
  if (server_.start()) return;
  server_dies(disk_.dead() && dice_.percent(50) ? Death::kPowerCut : Death::kKilled);
}

// It is buried when the task that is running has returned; until then it can do no more harm.
void World::server_dies(Death death) {
  if (death_ != Death::kNone) return;
  death_ = death;
  if (death != Death::kStopped) disk_.set_dead();
  scheduler_.interrupt();
}

void World::bury_server() {
  scheduler_.resume();
  history_.note(death_ == Death::kPowerCut ? "server: loses power"
                : death_ == Death::kKilled ? "server: is killed"
                                           : "server: has stopped");
  server_.bury(death_ == Death::kPowerCut && dice_.percent(50));
  for (auto& client : clients_) client->server_died();
  // One that stops may still die while it writes its closing mark.
  if (death_ == Death::kStopped && disk_.dead() && dice_.percent(50)) death_ = Death::kPowerCut;
  death_ == Death::kPowerCut ? disk_.after_power_cut() : disk_.after_kill();
  death_ = Death::kNone;
  if (image_dice_.percent(30)) {
    i9_bit_flip(disk_.files(), checker_, plan_, history_, image_dice_);
  }
  ++restarts_;
  scheduler_.after(dice_.between(1, 300) * kMs, kWorldLife, [this] { start_server(); });
}

// ---- The demon
// -----------------------------------------------------------------------------------

// The exhaustive cut: what would be left, were the machine to lose power right now?
void World::examine_power_cuts() {
  ++changes_;
  for (int i = 0; i < options_.power_cuts_a_change && !history_.violation(); ++i) {
    i9_power_cut(disk_.files(), checker_, plan_, history_, image_dice_);
  }
}

void World::plan_strike() {
  scheduler_.after(dice_.between(1, plan_.strike_max), kWorldLife, [this] {
    if (calm_) return;
    if (server_.up() && server_.failed() && dice_.percent(50)) {
      server_dies(Death::kKilled);  // somebody saw that it accepts nothing
    } else {
      strike();
    }
    plan_strike();
  });
}

void World::strike() {
  const int weights[kStrikes] = {plan_.kills,           plan_.power_cuts,    plan_.clean_stops,
                                 plan_.crashes_in_disk, plan_.disk_faults,   plan_.worker_crashes,
                                 plan_.worker_stalls,   plan_.worker_leaves, plan_.cuts,
                                 plan_.partitions,      plan_.stale_replays, plan_.clock_jumps,
                                 plan_.server_stalls};
  int sum = 0;
  for (const int weight : weights) sum += weight;
  if (sum == 0) return;
  std::int64_t dart = dice_.between(1, sum);
  int kind = 0;
  while ((dart -= weights[kind]) > 0) ++kind;
  switch (kind) {
    case kKill:
      if (server_.up()) server_dies(Death::kKilled);
      return;
    case kPowerCut:
      if (server_.up()) server_dies(Death::kPowerCut);
      return;
    case kCleanStop:
      if (server_.up()) server_.stop();
      return;
    case kCrashInDisk:
      return disk_.die_at(static_cast<int>(dice_.between(1, 40)));
    case kDiskFault:
      return disk_.fail_at(static_cast<int>(dice_.between(1, 40)));
    case kCut:
      return network_.cut_one();
    case kPartition:
      return network_.partition_one(dice_.between(10, 1500) * kMs);
    case kClockJump:
      return clock_.jump_ms(dice_.between(-3000, 3000));
    case kServerStall:
      return server_.stall(dice_.between(50, 1500) * kMs);
    default:
      return strike_workers(kind);
  }
}

void World::strike_workers(int kind) {
  WorkerProcess& worker = *dice_.pick(workers_);
  switch (kind) {
    case kWorkerCrash:
      return worker.crash(dice_.percent(40));
    case kWorkerStall:
      return worker.stall(dice_.between(50, 1500) * kMs);
    case kWorkerLeave:
      return worker.leave();
    default:
      return worker.replay_stale();
  }
}

}  // namespace waystation::sim
