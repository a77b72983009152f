// The lines in flight: from the input file to the broker, and from the broker to the database.
#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "batch/runner_loop.h"
#include "message/openai.h"

namespace waystation::batch {

using State = Flight::State;
using store::Sql;

namespace {

// Blocks of one line that the runner hasn't taken yet; beyond that its reader is let go.
constexpr int kBlocksMax = 64;

// What passes if one waits.
bool is_passing(Code code) {
  return code == Code::kQueueFull || code == Code::kUnavailable || code == Code::kBusy;
}

std::string idempotency_key(const Job& job, const Flight& flight) {
  // No client can send such a key: those are of printable characters.
  std::string key =
      "\x01"
      "batch/" +
      job.id + "/" + std::to_string(flight.line.number);
  if (flight.key_round > 0) key += "/" + std::to_string(flight.key_round);
  return key;
}

store::BatchUsage usage_of(const v1::Usage& usage) {
  return {usage.prompt_tokens(), usage.cached_prompt_tokens(), usage.completion_tokens(),
          usage.reasoning_tokens()};
}

}  // namespace

// Hands what the broker's thread says to the runner's.
class Runner::Loop::LineReader final : public stream::Reader {
 public:
  LineReader(Loop* loop, InboxPtr inbox, FlightPtr flight, std::uint64_t serial)
      : loop_(loop), inbox_(std::move(inbox)), flight_(std::move(flight)), serial_(serial) {}

  bool on_block(stream::BlockPtr block) override {
    if (*untaken_ >= kBlocksMax) {
      send([](Loop& loop, const FlightPtr& flight, std::uint64_t serial) {
        loop.on_lagging(flight, serial);
      });
      return false;
    }
    ++*untaken_;
    send([block = std::move(block), untaken = untaken_](Loop& loop, const FlightPtr& flight,
                                                        std::uint64_t serial) {
      --*untaken;
      loop.on_block(flight, serial, block);
    });
    return true;
  }
  void on_end(const stream::Ending& ending) override {
    send([ending](Loop& loop, const FlightPtr& flight, std::uint64_t serial) {
      loop.on_end(flight, serial, ending);
    });
  }
  void on_interrupted(const Error& error) override {
    send([error](Loop& loop, const FlightPtr& flight, std::uint64_t serial) {
      loop.on_interrupted(flight, serial, error);
    });
  }

 private:
  template <typename News>
  void send(News news) {
    inbox_->send_reserved([loop = loop_, flight = flight_, serial = serial_,
                           news = std::move(news)] { news(*loop, flight, serial); });
  }

