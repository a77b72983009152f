// What outlives requests, in DATA/store: files, batches, responses, conversations; and who keeps it in
// step with the ledger. Opened before the broker, started once the broker runs, stopped in two steps
// around the broker's end.
#pragma once

#include <memory>

#include "app/serve_options.h"
#include "base/clock.h"
#include "base/executor.h"
#include "base/meter.h"
#include "base/result.h"
#include "batch/runner.h"
#include "broker/api.h"
#include "front/parts.h"
#include "memory/memory.h"
#include "store/database.h"
#include "store/files.h"

namespace waystation::app {

// Destroyed after the broker's loop and the front door have ended.
class ApplicationData {
 public:
  // `disk` outlives it.
  static Result<ApplicationData> open(const ServeOptions& options, Executor& disk, Clock& clock);
  ~ApplicationData();
  ApplicationData(ApplicationData&&) noexcept;
  ApplicationData& operator=(ApplicationData&&) = delete;

  broker::Composer& composer() { return *memory_; }

  // The broker's loop runs. Takes up what an earlier server left.
  Status start(broker::Api& api, const Clock& clock, Meter& meter);
  // What the front door needs of it; valid as long as this is.
  front::Parts parts();

  // Before the broker's loop ends: no batch line is submitted any more.
  void stop_batches();
  // After it: what is queued is written, the database closed.
  void stop_store();

 private:
  ApplicationData();

  batch::RunnerOptions runner_options_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<store::Files> files_;
  std::unique_ptr<memory::Memory> memory_;
  std::unique_ptr<batch::Runner> batches_;
};

}  // namespace waystation::app
