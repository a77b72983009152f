// A run: one server on one disk, its workers and its clients, and a demon that troubles them; all
// of it a function of the seed.
//
//   chaos      the demon strikes, clients come and go
//   calm       no more trouble: everything that was accepted must end, every client be answered
//   reckoning  a restart; every request is read again from its first event, and compared
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sim/checker.h"
#include "sim/client.h"
#include "sim/disk.h"
#include "sim/network.h"
#include "sim/plan.h"
#include "sim/server.h"
#include "sim/worker_process.h"

namespace waystation::sim {

struct Outcome {
  std::optional<Violation> violation;
  std::uint64_t history_hash = 0;
  std::uint64_t steps = 0;
  std::uint64_t records = 0;
  std::uint64_t requests = 0;
  std::uint64_t requeued = 0;
  std::uint64_t changes = 0;  // of the disk
  int restarts = 0;
  std::vector<std::string> last_lines;
};

struct RunOptions {
  bool trace = false;
  // At each change of the disk so many copies of it lose power in different ways, and are examined.
  int power_cuts_a_change = 0;
};

class World {
 public:
  World(std::uint64_t seed, RunOptions options);
  ~World();
  Outcome run();

 private:
  enum class Death { kNone, kKilled, kPowerCut, kStopped };

  void calm();
  void reckoning();
  void run_until(Micros limit);
  // Runs until `condition` holds. False: it didn't within `limit`.
  bool run_while_not(const std::function<bool()>& condition, Micros limit);
  bool step(Micros limit);

  void start_server();
  void server_dies(Death death);
  void bury_server();
  void plan_strike();
  void strike();
  void strike_workers(int kind);
  void examine_power_cuts();

  const Plan plan_;
  const RunOptions options_;
  Scheduler scheduler_;
  History history_;
  Dice dice_;
  SimClock clock_;
  Checker checker_;
  Disk disk_;
  Network network_;
  Server server_;
  Said said_;
  std::vector<std::unique_ptr<WorkerProcess>> workers_;
  std::vector<std::unique_ptr<Client>> clients_;
  bool calm_ = false;
  Death death_ = Death::kNone;
  int restarts_ = 0;
  std::uint64_t changes_ = 0;
  Dice image_dice_;
};

}  // namespace waystation::sim
