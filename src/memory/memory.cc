#include "memory/memory.h"

#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "memory/watcher.h"
#include "stream/render/responses_renderer.h"

namespace waystation::memory {
namespace {

using message::Item;
using store::ResponseRow;
using store::Sql;

constexpr std::int64_t kExpiredAtOnce = 500;

std::unique_ptr<stream::ResponsesCollector> collect(const ResponseRow& row,
                                                    const std::vector<stream::BlockPtr>& blocks) {
  stream::RenderIdentity identity;
  identity.id = row.id;
  identity.api = "responses";
  identity.model = row.model;
  identity.echo = row.parameters;
  auto collector = std::make_unique<stream::ResponsesCollector>(identity);
  for (const stream::BlockPtr& block : blocks) {
    for (const v1::Event& event : block->events) collector->add(event);
  }
  return collector;
}

// The turn's items, at the end of its conversation. A chat's leading system message is the
// conversation's from now on.
Status add_turn(Sql& sql, const ResponseRow& row, const std::string& output) {
  auto conversation = store::find_conversation(sql, row.tenant, row.conversation);
  if (!conversation) return conversation.error();
  if (!*conversation) return {};  // deleted while the turn ran
  auto items = message::parse_stored_items(row.input);
  if (!items) return items.error();
  auto made = message::parse_stored_items(output);
  if (!made) return made.error();
  if (row.api != "responses" && !items->empty() && message::is_system(items->front())) {
    auto status = store::set_system_item(sql, row.tenant, row.conversation, items->front());
    if (!status) return status;
    items->erase(items->begin());
  }
  items->insert(items->end(), made->begin(), made->end());
  auto added = store::append_items(sql, row.tenant, row.conversation, row.id, std::move(*items));
  return added ? Status() : Status(added.error());
}

Status record_outcome(Sql& sql, const std::string& tenant, RequestId id,
                      const std::vector<stream::BlockPtr>& blocks, const stream::Ending& ending) {
  auto row = store::find_response(sql, tenant, id);
  if (!row) return row.error();
  if (!*row || (*row)->ended) return {};
  const auto collector = collect(**row, blocks);
  if (ending.state == v1::REQUEST_STATE_COMPLETED && !(*row)->conversation.empty()) {
    auto status = add_turn(sql, **row, collector->output(ending));
    if (!status) return status;
  }
  if (!(*row)->visible) return store::remove_response(sql, tenant, id);
  return store::set_outcome(sql, tenant, id, stream::state_name(ending.state),
                            collector->response(ending));
}

}  // namespace

Memory::Memory(Deps deps, Options options) : deps_(std::move(deps)), options_(options) {}

Memory::~Memory() = default;

RequestId Memory::new_id() const {
  return RequestId::make(deps_.clock.wall_ms(), deps_.random(), deps_.random());
}

Status Memory::start(broker::Api& api) {
  CHECK(api_ == nullptr);
  api_ = &api;
  using Pending = std::vector<store::PendingResponse>;
  auto pending =
      deps_.database.call<Pending>([](Sql& sql) { return store::pending_responses(sql); });
  if (!pending) return pending.error();
  if (!pending->empty()) WS_LOG(info, "responses without an outcome count={}", pending->size());
  for (const auto& [tenant, id] : *pending) watch(tenant, id);
  auto status =
      deps_.database.every(std::chrono::milliseconds(options_.retry_ms), [this] { retry(); });
  if (!status) return status;
  return deps_.database.every(std::chrono::milliseconds(options_.house_ms),
                              [this] { keep_house(); });
}

// ---- Work that must be done -------------------------------------------------------------------

void Memory::insist(Attempt attempt) {
  if (attempt()) return;
  std::lock_guard lock(mutex_);
  attempts_.push_back(std::move(attempt));
}

void Memory::retry() {
  std::vector<Attempt> attempts;
  {
    std::lock_guard lock(mutex_);
    attempts.swap(attempts_);
  }
  for (Attempt& attempt : attempts) insist(std::move(attempt));
}

void Memory::keep_house() {
  const TimeMs before_ms = deps_.clock.wall_ms() - options_.retention_ms;
  auto status = deps_.database.post<std::int64_t>(
      [before_ms](Sql& sql) { return store::expire_responses(sql, before_ms, kExpiredAtOnce); },
      [this](Result<std::int64_t> removed) {
        if (!removed) return;
        if (*removed > 0) WS_LOG(info, "responses expired count={}", *removed);
        if (*removed == kExpiredAtOnce) keep_house();
      });
  (void)status;  // no room now: the next time will do
}

// ---- From the row to the outcome --------------------------------------------------------------

Status Memory::submit(ResponseRow row, broker::Submission submission,
                      Callback<broker::Submitted> done) {
  const std::string tenant = row.tenant;
  const RequestId id = row.id;
  CHECK(submission.envelope.id() == id.to_string());
  auto submitted = [this, tenant, id, done](Result<broker::Submitted> result) {
    if (result && !result->duplicate) {
      watch(tenant, id);
    } else {
      drop_row(tenant, id);
    }
    done(std::move(result));
  };
  auto shared = std::make_shared<broker::Submission>(std::move(submission));
  return deps_.database.post<void>(
      [row = std::move(row)](Sql& sql) -> Result<void> {
        // A conversation that a chat names comes into being with its first turn.
        if (!row.conversation.empty() && row.api != "responses") {
          auto made =
              store::make_conversation(sql, row.tenant, {row.conversation, row.created_ms, "{}"});
          if (!made) return made;
        }
        return store::insert_response(sql, row);
      },
      [this, shared, submitted](Result<void> written) {
        if (!written) return submitted(written.error());
        auto status = api_->submit(std::move(*shared), submitted);
        if (!status) submitted(status.error());
      });
}

Status Memory::submit_turn(broker::Submission submission, Callback<broker::Submitted> done) {
  if (submission.choices > 1) {
    return Error{Code::kInvalidArgument, "n must be 1 when the server keeps the turns", "n"};
  }
  v1::Envelope& envelope = submission.envelope;
  if (envelope.id().empty()) envelope.set_id(new_id().to_string());
  const auto id = RequestId::parse(envelope.id());
  CHECK(id.has_value());
  auto items = message::items_of_chat(envelope.data(), *id);
  if (!items) return items.error();
  ResponseRow row;
  row.id = *id;
  row.tenant = envelope.tenant();
  row.created_ms = id->time_ms();
  row.api = "chat.completions";
  row.model = envelope.model();
  row.conversation = envelope.partitionkey();
  row.input = message::items_json(*items);
  submission.compose = true;
  submission.locked = options_.refuse_busy;
  return submit(std::move(row), std::move(submission), std::move(done));
}

void Memory::drop_row(const std::string& tenant, RequestId id) {
  insist([this, tenant, id] {
    return deps_.database.post<void>(
        [tenant, id](Sql& sql) { return store::remove_response(sql, tenant, id); },
        [this, id](Result<void> removed) {
          if (!removed) WS_LOG(warn, "row of a refused response stays request={}", id.to_string());
          wake(id, std::nullopt);
        });
  });
}

void Memory::watch(const std::string& tenant, RequestId id) {
  auto watcher = std::make_shared<Watcher>(*this, tenant, id);
  insist([this, watcher] {
    return api_->attach(watcher->tenant(), watcher->id(), 0, watcher,
                        [this, watcher](Result<broker::RequestView> view) {
                          if (!view) not_watched(watcher->tenant(), watcher->id(), view.error());
                        });
  });
}

void Memory::not_watched(const std::string& tenant, RequestId id, const Error& error) {
  if (error.code == Code::kNotFound) return drop_row(tenant, id);  // was never accepted
  if (error.code != Code::kGone) return interrupted(id, error);
  stream::Ending ending;
  ending.state = v1::REQUEST_STATE_FAILED;
  ending.failure.set_code(std::string(code_name(Code::kGone)));
  ending.failure.set_message("the server was down for so long that the answer was forgotten");
  insist([this, tenant, id, ending] {
    return write_outcome(tenant, id, std::make_shared<std::vector<stream::BlockPtr>>(), ending);
  });
}

void Memory::ended(const Watcher& watcher, stream::Ending ending) {
  insist([this, tenant = watcher.tenant(), id = watcher.id(), blocks = watcher.blocks(),
          ending = std::move(ending)] { return write_outcome(tenant, id, blocks, ending); });
}

Status Memory::write_outcome(std::string tenant, RequestId id,
                             std::shared_ptr<std::vector<stream::BlockPtr>> blocks,
                             stream::Ending ending) {
  return deps_.database.post<void>(
      [tenant, id, blocks, ending](Sql& sql) {
        return record_outcome(sql, tenant, id, *blocks, ending);
      },
      [this, tenant, id, blocks, ending](Result<void> written) {
        if (written) return wake(id, std::nullopt);
        if (written.error().code == Code::kUnavailable) {  // no room on the disk: later, perhaps
          std::lock_guard lock(mutex_);
          attempts_.push_back([this, tenant, id, blocks, ending] {
            return write_outcome(tenant, id, blocks, ending);
          });
          return;
        }
        WS_LOG(error, "outcome not stored request={} error=\"{}\"", id.to_string(),
               written.error().message);
        wake(id, written.error());
      });
}

void Memory::interrupted(RequestId id, const Error& error) {
  insist([this, id, error] {
    return deps_.database.post<void>([](Sql&) -> Result<void> { return {}; },
                                     [this, id, error](Result<void>) {
                                       interrupted_.insert_or_assign(id, error);
                                       wake(id, error);
                                     });
  });
}

void Memory::wake(RequestId id, const Result<std::optional<broker::RequestView>>& what) {
  const auto at = waiting_.find(id);
  if (at == waiting_.end()) return;
  auto waiters = std::move(at->second);
  waiting_.erase(at);
  for (const Settled& waiter : waiters) waiter(what);
}

// ---- Waiting for outcomes ---------------------------------------------------------------------

void Memory::settle(std::string tenant, RequestId id, Settled done) {
  const auto status =
      api_->get(tenant, id, [this, tenant, id, done](Result<broker::RequestView> view) {
        if (view && !stream::is_terminal(view->state)) return done(std::optional(*view));
        const Code code = view ? Code::kInternal : view.error().code;
        if (code == Code::kNotFound) {
          // Its row is written, and it isn't accepted yet (or never will be).
          broker::RequestView waits;
          waits.id = id;
          waits.state = v1::REQUEST_STATE_QUEUED;
          return done(std::optional(waits));
        }
        if (!view && code != Code::kGone) return done(view.error());
        wait_for_outcome(tenant, id, done);
      });
  if (!status) done(status.error());
}

void Memory::wait_for_outcome(std::string tenant, RequestId id, Settled done) {
  const auto status = deps_.database.post<bool>(
      [tenant, id](Sql& sql) -> Result<bool> {
        auto row = store::find_response(sql, tenant, id);
        if (!row) return row.error();
        return !*row || (*row)->ended;
      },
      [this, id, done](Result<bool> is_there) {
        if (!is_there) return done(is_there.error());
        if (*is_there) return done(std::nullopt);
        const auto interrupted = interrupted_.find(id);
        if (interrupted != interrupted_.end()) return done(interrupted->second);
        waiting_[id].push_back(done);
      });
  if (!status) done(status.error());
}

void Memory::settle_turns(std::string tenant, std::string conversation,
                          std::optional<RequestId> except, Callback<void> done) {
  using Pending = std::vector<store::PendingResponse>;
  const auto status = deps_.database.post<Pending>(
      [tenant, conversation](Sql& sql) {
        return store::pending_responses(sql, tenant, conversation);
      },
      [this, tenant, except, done](Result<Pending> pending) {
        if (!pending) return done(pending.error());
        struct Count {
          std::mutex mutex;
          std::size_t left = 1;
          std::optional<Error> error;
        };
        auto count = std::make_shared<Count>();
        const auto one_less = [count, done](const Error* error) {
          std::unique_lock lock(count->mutex);
          if (error != nullptr) count->error = *error;
          if (--count->left > 0) return;
          const std::optional<Error> failed = count->error;
          lock.unlock();
          done(failed ? Result<void>(*failed) : Result<void>());
        };
        for (const auto& turn : *pending) {
          if (except && turn.id == *except) continue;
          {
            std::lock_guard lock(count->mutex);
            ++count->left;
          }
          settle(tenant, turn.id, [one_less](Result<std::optional<broker::RequestView>> what) {
            one_less(what ? nullptr : &what.error());
          });
        }
        one_less(nullptr);
      });
  if (!status) done(status.error());
}

}  // namespace waystation::memory
