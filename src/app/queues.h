// People's queues, in DATA/queues: their journal, their station, and gRPC where it was asked for.
#pragma once

#include <memory>

#include "app/serve_options.h"
#include "base/clock.h"
#include "base/executor.h"
#include "base/meter.h"
#include "base/result.h"
#include "guard/keys.h"
#include "journal/file_system.h"
#include "journal/journal.h"
#include "queue/grpc/queue_server.h"
#include "queue/station.h"

namespace waystation::app {

// Destroyed after `background` has ended, which works for it, and what calls its station.
class Queues {
 public:
  ~Queues();  // stops
  // Recovers. kInvalidArgument: an address that others can reach, without API keys.
  static Result<std::unique_ptr<Queues>> open(const ServeOptions& options,
                                              journal::FileSystem& files, Executor& background,
                                              Clock& clock, Meter& meter,
                                              const guard::KeyFile* keys);

  queue::Station& station() { return *station_; }
  // Listens, if it was asked to.
  Status start();
  // Nothing more is taken or given.
  void stop();

 private:
  std::unique_ptr<queue::Station> station_;  // outlives its journal, which calls it
  std::unique_ptr<journal::Journal> journal_;
  std::unique_ptr<queue::QueueServer> server_;
};

}  // namespace waystation::app
