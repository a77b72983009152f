// One place for a worker: the real Worker with the scripted engine, in virtual time. Its process
// dies, hangs, leaves, and is started again.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "sim/network.h"
#include "sim/plan.h"
#include "worker/worker.h"

namespace waystation::sim {

// What workers have said lately, so that it can be said again when it is stale.
struct Said {
  struct Line {
    Life session;
    v1::Output output;
  };
  std::deque<Line> lines;
  void add(Life session, const v1::Output& output);
};

class WorkerProcess {
 public:
  // `said`: shared by all workers.
  WorkerProcess(Scheduler& scheduler, History& history, Network& network, const SimClock& clock,
                const Plan& plan, Dice dice, Said& said, std::string name, std::string model);
  ~WorkerProcess();

  void start();
  // `silently`: its machine is gone too, so the server hears nothing.
  void crash(bool silently);
  // Gets no time until then; longer than the lease, it is taken for lost.
  void stall(Micros duration);
  void leave();
  // Says again what was said in other sessions: as a worker would that didn't drop its work, or a
  // network that kept it.
  void replay_stale() { replay_ = true; }
  // No more engine failures.
  void calm() { engine_failures_ = 0; }

 private:
  class Tap;
  class FlakyEngine;

  void begin_session();
  void turn();
  void beat();
  void plan_turn(Micros delay);
  void end_session(const Status& how);
  void send_stale(link::WorkerTransport& transport);
  Micros frozen_until() const { return frozen_until_; }

  Scheduler& scheduler_;
  History& history_;
  Network& network_;
  const SimClock& clock_;
  const Plan& plan_;
  Dice dice_;
  Said& said_;
  const std::string name_;
  const std::string model_;
  int engine_failures_;

  // Of one process.
  Life life_ = 0;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<worker::Worker> worker_;
  link::WorkerEvents* events_ = nullptr;
  Life session_ = 0;  // 0: in none
  Micros frozen_until_ = 0;
  std::uint64_t turns_planned_ = 0;
  std::uint64_t beats_planned_ = 0;

  bool replay_ = false;
};

}  // namespace waystation::sim