  Loop* const loop_;  // only for tasks: they run while it is there
  const InboxPtr inbox_;
  const FlightPtr flight_;
  const std::uint64_t serial_;
  const std::shared_ptr<std::atomic<int>> untaken_ = std::make_shared<std::atomic<int>>(0);
};

// ---- taking lines -------------------------------------------------------------------------------

// Gives every batch a line in turn while there is room.
void Runner::Loop::pump() {
  bool went_on = true;
  while (went_on && busy_ < options_.window) {
    went_on = false;
    for (Job& job : jobs_) {
      if (busy_ >= options_.window) break;
      if (take_line(job)) went_on = true;
    }
  }
}

Status Runner::Loop::ensure_input(Job& job) {
  if (job.input) return {};
  auto input = open_input(job);
  if (!input) return input.error();
  job.input.emplace(std::move(*input));
  return {};
}

bool Runner::Loop::take_line(Job& job) {
  if (job.phase != Job::Phase::kRunning || job.exhausted || job.resume_us != 0) return false;
  if (Status s = ensure_input(job); !s) {
    fail_step(job, s.error());
    return false;
  }
  for (;;) {
    auto line = job.input->next();
    if (!line) {
      job.input.reset();  // once more from its beginning
      fail_step(job, line.error());
      return false;
    }
    if (!*line) {
      job.exhausted = true;
      after_line(job);
      return false;
    }
    const std::uint64_t number = (*line)->number;
    if (number < job.is_done.size() && job.is_done[number]) continue;
    if (job.flights.contains(number)) continue;
    auto flight = std::make_shared<Flight>();
    flight->job = &job;
    flight->line = **line;
    job.flights.emplace(number, flight);
    submit(flight);
    return true;
  }
}

void Runner::Loop::set_state(Flight& flight, State state) {
  if (flight.state == State::kWaiting && state != State::kWaiting) ++busy_;
  if (flight.state != State::kWaiting && state == State::kWaiting) --busy_;
  flight.state = state;
}

bool Runner::Loop::is_current(const FlightPtr& flight, std::uint64_t serial) const {
  return flight->job != nullptr && flight->serial == serial;
}

// ---- submitting ---------------------------------------------------------------------------------

void Runner::Loop::submit(const FlightPtr& flight) {
  Job& job = *flight->job;
  set_state(*flight, State::kSubmitting);
  const std::uint64_t serial = flight->serial = ++serials_;
  flight->next = 0;
  flight->id.reset();
  flight->collector.reset();
  if (Status s = ensure_input(job); !s) return try_again(flight, s.error());
  auto text = job.input->read(flight->line);
  if (!text) return try_again(flight, text.error());
  auto line = message::parse_batch_line(*text, job.row.endpoint);
  if (!line) return answer(flight, {Code::kInvalidArgument, line.error().message});

  broker::PrepareOptions options;
  options.tenant = job.row.tenant;
  options.source = "/batch";
  options.now_ms = clock_.wall_ms();
  options.idempotency_key = idempotency_key(job, *flight);
  options.resumable = true;
  options.expiry_ms = job.row.expires_ms;
  options.priority = -1;
  auto prepared = broker::prepare(job.row.endpoint, std::move(line->body), options);
  if (!prepared) return answer(flight, prepared.error());
  if (prepared->stream) {
    return answer(flight,
                  {Code::kInvalidArgument, "a line of a batch can't be streamed", "stream"});
  }
  flight->identity = std::move(prepared->identity);
  flight->reader = std::make_shared<LineReader>(this, inbox_, flight, serial);
  prepared->submission.detached = true;
  prepared->submission.reader = flight->reader;
  const Status taken = api_.submit(
      std::move(prepared->submission),
      [this, inbox = inbox_, flight, serial](Result<broker::Submitted> result) {
        inbox->send_reserved([this, flight, serial, result = std::move(result)]() mutable {
          on_submitted(flight, serial, std::move(result));
        });
      });
  if (!taken) on_submitted(flight, serial, taken.error());
}

void Runner::Loop::on_submitted(const FlightPtr& flight, std::uint64_t serial,
                                Result<broker::Submitted> result) {
  if (!is_current(flight, serial) || flight->state != State::kSubmitting) return;
  Job& job = *flight->job;
  if (!result) {
    const Code code = result.error().code;
    const bool may_join =
        code == Code::kModelNotFound && now_us() - started_us_ < options_.model_grace_ms * 1000;
    if (is_passing(code) || may_join) return try_again(flight, result.error());
    // The key's time is over, or it was made by a version that wrote the body in another way.
    if ((code == Code::kGone || code == Code::kIdempotencyMismatch) && flight->key_round == 0) {
      flight->key_round = 1;
      return submit(flight);
    }
    return answer(flight, result.error());
  }
  job.backoff_ms = 0;
  set_state(*flight, State::kRunning);
  flight->id = result->id;
  flight->identity.id = result->id;
  flight->identity.accepted_ms = result->accepted_ms;
  flight->collector = stream::make_collector(flight->identity);
  if (!flight->collector) {
    return answer(flight, {Code::kInternal, "this version can't show answers of this kind"});
  }
  if (job.phase == Job::Phase::kStopping) {
    cancel_request(job, result->id);
  } else {
    // Not waited for: it only says what to call back if the batch is cancelled after a restart.
    (void)database_.post<void>(
        [id = job.id, line = flight->line.number, request = result->id.to_string()](Sql& sql) {
          return store::note_batch_line(sql, id, line, request);
        },
        [](const Status&) {});
  }
  if (result->duplicate) attach(flight);
}

// Joins a request that was accepted in an earlier life, or whose reader was let go.
void Runner::Loop::attach(const FlightPtr& flight) {
  const std::uint64_t serial = flight->serial;
  const Status taken = api_.attach(
      flight->job->row.tenant, *flight->id, flight->next, flight->reader,
      [this, inbox = inbox_, flight, serial](const Result<broker::RequestView>& view) {
        if (view) return;
        inbox->send_reserved([this, flight, serial, error = view.error()] {
          if (!is_current(flight, serial) || flight->state != State::kRunning) return;
          const bool is_forgotten = error.code == Code::kGone || error.code == Code::kNotFound;
          if (!is_forgotten) return try_again(flight, error);
          if (flight->key_round > 0) return answer(flight, error);
          flight->key_round = 1;
          submit(flight);
        });
      });
  if (!taken) try_again(flight, taken.error());
}

// ---- what comes of it ---------------------------------------------------------------------------

void Runner::Loop::on_block(const FlightPtr& flight, std::uint64_t serial,
                            const stream::BlockPtr& block) {
  if (!is_current(flight, serial) || flight->state != State::kRunning) return;
  for (std::size_t i = 0; i < block->events.size(); ++i) {
    const Sequence sequence = block->first + i;
    if (sequence < flight->next) continue;
    CHECK(sequence == flight->next);
    flight->collector->add(block->events[i]);
    ++flight->next;
  }
  if (flight->collector->bytes() <= options_.answer_bytes_max) return;
  cancel_request(*flight->job, *flight->id);
  answer(flight, {Code::kTooLarge,
                  "the answer is over " + std::to_string(options_.answer_bytes_max) + " bytes"});
}

void Runner::Loop::on_lagging(const FlightPtr& flight, std::uint64_t serial) {
  if (is_current(flight, serial) && flight->state == State::kRunning) attach(flight);
}

void Runner::Loop::on_interrupted(const FlightPtr& flight, std::uint64_t serial,
                                  const Error& error) {
  if (is_current(flight, serial) && flight->state == State::kRunning) try_again(flight, error);
}

void Runner::Loop::on_end(const FlightPtr& flight, std::uint64_t serial,
                          const stream::Ending& ending) {
  if (!is_current(flight, serial) || flight->state != State::kRunning) return;
  Job& job = *flight->job;
  const bool was_called_back =
      ending.state == v1::REQUEST_STATE_CANCELLED && job.phase == Job::Phase::kStopping;
  const bool was_late = ending.state == v1::REQUEST_STATE_EXPIRED;
  if (was_called_back || was_late) {  // no outcome of its own
    drop(flight);
    return after_line(job);
  }
  stream::StatusAndBody out = stream::status_and_body(flight->collector->answer(ending));
  flight->result = {flight->line.number, flight->id->to_string(), out.status, std::move(out.body),
                    usage_of(ending.usage)};
  flight->collector.reset();
  save(flight);
}

void Runner::Loop::try_again(const FlightPtr& flight, const Error& why) {
  Job& job = *flight->job;
  flight->serial = 0;
  set_state(*flight, State::kWaiting);
  if (job.phase != Job::Phase::kRunning) {
    drop(flight);
    return after_line(job);
  }
  back_off(job, why.retry_after_ms);
}

// A refusal that won't pass is the line's outcome.
void Runner::Loop::answer(const FlightPtr& flight, const Error& error) {
  if (flight->state == State::kRunning) api_.detach(*flight->id, flight->reader, false);
  flight->collector.reset();
  flight->result = {flight->line.number,
                    flight->id ? flight->id->to_string() : std::string(),
                    http_status(error.code),
                    message::openai_error_body(error),
                    {}};
  save(flight);
}

void Runner::Loop::cancel_request(const Job& job, RequestId id) {
  const Status taken = api_.cancel(job.row.tenant, id, [](const Result<broker::RequestView>&) {});
  if (!taken) WS_LOG(warn, "request of a batch not cancelled request={}", id.to_string());
}

void Runner::Loop::save(const FlightPtr& flight) {
  set_state(*flight, State::kSaving);
  const Status posted = database_.post<bool>(
      [id = flight->job->id, flight](Sql& sql) {
        return store::set_batch_line(sql, id, flight->result);
      },
      [this, inbox = inbox_, flight](Result<bool> saved) {
        inbox->send_reserved([this, flight, saved = std::move(saved)] { on_saved(flight, saved); });
      });
  if (!posted) on_saved(flight, posted.error());
}

void Runner::Loop::on_saved(const FlightPtr& flight, const Result<bool>& saved) {
  Job& job = *flight->job;
  if (!saved) {
    set_state(*flight, State::kUnsaved);
    return back_off(job, saved.error().retry_after_ms);
  }
  (flight->result.http_status == 200 ? lines_completed_ : lines_failed_).add();
  const std::uint64_t number = flight->line.number;
  if (job.is_done.size() <= number) job.is_done.resize(number + 1);
  job.is_done[number] = true;
  drop(flight);
  after_line(job);
}

void Runner::Loop::drop(const FlightPtr& flight) {
  set_state(*flight, State::kWaiting);
  flight->serial = 0;
  flight->job->flights.erase(flight->line.number);
  flight->job = nullptr;
  flight->reader.reset();
}

// Nothing is in flight, and nothing more will be: the rest is to put it together.
void Runner::Loop::after_line(Job& job) {
  if (!job.flights.empty()) return;
  const bool is_through = job.phase == Job::Phase::kRunning && job.exhausted;
  if (is_through || job.phase == Job::Phase::kStopping) finalize(job);
}

}  // namespace waystation::batch
