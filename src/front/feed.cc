#include "front/feed.h"

#include "base/log.h"

namespace waystation::front {

Feed::Feed(const Deps& deps, ExchangePtr exchange, std::unique_ptr<Sink> sink, bool makes_request)
    : deps_(deps),
      exchange_(std::move(exchange)),
      sink_(std::move(sink)),
      makes_request_(makes_request),
      inbox_(std::make_shared<Inbox>(
          exchange_->loop(),
          Inbox::Limits{deps.options.reader_events_max, deps.options.reader_bytes_max})),
      last_write_us_(exchange_->request().received_us) {}

std::shared_ptr<Feed> Feed::make(const Deps& deps, ExchangePtr exchange, std::unique_ptr<Sink> sink,
                                 bool makes_request) {
  std::shared_ptr<Feed> feed(new Feed(deps, exchange, std::move(sink), makes_request));
  feed->inbox_->set_owner(feed);
  exchange->set_activity(feed);
  return feed;
}

void Feed::submit(broker::Submission submission, const Submit& how) {
  submission.reader = inbox_;
  joined_ = true;
  is_cacheable_ = submission.cache != broker::CacheUse::kNone;
  // The callback keeps this feed alive: a client that left meanwhile must still be reported.
  auto done = [self = shared_from_this(),
               waits = sink_->waits_for_events()](Result<broker::Submitted> submitted) {
    if (!submitted) return self->inbox_->on_identity(submitted.error());
    // A duplicate is yet to be joined.
    const bool wake = !waits || submitted->duplicate;
    self->inbox_->on_identity(Identity{submitted->id, submitted->accepted_ms, submitted->duplicate,
                                       submitted->cached, std::nullopt},
                              wake);
  };
  const auto status = how ? how(std::move(submission), std::move(done))
                          : deps_.api.submit(std::move(submission), std::move(done));
  if (!status) fail(status.error());
}

void Feed::attach(RequestId id, Sequence from) {
  next_ = from;
  joined_ = true;
  const auto status = deps_.api.attach(
      exchange_->request().tenant, id, from, inbox_,
      [self = shared_from_this()](Result<broker::RequestView> view) {
        if (!view) return self->inbox_->on_identity(view.error());
        const Identity identity{view->id, view->accepted_ms, false, false, std::move(*view)};
        self->inbox_->on_identity(identity);
      });
  if (!status) fail(status.error());
}

// Joins (again) from where the client stands.
void Feed::join() {
  join_again_ = false;
  const auto status = deps_.api.attach(exchange_->request().tenant, *id_, next_, inbox_,
                                       [inbox = inbox_](Result<broker::RequestView> view) {
                                         if (!view) inbox->on_interrupted(view.error());
                                       });
  // Too busy to take the call: the next tick tries again.
  if (!status) join_again_ = true;
}

void Feed::pump() {
  if (done_) return;
  const auto self = shared_from_this();
  // A client that hasn't taken the last bytes yet gets no more; the inbox fills, then lets go.
  if (exchange_->unsent_bytes() > 0 && !gone_) return;
  Inbox::Content content = inbox_->take();
  if (content.identity) identify(std::move(*content.identity));
  if (done_) return;
  for (const auto& block : content.blocks) {
    take_block(*block);
    if (done_) return;
  }
  if (content.ending) {
    done_ = true;
    sink_->on_ending(*content.ending);
    return finish();
  }
  if (content.interruption) return fail(*content.interruption);
  if (content.let_go) join();
  if (!content.blocks.empty()) {
    last_write_us_ = exchange_->loop()->now_us();
    sink_->flush();
  }
}

void Feed::identify(Result<Identity> identity) {
  if (!identity) return fail(identity.error());
  id_ = identity->id;
  exchange_->set_request_id(id_->to_string());
  if (is_cacheable_) exchange_->add_header("X-Cache", identity->cached ? "hit" : "miss");
  if (gone_) {
    done_ = true;
    // A duplicate was never joined: the earlier request has its own readers.
    if (!identity->duplicate) let_go(true);
    return finish();
  }
  if (auto response = sink_->on_identity(*identity)) {
    done_ = true;
    let_go(false);
    exchange_->reply(std::move(*response));
    return finish();
  }
  if (identity->duplicate) join();
}

void Feed::take_block(const stream::Block& block) {
  Sequence sequence = block.first;
  for (const v1::Event& event : block.events) {
    if (sequence > next_) {
      WS_LOG(error, "gap in a stream request={} expected={} got={}", id_->to_string(), next_,
             sequence);
      let_go(false);
      return fail({Code::kInternal,
                   "the server lost its place in this stream; read the rest from "
                   "/v1/requests/{id}/events"});
    }
    // Joining twice may bring some events again.
    if (sequence == next_) {
      if (!saw_event_ && makes_request_) {
        deps_.first_event_seconds.observe(
            static_cast<double>(exchange_->loop()->now_us() - exchange_->request().received_us) /
            1e6);
      }
      saw_event_ = true;
      sink_->on_event(sequence, event);
      ++next_;
    }
    ++sequence;
  }
}

void Feed::fail(const Error& error) {
  done_ = true;
  if (!gone_) sink_->on_error(error);
  finish();
}

void Feed::finish() {
  done_ = true;
  inbox_->close();
}

void Feed::let_go(bool client_gone) {
  if (id_ && joined_) deps_.api.detach(*id_, inbox_, client_gone);
}

void Feed::on_tick(std::int64_t now_us) {
  if (done_) return;
  const auto self = shared_from_this();
  if (!id_) pump();
  if (done_ || !id_) return;
  if (join_again_) join();
  const std::int64_t hold_us = std::int64_t{deps_.options.hold_back_ms} * 1000;
  if (!waited_ && now_us - exchange_->request().received_us >= hold_us) {
    waited_ = true;
    sink_->on_silence();
  }
  const std::int64_t quiet_us = std::int64_t{deps_.options.keep_alive_ms} * 1000;
  if (now_us - last_write_us_ >= quiet_us && exchange_->unsent_bytes() == 0) {
    last_write_us_ = now_us;
    sink_->on_quiet();
  }
}

void Feed::on_half_closed() {
  if (!done_ && id_) sink_->on_quiet();
}

void Feed::on_gone() {
  if (done_) return;
  if (!id_) {
    gone_ = true;  // the answer to submit or attach brings the id, if it isn't there yet
    inbox_->insist();
    pump();
    return;
  }
  done_ = true;
  let_go(makes_request_);  // who only reads along takes no request with it
  finish();
}

void Feed::on_stop() {
  if (done_) return;
  const auto self = shared_from_this();
  if (!id_) pump();
  if (done_) return;
  let_go(false);
  fail({Code::kUnavailable,
        "the server is shutting down; the request is kept, read on at /v1/requests/" +
            (id_ ? id_->to_string() : std::string("{id}")) + "/events"});
}

}  // namespace waystation::front
