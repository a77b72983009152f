// The disk of the simulated server: loses what wasn't synced (journal/faulty_file_system.h), takes
// its time, fails, and is where a server can be made to die in the middle of an operation.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "journal/faulty_file_system.h"
#include "sim/dice.h"
#include "sim/history.h"
#include "sim/scheduler.h"

namespace waystation::sim {

class Disk {
 public:
  using Fs = journal::FaultyFileSystem;
  // `on_death`: the server died in the middle of an operation.
  Disk(Scheduler& scheduler, History& history, Dice dice, Micros slowness,
       std::function<void()> on_death);

  Fs& files() { return *files_; }

  // While the journal's own thread is at work its operations take time, in which others run.
  void set_writing(bool writing) { writing_ = writing; }
  // Called before each operation that changes something.
  void on_change(std::function<void()> hook) { on_change_ = std::move(hook); }
  // The server dies at the n-th operation from now.
  void die_at(int operations) { die_at_ = operations; }
  // The n-th operation from now that changes something fails, or is done by half.
  void fail_at(int operations) { fail_at_ = operations; }
  // The server is dead: nothing that it still tries has an effect.
  void set_dead() { dead_ = true; }
  // The checker reads: no operation is counted, slow, or fails.
  void set_observed(bool observed) { observed_ = observed; }
  bool dead() const { return dead_; }

  // What a restart finds. The server's objects must be gone by then.
  void after_kill();
  void after_power_cut();
  // No more trouble from here on.
  void calm();

 private:
  std::optional<Fs::Fault> before(Fs::Op op, const std::string& path);
  void i8_not_tried_again(Fs::Op op, const std::string& path);

  Scheduler& scheduler_;
  History& history_;
  Dice dice_;
  Micros slowness_;
  const std::function<void()> on_death_;
  std::function<void()> on_change_;
  std::unique_ptr<Fs> files_;
  bool writing_ = false;
  bool dead_ = false;
  bool observed_ = false;
  int die_at_ = 0;
  int fail_at_ = 0;
  std::set<std::string> failed_;  // segments that this server failed to write
};

}  // namespace waystation::sim
