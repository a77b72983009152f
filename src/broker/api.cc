// The commands that come from the front door.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/utf8.h"
#include "broker/broker.h"
#include "broker/reply.h"
#include "stream/history.h"

namespace waystation::broker {
namespace {

// Readers of a live request hear it after what is durable; callers, instead of an answer.
Error lost_journal() {
  return {
      Code::kUnavailable,
      "the server can't write its journal; what was accepted is kept and goes on after a restart",
      {},
      5000};
}

Error gone() {
  return {Code::kGone, "the request was deleted, or is past its retention"};
}

// "waystation.chat.request.v1" → "chat"; empty when it is no such name.
std::string_view task_of(std::string_view type) {
  constexpr std::string_view kPrefix = "waystation.";
  if (!type.starts_with(kPrefix)) return {};
  type.remove_prefix(kPrefix.size());
  return type.substr(0, type.find('.'));
}

}  // namespace

Status Broker::post(Task task) {
  if (leave(task) || inbox_.try_send(std::move(task))) return {};
  return Error{
      Code::kQueueFull, "the server has more to do than it can queue; try again", {}, 1000};
}

Status Broker::submit(Submission submission, Callback<Submitted> done) {
  return post([this, submission = std::move(submission), done = std::move(done)]() mutable {
    do_submit(std::move(submission), std::move(done));
  });
}

Status Broker::attach(std::string tenant, RequestId id, Sequence from, ReaderPtr reader,
                      Callback<RequestView> done) {
  return post([this, tenant = std::move(tenant), id, from, reader = std::move(reader),
               done = std::move(done)]() mutable {
    do_attach(tenant, id, from, std::move(reader), std::move(done));
  });
}

// Never refused: as many can be under way as there are connections.
void Broker::detach(RequestId id, ReaderPtr reader, bool client_gone) {
  inbox_.send_reserved(
      [this, id, reader = std::move(reader), client_gone] { do_detach(id, reader, client_gone); });
}

Status Broker::cancel(std::string tenant, RequestId id, Callback<RequestView> done) {
  return post([this, tenant = std::move(tenant), id, done = std::move(done)]() mutable {
    do_cancel(tenant, id, std::move(done));
  });
}

Status Broker::get(std::string tenant, RequestId id, Callback<RequestView> done) {
  return post([this, tenant = std::move(tenant), id, done = std::move(done)]() mutable {
    const auto found = ledger_->find(tenant, id);
    if (gate_.failed()) {  // the ledger is the durable state now
      done(found ? Result<RequestView>(view_of(**found)) : found.error());
      return;
    }
    when_durable(found ? reply<RequestView>(std::move(done), view_of(**found))
                       : reply<RequestView>(std::move(done), found.error()));
  });
}

Status Broker::erase(std::string tenant, RequestId id, Callback<void> done) {
  return post([this, tenant = std::move(tenant), id, done = std::move(done)]() mutable {
    do_erase(tenant, id, std::move(done));
  });
}

Status Broker::models(Callback<std::vector<ModelView>> done) {
  return post([this, done = std::move(done)] {
    std::vector<ModelView> views;
    for (const auto& [name, known] : models_) {
      if (known.workers == 0) continue;
      ModelView& view = views.emplace_back();
      view.id = name;
      view.fingerprint = known.info.fingerprint();
      view.engine = known.info.engine();
      view.context_length = known.info.context_length();
      view.embedding_length = known.info.embedding_length();
      view.tasks.assign(known.info.tasks().begin(), known.info.tasks().end());
      if (view.tasks.empty()) view.tasks = {"chat", "completion"};
      view.workers = known.workers;
      view.since_ms = known.since_ms;
    }
    done(std::move(views));
  });
}

Status Broker::accepting() const {
  if (gate_.failed()) {
    return lost_journal();
  }
  if (draining_) {
    return Error{
        Code::kUnavailable, "the server is shutting down; try again in a moment", {}, 1000};
  }
  if (journal_ != nullptr && journal_->backlog_bytes() > config_.backlog_bytes_max) {
    return Error{Code::kQueueFull, "the disk is behind; try again later", {}, 1000};
  }
  if (storage_full_) {
    return Error{
        Code::kQueueFull,
        "the journal is at its size limit and what it holds may not be forgotten yet; raise "
        "--journal-bytes-max or wait for requests to pass their retention",
        {},
        60'000};
  }
  return {};
}

void Broker::do_submit(Submission submission, Callback<Submitted> done) {
  if (const Status accepts = accepting(); !accepts) {
    // A known idempotency key is no new work: a full server answers it all the same.
    const bool full = accepts.error().code == Code::kQueueFull;
    const auto known = full ? ledger_->find_duplicate(submission.envelope, now_ms()) : std::nullopt;
    if (known && !*known) {
      metrics_.refused.add();
      done(accepts.error());
      return;
    }
  }
  Result<Submitted> result = accept(submission);
  if (!result) {
    metrics_.refused.add();
    when_durable(reply<Submitted>(std::move(done), std::move(result)));
    return;
  }
  (result->cached      ? metrics_.cache_hits
   : result->duplicate ? metrics_.duplicates
                       : metrics_.accepted)
      .add();
  ReaderPtr reader = result->duplicate ? nullptr : std::move(submission.reader);
  when_durable([this, result = *result, done = std::move(done),
                reader = std::move(reader)](const Error* lost) {
    if (lost != nullptr) {
      done(*lost);
      return;
    }
    done(result);
    if (reader != nullptr) CHECK(hub_.attach(result.id, 0, reader));
  });
}

Result<Submitted> Broker::accept(Submission& submission) {
  const TimeMs now = now_ms();
  v1::Envelope& envelope = submission.envelope;
  const auto duplicate = ledger_->find_duplicate(envelope, now);
  if (!duplicate) return duplicate.error();
  if (*duplicate) {
    await_reader(*ledger_->find((*duplicate)->id));
    return Submitted{
        .id = (*duplicate)->id, .duplicate = true, .accepted_ms = (*duplicate)->accepted_ms};
  }
  if (const Status good = check_model(envelope); !good) return good.error();
  if (const auto cached = find_cached(submission)) return *cached;
  if (submission.cache == CacheUse::kNone) envelope.clear_cachekey();
  const std::string cache_key = envelope.cachekey();
  if (envelope.id().empty()) {
    envelope.set_id(RequestId::make(now, deps_.random(), deps_.random()).to_string());
  }
  const ledger::Terms terms{
      .detached = submission.detached,
      .stream_usage = submission.stream_usage,
      .choices = submission.choices,
      .compose = submission.compose,
      .locked = submission.locked,
      .block_on_dead = submission.block_on_dead.value_or(config_.block_on_dead)};
  auto accepted = ledger_->submit(std::move(envelope), terms, now, proposal_);
  absorb();
  if (!accepted) return accepted.error();
  if (!cache_key.empty()) cache_.put(cache_key, accepted->id);
  return Submitted{
      .id = accepted->id, .duplicate = accepted->duplicate, .accepted_ms = accepted->accepted_ms};
}

bool Broker::is_expected(const std::string& model) const {
  const auto& expected = config_.expected_models;
  return std::find(expected.begin(), expected.end(), model) != expected.end();
}

// What isn't known of a model is left to its workers.
bool Broker::does_task(const std::string& model, const std::string& type) const {
  const std::string_view task = task_of(type);
  const auto known = models_.find(model);
  if (task.empty() || known == models_.end()) return true;
  const auto& tasks = known->second.info.tasks();
  if (tasks.empty()) return task != "embedding";
  return std::find(tasks.begin(), tasks.end(), task) != tasks.end();
}

// Somebody serves the model, or will, and it does what is asked for.
Status Broker::check_model(const v1::Envelope& envelope) const {
  const std::string& model = envelope.model();
  const auto fallback = config_.fallbacks.find(model);
  const bool falls_back =
      fallback != config_.fallbacks.end() &&
      std::any_of(fallback->second.begin(), fallback->second.end(), [&](const auto& other) {
        return (dispatcher_.serves(other) || is_expected(other)) &&
               does_task(other, envelope.type());
      });
  if (!dispatcher_.serves(model) && !ledger_->knows_model(model) && !is_expected(model) &&
      !falls_back) {
    return unknown_model(model);
  }
  const auto known = models_.find(model);
  if (known == models_.end() || known->second.workers == 0) return {};
  if (does_task(model, envelope.type())) return {};
  std::string names;
  for (const auto& [name, other] : models_) {
    if (other.workers > 0 && does_task(name, envelope.type())) {
      names += (names.empty() ? "" : ", ") + name;
    }
  }
  return Error{Code::kInvalidArgument,
               "the model '" + model + "' doesn't do " + std::string(task_of(envelope.type())) +
                   "s; " +
                   (names.empty() ? "no model that is served now does" : "these do: " + names),
               "model"};
}

// Another client is on its way to the request, which must not go with its own one before that.
void Broker::await_reader(const ledger::Request& request) {
  if (request.live() && !request.detached) {
    orphans_[request.id] = steady_ms() + config_.orphan_wait_ms;
  }
}

// An earlier request whose answer may be given for this one: answered not too long ago by the model
// that would answer now, or being answered.
std::optional<Submitted> Broker::find_cached(const Submission& submission) {
  const v1::Envelope& envelope = submission.envelope;
  if (submission.cache != CacheUse::kFull || envelope.cachekey().empty()) return std::nullopt;
  // A key must name one request for as long as it binds; an earlier answer isn't its own.
  if (!envelope.idempotencykey().empty()) return std::nullopt;
  const auto id = cache_.find(envelope.cachekey());
  const ledger::Request* earlier = id ? ledger_->find(*id) : nullptr;
  const auto usable = [&] {
    if (earlier == nullptr || earlier->tenant != envelope.tenant()) return false;
    if (earlier->erased) return false;
    if (earlier->live()) return true;
    if (earlier->state != v1::REQUEST_STATE_COMPLETED) return false;
    if (now_ms() - earlier->ended_ms >= submission.cache_ttl_ms) return false;
    const auto known = models_.find(envelope.model());
    return known == models_.end() || known->second.workers == 0 ||
           known->second.info.fingerprint() == earlier->answer_fingerprint;
  };
  if (!usable()) {
    metrics_.cache_misses.add();
    return std::nullopt;
  }
  await_reader(*earlier);
  return Submitted{
      .id = earlier->id, .duplicate = true, .cached = true, .accepted_ms = earlier->accepted_ms};
}

Error Broker::unknown_model(const std::string& model) const {
  std::string names;
  for (const auto& [name, known] : models_) {
    if (known.workers > 0) names += (names.empty() ? "" : ", ") + name;
  }
  return Error{Code::kModelNotFound,
               "no worker serves the model '" + utf8_prefix(model, 200) + "'; " +
                   (names.empty() ? "no model is served now" : "served now: " + names),
               "model"};
}

void Broker::do_attach(const std::string& tenant, RequestId id, Sequence from, ReaderPtr reader,
                       Callback<RequestView> done) {
  const auto found = ledger_->find(tenant, id);
  if (!found) {
    if (gate_.failed()) {
      done(found.error());
    } else {
      when_durable(reply<RequestView>(std::move(done), found.error()));
    }
    return;
  }
  if (!reader->observes()) orphans_.erase(id);
  if (gate_.failed()) {
    done(view_of(**found));
    join(id, from, std::move(reader));
    return;
  }
  when_durable([this, id, from, reader = std::move(reader), view = view_of(**found),
                done = std::move(done)](const Error* lost) mutable {
    if (lost != nullptr) {
      done(*lost);
      return;
    }
    done(std::move(view));
    join(id, from, std::move(reader));
  });
}

// The ledger knows of a deletion before it is durable; its readers may not (I2).
void Broker::tell_gone(ReaderPtr reader) {
  if (gate_.failed()) return reader->on_interrupted(gone());
  when_durable([reader = std::move(reader)](const Error* lost) {
    reader->on_interrupted(lost == nullptr ? gone() : *lost);
  });
}

// Gives the reader its seat, once the events it wants are in memory.
void Broker::join(RequestId id, Sequence from, ReaderPtr reader) {
  if (hub_.holds(id) && hub_.attach(id, from, reader)) {
    if (gate_.failed()) hub_.interrupt_all(lost_journal());
    return;
  }
  const ledger::Request* request = ledger_->find(id);
  if (request == nullptr || request->erased) return tell_gone(std::move(reader));
  const LogIndex visible = gate_.failed() ? ledger_->index() : gate_.passed();
  std::vector<LogIndex> positions;
  for (const ledger::EventPosition& position : request->positions) {
    if (position.index <= visible) positions.push_back(position.index);
  }
  if (positions.empty() && request->event_count > 0) {
    // It was carried over just now: where it is to be read isn't durable yet.
    when_durable([this, id, from, reader = std::move(reader)](const Error* lost) mutable {
      if (lost == nullptr) return join(id, from, std::move(reader));
      reader->on_interrupted(*lost);
    });
    return;
  }
  loading_.insert(reader.get());
  const LogIndex first = positions.empty() ? LogIndex{} : positions.front();
  deps_.background.run([this, id, from, first, reader = std::move(reader),
                        positions = std::move(positions)]() mutable {
    auto history = stream::load_history(*journal_, id, positions);
    inbox_.send_reserved([this, id, from, first, reader = std::move(reader),
                          history = std::move(history)]() mutable {
      joined_after_load(id, from, first, std::move(reader), history);
    });
  });
}

void Broker::joined_after_load(RequestId id, Sequence from, LogIndex first, ReaderPtr reader,
                               const Result<std::vector<stream::BlockPtr>>& history) {
  if (loading_.erase(reader.get()) == 0) return;  // detached meanwhile
  const ledger::Request* request = ledger_->find(id);
  if (request == nullptr || request->erased) return tell_gone(std::move(reader));
  if (!history && !request->positions.empty() && request->positions.front().index != first) {
    return join(id, from, std::move(reader));  // it was carried over, and its old place is gone
  }
  if (!history) return reader->on_interrupted(history.error());
  const Sequence loaded = history->empty() ? 0 : history->back()->end();
  if (hub_.holds(id)) {
    hub_.load(id, *history);
    if (!hub_.attach(id, from, reader)) join(id, from, std::move(reader));
  } else if (request->live() && !gate_.failed()) {
    join(id, from, std::move(reader));  // its acceptance is on its way through the gate
  } else if (loaded < request->event_count) {
    join(id, from, std::move(reader));  // it has gone on and ended since, and the hub let it go
  } else {
    hub_.open(id, 0);
    for (const stream::BlockPtr& block : *history) hub_.append(id, block);
    CHECK(hub_.attach(id, from, reader));
    if (!request->live()) {
      hub_.end(id, {request->state, request->finish_reason, request->failure, request->usage});
    }
  }
  if (gate_.failed()) hub_.interrupt_all(lost_journal());
}

void Broker::do_detach(RequestId id, const ReaderPtr& reader, bool client_gone) {
  loading_.erase(reader.get());
  const std::size_t left = hub_.detach(id, reader.get());
  if (!client_gone || left > 0 || gate_.failed() || draining_) return;
  const ledger::Request* request = ledger_->find(id);
  if (request == nullptr || !request->live() || request->detached) return;
  if (orphans_.contains(id)) return;  // another client is on its way to it
  ledger_->cancel(id, "the client went away", now_ms(), proposal_);
  absorb();
}

void Broker::do_cancel(const std::string& tenant, RequestId id, Callback<RequestView> done) {
  const auto found = ledger_->find(tenant, id);
  if (gate_.failed()) {
    if (!found) {
      done(found.error());
    } else if ((*found)->live()) {
      done(accepting().error());
    } else {
      done(view_of(**found));
    }
    return;
  }
  if (!found) {
    when_durable(reply<RequestView>(std::move(done), found.error()));
    return;
  }
  ledger_->cancel(id, "cancelled by the client", now_ms(), proposal_);
  absorb();
  when_durable(reply<RequestView>(std::move(done), view_of(*ledger_->find(id))));
}

void Broker::do_erase(const std::string& tenant, RequestId id, Callback<void> done) {
  if (gate_.failed()) return done(lost_journal());
  const auto found = ledger_->find(tenant, id);
  if (found) {
    ledger_->erase(id, "deleted by the client", now_ms(), proposal_);
    absorb();
  }
  when_durable(reply<void>(std::move(done), found ? Result<void>() : Result<void>(found.error())));
}

RequestView Broker::view_of(const ledger::Request& request) const {
  RequestView view;
  view.id = request.id;
  view.state = request.state;
  view.model = request.model;
  view.api = request.api;
  view.conversation = request.conversation;
  view.choices = request.choice_count;
  view.priority = request.priority;
  for (const v1::Attempt& attempt : request.attempts) {
    view.attempts.push_back(
        {attempt.number(), attempt.worker_name(), attempt.started_ms(), attempt.ended_ms(),
         attempt.outcome(), attempt.detail(), attempt.resumed_tokens(), attempt.continuation(),
         attempt.prefilled_bytes(), attempt.regenerated_tokens(), attempt.model()});
  }
  view.queue_position = ledger_->queue_position(request);
  view.accepted_ms = request.accepted_ms;
  view.first_token_ms = request.first_token_ms;
  view.ended_ms = request.ended_ms;
  view.event_count = request.event_count;
  view.finish_reason = request.finish_reason;
  view.failure = request.failure;
  view.usage = request.usage;
  view.detached = request.detached;
  view.stream_usage = request.stream_usage;
  view.requeue_of = request.requeue_of;
  view.requeued_as = request.requeued_as;
  view.discarded = request.discarded;
  view.blocks_lane = request.blocks_lane();
  return view;
}

}  // namespace waystation::broker
