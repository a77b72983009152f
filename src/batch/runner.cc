#include "batch/runner.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "base/thread_name.h"
#include "base/utf8.h"
#include "batch/runner_loop.h"

namespace waystation::batch {

using store::BatchRow;
using store::BatchStatus;
using store::Sql;

Runner::Runner(RunnerOptions options, broker::Api& api, store::Database& database,
               store::Files& files, const Clock& clock, Meter& meter)
    : options_(options),
      database_(database),
      files_(files),
      clock_(clock),
      loop_(std::make_unique<Loop>(options_, api, database, files, clock, meter)) {}

Runner::~Runner() = default;

Status Runner::start() {
  auto unended = database_.call<std::vector<std::string>>(
      [](Sql& sql) { return store::unended_batches(sql); });
  if (!unended) return unended.error();
  if (!unended->empty()) WS_LOG(info, "batches go on count={}", unended->size());
  loop_->start(std::move(*unended));
  return {};
}

void Runner::stop() {
  loop_->stop();
}

namespace {

struct Made {
  BatchRow row;
  bool is_new = true;  // else: an earlier one, of the same key
};

// In a transaction: the batch `row`, with its input.
Result<Made> make_batch(Sql& sql, const store::Files& files, BatchRow row, const store::KeyUse& use,
                        std::size_t live_max) {
  auto bound = store::find_bound(sql, row.tenant, use, row.created_ms);
  if (!bound) return bound.error();
  if (*bound) {
    auto earlier = store::find_batch(sql, &row.tenant, **bound);
    if (!earlier) return earlier.error();
    return Made{std::move(*earlier), false};
  }
  auto input = files.get_in(sql, row.tenant, row.input_file_id);
  if (!input) {
    Error error = input.error();
    if (error.code == Code::kNotFound) error.param = "input_file_id";
    return error;
  }
  if (input->purpose != "batch") {
    return Error{
        Code::kInvalidArgument,
        "the input file must be uploaded with the purpose 'batch', not '" + input->purpose + "'",
        "input_file_id"};
  }
  row.input_hash = input->hash;
  if (Status s = store::insert_batch(sql, files, row, live_max); !s) return s.error();
  if (Status s = store::bind_key(sql, row.tenant, use, row.id, row.created_ms); !s) {
    return s.error();
  }
  auto made = store::find_batch(sql, nullptr, row.id);
  if (!made) return made.error();
  return Made{std::move(*made)};
}

}  // namespace

Status Runner::create(std::string tenant, message::BatchRequest request, store::KeyUse use,
                      store::Done<BatchRow> done) {
  if (!broker::is_prepared_endpoint(request.endpoint)) {
    return Error{Code::kInvalidArgument,
                 "batches can't be run for '" + utf8_prefix(request.endpoint, 100) +
                     "'; they can for /v1/chat/completions, /v1/completions, /v1/embeddings "
                     "and /v1/responses",
                 "endpoint"};
  }
  BatchRow row;
  row.id = store::make_object_id("batch_");
  row.tenant = std::move(tenant);
  row.endpoint = std::move(request.endpoint);
  row.input_file_id = std::move(request.input_file_id);
  row.completion_window = std::move(request.completion_window);
  row.metadata = std::move(request.metadata);
  row.output_expires_after_s = request.output_expires_after_s;
  row.created_ms = clock_.wall_ms();
  row.expires_ms = row.created_ms + options_.completion_ms;
  return database_.post<Made>(
      [&files = files_, row = std::move(row), use = std::move(use), live_max = options_.live_max](
          Sql& sql) { return make_batch(sql, files, row, use, live_max); },
      [loop = loop_.get(), inbox = loop_->inbox(),
       done = std::move(done)](Result<Made> made) mutable {
        if (!made) return done(made.error());
        if (made->is_new) inbox->send_reserved([loop, id = made->row.id] { loop->add(id); });
        done(std::move(made->row));
      });
}

Status Runner::get(std::string tenant, std::string id, store::Done<BatchRow> done) {
  return database_.post<BatchRow>([tenant = std::move(tenant), id = std::move(id)](
                                      Sql& sql) { return store::find_batch(sql, &tenant, id); },
                                  std::move(done));
}

Status Runner::list(std::string tenant, store::PageQuery query,
                    store::Done<store::BatchPage> done) {
  return database_.post<store::BatchPage>(
      [tenant = std::move(tenant), query = std::move(query)](Sql& sql) {
        return store::list_batches(sql, tenant, query);
      },
      std::move(done));
}

Status Runner::cancel(std::string tenant, std::string id, store::Done<BatchRow> done) {
  return database_.post<BatchRow>(
      [tenant = std::move(tenant), id = std::move(id),
       now_ms = clock_.wall_ms()](Sql& sql) -> Result<BatchRow> {
        auto row = store::find_batch(sql, &tenant, id);
        if (!row) return row;
        if (row->status == BatchStatus::kCancelling || row->status == BatchStatus::kCancelled)
          return row;
        auto is_set = store::set_batch_status(sql, id, BatchStatus::kCancelling, now_ms);
        if (!is_set) return is_set.error();
        if (!*is_set) {
          return Error{Code::kInvalidArgument,
                       "the batch is " + std::string(store::batch_status_name(row->status)) +
                           ", so it can't be cancelled any more"};
        }
        return store::find_batch(sql, &tenant, id);
      },
      [loop = loop_.get(), inbox = loop_->inbox(),
       done = std::move(done)](Result<BatchRow> row) mutable {
        if (row) inbox->send_reserved([loop, id = row->id] { loop->cancel(id); });
        done(std::move(row));
      });
}

// ---- the thread ---------------------------------------------------------------------------------

namespace {

// Wall time may jump, so deadlines by it are looked at this often.
constexpr std::chrono::milliseconds kLookInterval{1000};
constexpr std::chrono::milliseconds kNoTime{0};
constexpr std::chrono::milliseconds kIdleInterval = std::chrono::hours(1);

}  // namespace

Runner::Loop::Loop(const RunnerOptions& options, broker::Api& api, store::Database& database,
                   store::Files& files, const Clock& clock, Meter& meter)
    : options_(options),
      api_(api),
      database_(database),
      files_(files),
      clock_(clock),
      started_us_(clock.steady_us()),
      inbox_(std::make_shared<Inbox>(1)),  // everything is sent as reserved
      lines_completed_(meter.counter("waystation_batch_lines_total",
                                     "Lines of batches with an outcome.",
                                     {{"outcome", "completed"}})),
      lines_failed_(meter.counter("waystation_batch_lines_total",
                                  "Lines of batches with an outcome.", {{"outcome", "failed"}})),
      active_(meter.gauge("waystation_batches_active", "Batches that are worked on.")) {}

void Runner::Loop::start(std::vector<std::string> unended) {
  waiting_.insert(waiting_.end(), std::make_move_iterator(unended.begin()),
                  std::make_move_iterator(unended.end()));
  thread_ = std::thread([this] {
    name_this_thread("batch");
    run();
  });
}

void Runner::Loop::stop() {
  inbox_->close();
  if (thread_.joinable()) thread_.join();
  // A reader and its flight hold each other.
  for (Job& job : jobs_) {
    for (auto& [number, flight] : job.flights) flight->reader.reset();
  }
}

void Runner::Loop::run() {
  std::vector<std::move_only_function<void()>> tasks;
  activate();
  while (inbox_->receive_all(tasks, until_due())) {
    for (auto& task : tasks) task();
    tasks.clear();
    tick();
    pump();
  }
}

std::chrono::milliseconds Runner::Loop::until_due() const {
  if (jobs_.empty()) return kIdleInterval;
  auto wait = kLookInterval;
  const std::int64_t now = now_us();
  const TimeMs wall_ms = clock_.wall_ms();
  for (const Job& job : jobs_) {
    if (job.phase == Job::Phase::kRunning) {
      wait = std::clamp(std::chrono::milliseconds(job.row.expires_ms - wall_ms), kNoTime, wait);
    }
    if (job.resume_us == 0) continue;
    const auto left = std::chrono::microseconds(std::max<std::int64_t>(job.resume_us - now, 0));
    wait = std::min(wait, std::chrono::ceil<std::chrono::milliseconds>(left));
  }
  return wait;
}

void Runner::Loop::tick() {
  const std::int64_t now = now_us();
  const TimeMs wall_ms = clock_.wall_ms();
  for (Job& job : jobs_) {
    if (job.phase == Job::Phase::kRunning && wall_ms >= job.row.expires_ms) stop_job(job);
    if (job.resume_us != 0 && now >= job.resume_us) resume(job);
  }
  jobs_.remove_if([](const Job& job) { return job.phase == Job::Phase::kOver; });
  activate();
  active_.set(static_cast<double>(jobs_.size()));
}

void Runner::Loop::activate() {
  while (!waiting_.empty() && jobs_.size() < options_.active_max) {
    Job& job = jobs_.emplace_back();
    job.id = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    load(job);
  }
}

void Runner::Loop::add(std::string id) {
  waiting_.push_back(std::move(id));
}

void Runner::Loop::back_off(Job& job, int at_least_ms) {
  if (job.resume_us != 0) return;  // under way already
  job.backoff_ms = std::clamp(job.backoff_ms * 2, options_.backoff_min_ms, options_.backoff_max_ms);
  job.resume_us = now_us() + std::int64_t{1000} * std::max(job.backoff_ms, at_least_ms);
}

// The time after a refusal is over: what was refused is tried again.
void Runner::Loop::resume(Job& job) {
  job.resume_us = 0;
  if (std::exchange(job.has_failed_step, false)) {
    switch (job.phase) {
      case Job::Phase::kLoading:
        return load(job);
      case Job::Phase::kValidating:
        return begin_validation(job);
      case Job::Phase::kFinalizing:
        return finalize(job);
      default:
        break;
    }
  }
  std::vector<FlightPtr> flights;
  for (const auto& [number, flight] : job.flights) flights.push_back(flight);
  for (const FlightPtr& flight : flights) {
    if (flight->job == nullptr) continue;
    if (flight->state == Flight::State::kWaiting) submit(flight);
    if (flight->state == Flight::State::kUnsaved) save(flight);
  }
}

void Runner::Loop::finish(Job& job) {
  for (const auto& [number, flight] : job.flights) CHECK(flight->job == nullptr);
  job.phase = Job::Phase::kOver;
  job.input.reset();
  job.assembly.reset();
  // Others may become active at the next turn.
  inbox_->send_reserved([] {});
}

}  // namespace waystation::batch
