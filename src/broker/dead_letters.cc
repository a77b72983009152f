// Dead letters: their list, what becomes of them, and where their bodies are.
#include "broker/dead_letters.h"

#include <utility>

#include "broker/broker.h"
#include "broker/reply.h"

namespace waystation::broker {

Result<v1::Envelope> load_body(const journal::Journal& journal, RequestId id, LogIndex stored) {
  const auto bytes = journal.read(stored);
  if (!bytes) return bytes.error();
  v1::Record record;
  v1::Envelope* envelope = nullptr;
  if (record.ParseFromString(*bytes)) {
    if (record.has_accepted()) envelope = record.mutable_accepted()->mutable_envelope();
    const bool carried = record.carried().request() == id.to_bytes();
    if (carried && record.carried().has_envelope()) {
      envelope = record.mutable_carried()->mutable_envelope();
    }
  }
  if (envelope == nullptr || RequestId::parse(envelope->id()) != id) {
    return Error{Code::kGone, "the body of this request isn't kept any more; send it again"};
  }
  return std::move(*envelope);
}

// ---- Any thread -------------------------------------------------------------------------------

Status Broker::requeue(std::string tenant, RequestId id, Callback<Submitted> done) {
  return post([this, tenant = std::move(tenant), id, done = std::move(done)]() mutable {
    do_requeue(std::move(tenant), id, std::move(done));
  });
}

Status Broker::discard(std::string tenant, RequestId id, Callback<RequestView> done) {
  return post([this, tenant = std::move(tenant), id, done = std::move(done)]() mutable {
    do_discard(tenant, id, std::move(done));
  });
}

Status Broker::dead_letters(std::string tenant, std::optional<RequestId> after,
                            std::size_t count_max, Callback<std::vector<RequestView>> done) {
  return post(
      [this, tenant = std::move(tenant), after, count_max, done = std::move(done)]() mutable {
        using Views = std::vector<RequestView>;
        const auto found = ledger_->dead_letters(tenant, after, count_max);
        Result<Views> views = found ? Result<Views>(Views()) : Result<Views>(found.error());
        if (found) {
          for (const ledger::Request* letter : *found) views->push_back(view_of(*letter));
        }
        if (gate_.failed()) return done(std::move(views));  // the ledger is the durable state now
        when_durable(reply<Views>(std::move(done), std::move(views)));
      });
}

// ---- The broker's thread ----------------------------------------------------------------------

// The body of a dead letter is in the journal alone.
void Broker::do_requeue(std::string tenant, RequestId id, Callback<Submitted> done) {
  if (gate_.failed()) return done(accepting().error());
  const auto refuse = [&](const Error& error) {
    when_durable(reply<Submitted>(std::move(done), error));
  };
  const auto found = ledger_->find(tenant, id);
  if (!found) return refuse(found.error());
  const auto earlier = ledger_->check_requeue(**found);
  if (!earlier) return refuse(earlier.error());
  if (*earlier) {
    const Submitted submitted{
        .id = (*earlier)->id, .duplicate = true, .accepted_ms = (*earlier)->accepted_ms};
    return when_durable(reply<Submitted>(std::move(done), submitted));
  }
  if (const Status accepts = accepting(); !accepts) return refuse(accepts.error());
  // Where it lies is durable then.
  when_durable([this, tenant = std::move(tenant), id, stored = (*found)->stored_index,
                done = std::move(done)](const Error* lost) mutable {
    if (lost != nullptr) return done(*lost);
    deps_.background.run(
        [this, tenant = std::move(tenant), id, stored, done = std::move(done)]() mutable {
          auto body = load_body(*journal_, id, stored);
          inbox_.send_reserved([this, tenant = std::move(tenant), id, stored,
                                body = std::move(body), done = std::move(done)]() mutable {
            requeue_loaded(std::move(tenant), id, stored, std::move(body), std::move(done));
          });
        });
  });
}

void Broker::requeue_loaded(std::string tenant, RequestId id, LogIndex stored,
                            Result<v1::Envelope> body, Callback<Submitted> done) {
  if (gate_.failed()) return done(accepting().error());
  const auto found = ledger_->find(tenant, id);
  // Meanwhile it was dealt with, erased, or carried over to another place.
  const bool is_open = found && (*found)->open_letter();
  if (!is_open || (*found)->stored_index != stored) {
    return do_requeue(std::move(tenant), id, std::move(done));
  }
  if (const Status accepts = accepting(); !accepts) return done(accepts.error());
  if (!body) return when_durable(reply<Submitted>(std::move(done), body.error()));
  const std::string cache_key = body->cachekey();
  const RequestId new_id = RequestId::make(now_ms(), deps_.random(), deps_.random());
  const auto made = ledger_->requeue(id, std::move(*body), new_id, now_ms(), proposal_);
  absorb();
  if (!made) {
    metrics_.refused.add();
    return when_durable(reply<Submitted>(std::move(done), made.error()));
  }
  metrics_.accepted.add();
  if (!cache_key.empty()) cache_.put(cache_key, made->id);
  const Submitted submitted{.id = made->id, .accepted_ms = made->accepted_ms};
  when_durable(reply<Submitted>(std::move(done), submitted));
}

void Broker::do_discard(const std::string& tenant, RequestId id, Callback<RequestView> done) {
  if (gate_.failed()) return done(accepting().error());
  const auto found = ledger_->find(tenant, id);
  if (!found) return when_durable(reply<RequestView>(std::move(done), found.error()));
  const Status discarded = ledger_->discard(id, now_ms(), proposal_);
  absorb();
  when_durable(reply<RequestView>(std::move(done),
                                  discarded ? Result<RequestView>(view_of(*ledger_->find(id)))
                                            : Result<RequestView>(discarded.error())));
}

}  // namespace waystation::broker
