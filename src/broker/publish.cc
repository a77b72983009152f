// What readers see of the records, each once it is durable: through the gate to the hub.
#include <memory>
#include <utility>

#include "broker/broker.h"

namespace waystation::broker {
namespace {

stream::Ending ending_of(const v1::Settled& settled) {
  return {settled.state(), settled.finish_reason(), settled.failure(), settled.usage()};
}

Counter& ended_in(Metrics& metrics, v1::RequestState state) {
  switch (state) {
    case v1::REQUEST_STATE_COMPLETED:
      return metrics.completed;
    case v1::REQUEST_STATE_FAILED:
      return metrics.failed;
    case v1::REQUEST_STATE_CANCELLED:
      return metrics.cancelled;
    case v1::REQUEST_STATE_EXPIRED:
      return metrics.expired;
    default:
      return metrics.dead;
  }
}

}  // namespace

void Broker::publish(v1::Record& record, LogIndex index) {
  switch (record.body_case()) {
    case v1::Record::kAccepted: {
      const auto id = RequestId::parse(record.accepted().envelope().id());
      gate_.add(index, [this, id = *id](const Error* lost) {
        if (lost == nullptr) hub_.open(id, 0);
      });
      return;
    }
    case v1::Record::kAppended:
      return publish_events(*record.mutable_appended(), index);
    case v1::Record::kSettled:
      return publish_end(record.settled(), index);
    case v1::Record::kForgotten:
      for (const std::string& id : record.forgotten().requests()) publish_gone(id, index);
      return;
    case v1::Record::kErased:
      return publish_gone(record.erased().request(), index);
    case v1::Record::kAttemptEnded:
      metrics_.attempts_lost.add();
      return;
    default:
      return;
  }
}

void Broker::publish_events(v1::Appended& appended, LogIndex index) {
  const auto id = RequestId::from_bytes(appended.request());
  auto block = std::make_shared<stream::Block>();
  block->first = appended.first_sequence();
  block->events.assign(std::make_move_iterator(appended.mutable_events()->begin()),
                       std::make_move_iterator(appended.mutable_events()->end()));
  std::size_t tokens = 0;
  bool brings_something = false;
  for (const v1::Event& event : block->events) {
    brings_something |= event.kind() == v1::EVENT_KIND_DELTA;
    tokens += static_cast<std::size_t>(event.token_ids_size()) + event.text_tokens();
  }
  const ledger::Request* request = ledger_->find(*id);
  // The starts of the choices come first, then the first token.
  const Sequence starts = request == nullptr ? 1 : request->choice_count;
  const bool first = brings_something && block->first <= starts && block->end() > starts;
  const TimeMs accepted_ms = request == nullptr ? 0 : request->accepted_ms;
  gate_.add(index, [this, id = *id, block = std::move(block), tokens, first,
                    accepted_ms](const Error* lost) {
    if (lost != nullptr) return;
    metrics_.tokens.add(static_cast<double>(tokens));
    if (first) {
      metrics_.first_token_seconds.observe(static_cast<double>(now_ms() - accepted_ms) / 1000);
    }
    hub_.append(id, block);
  });
}

void Broker::publish_end(const v1::Settled& settled, LogIndex index) {
  const auto id = RequestId::from_bytes(settled.request());
  const ledger::Request& request = *ledger_->find(*id);
  const double seconds = static_cast<double>(request.ended_ms - request.accepted_ms) / 1000;
  gate_.add(index, [this, id = *id, seconds, ending = ending_of(settled)](const Error* lost) {
    if (lost != nullptr) return;
    ended_in(metrics_, ending.state).add();
    metrics_.duration_seconds.observe(seconds);
    hub_.end(id, ending);
  });
}

void Broker::publish_gone(const std::string& request, LogIndex index) {
  gate_.add(index, [this, id = *RequestId::from_bytes(request)](const Error* lost) {
    if (lost == nullptr) hub_.forget(id);
  });
}

}  // namespace waystation::broker
