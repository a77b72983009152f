// One server: the real broker on the real journal, in virtual time. It is started and killed again
// and again on the same disk; each life is a new process.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/meter.h"
#include "broker/broker.h"
#include "journal/file_journal.h"
#include "sim/checker.h"
#include "sim/disk.h"
#include "sim/network.h"
#include "sim/plan.h"

namespace waystation::sim {

inline constexpr const char* kJournalFolder = "/journal";

class Server final : public ServerPort {
 public:
  // `on_stopped`: it has ended as told by stop(), and is to be buried.
  Server(Scheduler& scheduler, History& history, Checker& checker, Disk& disk, Network& network,
         SimClock& clock, const Plan& plan, Dice dice, std::function<void()> on_stopped);
  ~Server() override;

  // Recovers what the disk holds, and serves. False: it couldn't; bury() it and try again.
  bool start();
  bool up() const { return up_; }
  // Destroys what is left of it. Not from one of its own tasks.
  void bury(bool silently);
  // The way of SIGTERM: no new work, then the end.
  void stop();
  bool stopping() const { return stopping_; }
  // Its thread gets no time until then.
  void stall(Micros duration);
  // It can't write any more: a restart is wanted.
  bool failed() const { return failed_; }

  broker::Broker& broker() { return *broker_; }

  link::ServerEvents& events() override { return *broker_; }
  bool has_room() const override { return posted_ < plan_.config.inbox_max / 2; }
  void poke() override;

 private:
  class JournalThread;
  class Background;
  class TurnComposer;
  class RecordedJournal;

  Result<std::unique_ptr<journal::FileJournal>> open_journal();
  void turn();
  void wait_drained(Micros deadline);

  Scheduler& scheduler_;
  History& history_;
  Checker& checker_;
  Disk& disk_;
  Network& network_;
  SimClock& clock_;
  const Plan& plan_;
  Dice dice_;
  const std::function<void()> on_stopped_;
  const std::unique_ptr<Meter> meter_ = make_null_meter();

  // Of one life.
  Life life_ = 0;
  bool up_ = false;
  bool failed_ = false;
  bool stopping_ = false;
  bool turn_soon_ = false;
  std::uint64_t turns_planned_ = 0;
  std::size_t posted_ = 0;  // to the inbox, since the last turn
  Micros stalled_until_ = 0;
  std::unique_ptr<Background> background_;
  std::unique_ptr<TurnComposer> composer_;
  std::unique_ptr<broker::Broker> broker_;
  std::unique_ptr<JournalThread> journal_thread_;
  std::unique_ptr<RecordedJournal> journal_;
};

}  // namespace waystation::sim
