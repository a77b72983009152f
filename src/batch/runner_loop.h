// What the runner's thread owns: the batches it works on, and their lines in flight. For this
// folder's sources only.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/mailbox.h"
#include "batch/line_file.h"
#include "batch/runner.h"
#include "broker/prepare.h"
#include "stream/render/renderer.h"

namespace waystation::batch {

// The way to the runner's thread. It outlives the thread, so a late callback of the broker or the
// database finds it closed. What is sent is bounded by what was asked for.
using Inbox = Mailbox<std::move_only_function<void()>>;
using InboxPtr = std::shared_ptr<Inbox>;

struct Job;

// A line on its way.
struct Flight {
  enum class State {
    kWaiting,     // was refused, and is submitted again when its job goes on
    kSubmitting,  // the broker hasn't said yet
    kRunning,
    kSaving,   // its outcome is on the way to the database
    kUnsaved,  // the database refused it: once more when its job goes on
  };

  Job* job = nullptr;  // null: dropped, whatever comes of it is ignored
  Line line;
  State state = State::kWaiting;
  // Of the last submission: what comes of an earlier one is ignored.
  std::uint64_t serial = 0;
  // The idempotency key's: past its lifetime a key can't be used again, the next one can.
  unsigned key_round = 0;
  std::optional<RequestId> id;
  std::shared_ptr<stream::Reader> reader;
  std::unique_ptr<stream::Collector> collector;
  stream::RenderIdentity identity;
  Sequence next = 0;  // event
  store::LineResult result;
};
using FlightPtr = std::shared_ptr<Flight>;

// The output and error files of a batch while they are written.
struct Assembly {
  std::optional<LineFile> input;
  std::optional<Line> line;  // the next one; nullopt before the first and after the last
  store::UploadPtr output, errors;
  std::uint64_t completed = 0, failed = 0, unfinished = 0;
  std::vector<store::LineResult> results;  // the next ones
  std::size_t taken = 0;                   // of results
  std::uint64_t last = 0;                  // line of the last result that was taken
  bool has_all = false;                    // the database has no further ones
};

// A batch that is worked on.
struct Job {
  enum class Phase { kLoading, kValidating, kRunning, kStopping, kFinalizing, kOver };

  std::string id;
  store::BatchRow row;  // as it was when it was loaded; counts are not kept up
  Phase phase = Phase::kLoading;
  bool cancelling = false;
  bool is_validated = false;
  std::int64_t resume_us = 0;  // nothing is tried before
  int backoff_ms = 0;
  bool has_failed_step = false;  // the phase's step has to be tried again
  std::uint64_t generation = 0;  // of the phase's step: what comes of an earlier one is ignored

  std::optional<LineFile> input;
  bool exhausted = false;     // every line was taken from the input
  std::vector<bool> is_done;  // by line number
  std::map<std::uint64_t, FlightPtr> flights;

  std::unordered_set<std::string> custom_ids;  // while validating
  std::vector<std::string> errors;
  std::uint64_t lines = 0;
  std::string model;
  bool same_model = true;

  std::optional<Assembly> assembly;
};

class Runner::Loop {
 public:
  Loop(const RunnerOptions& options, broker::Api& api, store::Database& database,
       store::Files& files, const Clock& clock, Meter& meter);
  ~Loop() { stop(); }

  void start(std::vector<std::string> unended);
  void stop();
  const InboxPtr& inbox() const { return inbox_; }

  // From here on: the runner's thread.
  void add(std::string id);
  void cancel(const std::string& id);

 private:
  void run();
  std::int64_t now_us() const { return clock_.steady_us(); }
  std::chrono::milliseconds until_due() const;
  void tick();
  void activate();
  void resume(Job& job);
  void back_off(Job& job, int at_least_ms);
  void finish(Job& job);
  // Posts to the database; the outcome comes back to this thread, if the job is still at this step.
  template <typename T>
  void ask(Job& job, store::Work<T> work, std::function<void(Job&, Result<T>)> then);

  // validation.cc
  void load(Job& job);
  void begin(Job& job, const std::vector<store::LineResult>& lines);
  Result<LineFile> open_input(const Job& job);
  void fail_step(Job& job, const Error& error);
  void go_on(Job& job, void (Loop::*step)(Job&));
  void begin_validation(Job& job);
  void validate_some(Job& job);
  void check_line(Job& job, const Line& line, const std::string& text);
  void add_error(Job& job, std::optional<std::uint64_t> line, const message::BatchLineError& error);
  void end_validation(Job& job);
  void refuse_input(Job& job);
  void stop_job(Job& job);

  // flights.cc
  void pump();
  Status ensure_input(Job& job);
  bool take_line(Job& job);
  void submit(const FlightPtr& flight);
  void on_submitted(const FlightPtr& flight, std::uint64_t serial,
                    Result<broker::Submitted> result);
  void attach(const FlightPtr& flight);
  void on_block(const FlightPtr& flight, std::uint64_t serial, const stream::BlockPtr& block);
  void on_end(const FlightPtr& flight, std::uint64_t serial, const stream::Ending& ending);
  void try_again(const FlightPtr& flight, const Error& why);
  void answer(const FlightPtr& flight, const Error& error);
  void on_lagging(const FlightPtr& flight, std::uint64_t serial);
  void on_interrupted(const FlightPtr& flight, std::uint64_t serial, const Error& error);
  bool is_current(const FlightPtr& flight, std::uint64_t serial) const;
  void cancel_request(const Job& job, RequestId id);
  void save(const FlightPtr& flight);
  void on_saved(const FlightPtr& flight, const Result<bool>& saved);
  void drop(const FlightPtr& flight);
  void set_state(Flight& flight, Flight::State state);
  void after_line(Job& job);

  // assembly.cc
  void finalize(Job& job);
  void begin_assembly(Job& job);
  void assemble_some(Job& job);
  Result<bool> write_lines(Job& job);
  Status write_line(Job& job, const store::LineResult* result);
  void end_assembly(Job& job);

  class LineReader;

  const RunnerOptions& options_;
  broker::Api& api_;
  store::Database& database_;
  store::Files& files_;
  const Clock& clock_;
  const std::int64_t started_us_;
  const InboxPtr inbox_;

  std::list<Job> jobs_;               // in the order in which they take lines
  std::vector<std::string> waiting_;  // ids of batches that aren't active yet, the oldest first
  std::size_t busy_ = 0;              // flights that aren't waiting
  std::uint64_t serials_ = 0;

  Counter& lines_completed_;
  Counter& lines_failed_;
  Gauge& active_;
  std::thread thread_;
};

}  // namespace waystation::batch
