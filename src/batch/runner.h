// Runs batches: files of requests that are answered when there is room, and whose answers make a
// file again.
//
//   validating  the lines are read and checked
//   in_progress each line is a request of low priority, at most `window` of them at a time. Its
//               idempotency key is the line's own, so a server that is killed and started again
//               submits lines that may have been accepted once more, and finds them: no line is
//               lost or answered twice. Outcomes go to the database as they come.
//   finalizing  the outcomes are put together, in the order of the lines, into an output file
//   (status
//               200) and an error file (all else)
//
// Everything is in the database and in the ledger; what the runner holds can be lost at any time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/meter.h"
#include "base/result.h"
#include "broker/api.h"
#include "message/batch.h"
#include "store/batches.h"
#include "store/bound_keys.h"
#include "store/database.h"
#include "store/files.h"

namespace waystation::batch {

struct RunnerOptions {
  std::size_t window = 64;      // lines in flight, of all batches together
  std::size_t active_max = 32;  // batches that are worked on at the same time; others wait
  std::size_t live_max = 100;   // batches of one tenant that haven't ended
  std::size_t lines_max = 50'000;
  std::size_t line_bytes_max = 4 << 20;
  std::size_t answer_bytes_max = 64 << 20;
  TimeMs completion_ms = 24LL * 3600 * 1000;  // what isn't done by then expires
  // After a start a model may not have joined yet: a line that asks for it waits so long.
  TimeMs model_grace_ms = 30'000;
  int backoff_min_ms = 100;  // after a refusal that will pass; doubles up to the maximum
  int backoff_max_ms = 5'000;
};

// Any thread, but for start and stop. It has work in the Database and callbacks in the broker:
// stop() it first, then those two, before it is destroyed.
class Runner {
 public:
  Runner(RunnerOptions options, broker::Api& api, store::Database& database, store::Files& files,
         const Clock& clock, Meter& meter);
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // Goes on with every batch that hasn't ended. Waits for the database.
  Status start();
  // Idempotent. What runs goes on after the next start.
  void stop();

  // kNotFound: no such input file; kInvalidArgument with `param`: an endpoint that can't be run in
  // a batch, a file of another purpose; kQueueFull: too many unended ones. With a key that was used
  // before it gives the batch of that time; kIdempotencyMismatch: for another body.
  Status create(std::string tenant, message::BatchRequest request, store::KeyUse use,
                store::Done<store::BatchRow> done);
  Status get(std::string tenant, std::string id, store::Done<store::BatchRow> done);
  Status list(std::string tenant, store::PageQuery query, store::Done<store::BatchPage> done);
  // Gives the batch as it is after it. A batch that is cancelled or being cancelled stays so;
  // kInvalidArgument: it has ended otherwise, or is about to.
  Status cancel(std::string tenant, std::string id, store::Done<store::BatchRow> done);

 private:
  class Loop;

  const RunnerOptions options_;
  store::Database& database_;
  store::Files& files_;
  const Clock& clock_;
  std::unique_ptr<Loop> loop_;
};

}  // namespace waystation::batch
