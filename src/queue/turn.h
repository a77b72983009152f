// One use of the station's lock, for its own .cc files.
#pragma once

#include <utility>

#include "queue/station.h"

namespace waystation::queue {

// Holds the lock; at its end hands the records to the journal, gives consumers what there is, and
// then, without the lock, does what was left to do.
class Station::Turn {
 public:
  explicit Turn(Station& station) : station_(station), lock_(station.mutex_) {}
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  ~Turn() {
    std::uint64_t bytes = 0;
    for (const std::string& record : records) bytes += record.size();
    station_.since_checkpoint_ += bytes;
    if (!records.empty()) station_.journal_->append(std::move(records), station_.now_ms());
    for (const QueueId queue : changed) station_.dispatch(*this, queue);
    lock_.unlock();
    for (Waiting& each : ready) each.effect(lost ? &*lost : nullptr);
    for (Waiting& each : ready) {
      if (each.sink) each.sink->kick();
    }
    for (const auto& consumer : touched) consumer->kick();
    for (auto& [consumer, why] : closed) consumer->on_closed(why);
  }

  Proposal records;
  std::vector<QueueId> changed;  // queues that may have something to give
  std::vector<Waiting> ready;    // effects that may leave
  std::optional<Error> lost;     // they hear this instead
  std::vector<std::shared_ptr<Consumer>> touched;
  std::vector<std::pair<std::shared_ptr<Consumer>, Error>> closed;

 private:
  Station& station_;
  std::unique_lock<std::mutex> lock_;
};

// At once, since it depends on nothing.
template <typename T>
void Station::refuse(Turn& turn, Done<T> done, Error error) {
  turn.ready.push_back({{},
                        [done = std::move(done), error = std::move(error)](const Error*) mutable {
                          done(std::move(error));
                        },
                        nullptr});
}

// When all that the ledger knows now is durable.
template <typename T>
void Station::answer(Turn& turn, Done<T> done, Result<T> result, std::shared_ptr<Sink> sink) {
  if (failure_) return refuse<T>(turn, std::move(done), *failure_);
  Waiting waiting{ledger_.index(),
                  [done = std::move(done), result = std::move(result)](const Error* lost) mutable {
                    if (lost != nullptr) {
                      done(*lost);
                    } else {
                      done(std::move(result));
                    }
                  },
                  std::move(sink)};
  if (gate_.empty() && waiting.seen <= durable_) {
    turn.ready.push_back(std::move(waiting));
  } else {
    gate_.push_back(std::move(waiting));
  }
}

// Nothing when the answer was given: there is no such queue, or nothing is answered any more.
template <typename T>
std::optional<QueueId> Station::find(Turn& turn, const std::string& tenant, const std::string& name,
                                     Done<T>& done) {
  if (failure_) {
    refuse<T>(turn, std::move(done), *failure_);
    return std::nullopt;
  }
  auto found = ledger_.find(tenant, name);
  if (found) return *found;
  answer<T>(turn, std::move(done), found.error());
  return std::nullopt;
}

}  // namespace waystation::queue
