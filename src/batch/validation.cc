// From a batch's row to a batch that runs: loading it, and checking its input file.
#include "base/log.h"
#include "batch/ask.h"
#include "message/json.h"

namespace waystation::batch {

using store::BatchStatus;
using store::Sql;

namespace {

// How much is done at once before others have their turn.
constexpr std::uint64_t kSliceBytes = 1 << 20;
constexpr std::uint64_t kSliceLines = 1000;
constexpr std::size_t kErrorsMax = 100;

struct Loaded {
  store::BatchRow row;
  std::vector<store::LineResult> lines;
};

}  // namespace

void Runner::Loop::load(Job& job) {
  job.phase = Job::Phase::kLoading;
  ask<Loaded>(
      job,
      [id = job.id](Sql& sql) -> Result<Loaded> {
        auto row = store::find_batch(sql, nullptr, id);
        if (!row) return row.error();
        auto lines = store::batch_lines(sql, id);
        if (!lines) return lines.error();
        return Loaded{std::move(*row), std::move(*lines)};
      },
      [this](Job& found, Result<Loaded> loaded) {
        if (!loaded && loaded.error().code == Code::kNotFound) return finish(found);
        if (!loaded) return fail_step(found, loaded.error());
        found.row = std::move(loaded->row);
        begin(found, loaded->lines);
      });
}

void Runner::Loop::begin(Job& job, const std::vector<store::LineResult>& lines) {
  const BatchStatus status = job.row.status;
  if (store::is_ended(status)) return finish(job);
  job.cancelling = job.cancelling || status == BatchStatus::kCancelling;
  job.is_validated = job.row.total > 0;
  const bool is_late = clock_.wall_ms() >= job.row.expires_ms;
  for (const store::LineResult& line : lines) {
    if (line.http_status == 0) {
      const auto id = RequestId::parse(line.request_id);
      if (id && (job.cancelling || is_late)) cancel_request(job, *id);
      continue;
    }
    if (job.is_done.size() <= line.line) job.is_done.resize(line.line + 1);
    job.is_done[line.line] = true;
  }
  if (job.cancelling) return stop_job(job);
  switch (status) {
    case BatchStatus::kValidating:
      return begin_validation(job);
    case BatchStatus::kFinalizing:
      return finalize(job);
    default:
      job.phase = Job::Phase::kRunning;
  }
}

Result<LineFile> Runner::Loop::open_input(const Job& job) {
  auto reader = files_.open(job.row.input_hash);
  if (!reader) return reader.error();
  return LineFile(std::move(*reader), options_.line_bytes_max);
}

void Runner::Loop::fail_step(Job& job, const Error& error) {
  WS_LOG(warn, "batch waits batch={} what=\"{}\"", job.id, error.message);
  job.has_failed_step = true;
  back_off(job, error.retry_after_ms);
}

// The next part of a long step, once everybody else had a turn.
void Runner::Loop::go_on(Job& job, void (Loop::*step)(Job&)) {
  inbox_->send_reserved([this, id = job.id, generation = job.generation, step] {
    for (Job& found : jobs_) {
      if (found.id == id && found.generation == generation) (this->*step)(found);
    }
  });
}

void Runner::Loop::begin_validation(Job& job) {
  job.phase = Job::Phase::kValidating;
  job.custom_ids.clear();
  job.errors.clear();
  job.lines = 0;
  job.model.clear();
  job.same_model = true;
  auto input = open_input(job);
  if (!input) return fail_step(job, input.error());
  job.input.emplace(std::move(*input));
  ++job.generation;
  validate_some(job);
}

void Runner::Loop::validate_some(Job& job) {
  const std::uint64_t begin = job.input->offset();
  for (std::uint64_t n = 0; n < kSliceLines && job.input->offset() - begin < kSliceBytes; ++n) {
    auto line = job.input->next();
    if (!line) return fail_step(job, line.error());
    if (!*line || job.errors.size() >= kErrorsMax) return end_validation(job);
    check_line(job, **line, job.input->text());
  }
  go_on(job, &Loop::validate_some);
}

void Runner::Loop::check_line(Job& job, const Line& line, const std::string& text) {
  if (++job.lines == options_.lines_max + 1) {
    add_error(job, line.number,
              {"too_many_lines",
               "the file has more than " + std::to_string(options_.lines_max) + " lines", ""});
  }
  if (line.size > options_.line_bytes_max) {
    return add_error(
        job, line.number,
        {"line_too_large", "the line is over " + std::to_string(options_.line_bytes_max) + " bytes",
         ""});
  }
  auto parsed = message::parse_batch_line(text, job.row.endpoint);
  if (!parsed) return add_error(job, line.number, parsed.error());
  if (job.lines == 1) job.model = parsed->model;
  if (parsed->model != job.model) job.same_model = false;
  if (!job.custom_ids.insert(std::move(parsed->custom_id)).second) {
    add_error(job, line.number,
              {"duplicate_custom_id", "an earlier line has the same custom_id", "custom_id"});
  }
}

void Runner::Loop::add_error(Job& job, std::optional<std::uint64_t> line,
                             const message::BatchLineError& error) {
  if (job.errors.size() >= kErrorsMax) return;
  using message::json_string;
  const std::string place = line ? "line " + std::to_string(*line) + ": " : "";
  job.errors.push_back("{\"code\":" + json_string(error.code) +
                       ",\"message\":" + json_string(place + error.message) +
                       ",\"param\":" + (error.param.empty() ? "null" : json_string(error.param)) +
                       ",\"line\":" + (line ? std::to_string(*line) : "null") + "}");
}

void Runner::Loop::end_validation(Job& job) {
  job.custom_ids.clear();
  if (job.lines == 0) {
    add_error(job, std::nullopt, {"empty_file", "the input file has no lines", ""});
  }
  if (!job.errors.empty()) return refuse_input(job);
  ask<bool>(
      job,
      [id = job.id, lines = job.lines, model = job.same_model ? job.model : std::string(),
       now_ms = clock_.wall_ms()](Sql& sql) -> Result<bool> {
        if (Status s = store::set_batch_lines(sql, id, lines, model); !s) return s.error();
        return store::set_batch_status(sql, id, BatchStatus::kInProgress, now_ms);
      },
      [this](Job& found, Result<bool> is_set) {
        if (!is_set) return fail_step(found, is_set.error());
        found.input.reset();
        found.is_validated = true;
        if (!*is_set) {  // cancelled meanwhile
          found.cancelling = true;
          return stop_job(found);
        }
        found.row.status = BatchStatus::kInProgress;
        found.phase = Job::Phase::kRunning;
      });
}

void Runner::Loop::refuse_input(Job& job) {
  std::string errors = "[";
  for (const std::string& error : job.errors) errors += (errors.size() > 1 ? "," : "") + error;
  errors += "]";
  ask<bool>(
      job,
      [&files = files_, id = job.id, hash = job.row.input_hash, errors,
       now_ms = clock_.wall_ms()](Sql& sql) -> Result<bool> {
        auto is_set = store::set_batch_status(sql, id, BatchStatus::kFailed, now_ms);
        if (!is_set || !*is_set) return is_set;
        if (Status s = store::set_batch_errors(sql, id, errors); !s) return s.error();
        if (Status s = files.release_reference(sql, hash); !s) return s.error();
        return true;
      },
      [this](Job& found, Result<bool> is_set) {
        if (!is_set) return fail_step(found, is_set.error());
        if (!*is_set) {
          found.cancelling = true;
          return stop_job(found);
        }
        WS_LOG(info, "batch failed, its input is not valid batch={}", found.id);
        files_.drop_unreferenced({found.row.input_hash});
        finish(found);
      });
}

// ---- stopping -----------------------------------------------------------------------------------

void Runner::Loop::cancel(const std::string& id) {
  for (Job& job : jobs_) {
    if (job.id != id) continue;
    job.cancelling = true;
    if (job.phase == Job::Phase::kValidating || job.phase == Job::Phase::kRunning) stop_job(job);
  }
}

// Cancelled or out of time: no further lines, and those in flight are called back.
void Runner::Loop::stop_job(Job& job) {
  job.phase = Job::Phase::kStopping;
  job.has_failed_step = false;
  job.custom_ids.clear();
  ++job.generation;
  std::vector<FlightPtr> flights;
  for (const auto& [number, flight] : job.flights) flights.push_back(flight);
  for (const FlightPtr& flight : flights) {
    if (flight->state == Flight::State::kWaiting) drop(flight);
    if (flight->state == Flight::State::kRunning) cancel_request(job, *flight->id);
  }
  after_line(job);
}

}  // namespace waystation::batch
