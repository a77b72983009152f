#include "dispatch/dispatcher.h"

#include <algorithm>

#include "base/check.h"

namespace waystation::dispatch {
namespace {
constexpr std::size_t kLanesRemembered = 16'384;
}

bool Dispatcher::Worker::serves(const std::string& model) const {
  return std::find(models.begin(), models.end(), model) != models.end();
}

Dispatcher::Dispatcher(std::unique_ptr<Policy> policy) : policy_(std::move(policy)) {}

void Dispatcher::add(WorkerId worker, std::vector<std::string> models, std::uint32_t slots) {
  workers_.emplace_back(worker, Worker{std::move(models), slots});
}

void Dispatcher::remove(WorkerId worker) {
  std::erase_if(workers_, [worker](const auto& entry) { return entry.first == worker; });
}

void Dispatcher::set_leaving(WorkerId worker) {
  for (auto& [id, state] : workers_) {
    if (id == worker) state.leaving = true;
  }
}

void Dispatcher::begin_round() {
  for (auto& [id, state] : workers_) state.reserved = false;
}

std::optional<WorkerId> Dispatcher::pick(const std::string& model, const std::string& lane,
                                         bool alone) {
  if (alone) return pick_alone(model);
  const auto known = lane.empty() ? lane_index_.end() : lane_index_.find(lane);
  candidates_.clear();
  for (const auto& [id, state] : workers_) {
    if (!state.open() || !state.serves(model)) continue;
    const bool ran_lane = known != lane_index_.end() && known->second->second == id;
    candidates_.push_back({id, state.slots, state.in_flight, ran_lane});
  }
  if (candidates_.empty()) return std::nullopt;
  const WorkerId chosen = candidates_[policy_->choose(candidates_)].worker;
  for (auto& [id, state] : workers_) {
    if (id == chosen) ++state.in_flight;
  }
  if (!lane.empty()) remember(lane, chosen);
  return chosen;
}

std::optional<WorkerId> Dispatcher::pick_alone(const std::string& model) {
  Worker* least = nullptr;
  for (auto& [id, state] : workers_) {
    if (state.leaving || state.alone || state.reserved || !state.serves(model)) continue;
    if (state.in_flight == 0) {
      state.in_flight = 1;
      state.alone = true;
      return id;
    }
    if (least == nullptr || state.in_flight < least->in_flight) least = &state;
  }
  if (least != nullptr) least->reserved = true;
  return std::nullopt;
}

void Dispatcher::remember(const std::string& lane, WorkerId worker) {
  if (const auto known = lane_index_.find(lane); known != lane_index_.end()) {
    known->second->second = worker;
    lanes_.splice(lanes_.begin(), lanes_, known->second);
    return;
  }
  lanes_.emplace_front(lane, worker);
  lane_index_.emplace(lane, lanes_.begin());
  if (lanes_.size() > kLanesRemembered) {
    lane_index_.erase(lanes_.back().first);
    lanes_.pop_back();
  }
}

void Dispatcher::release(WorkerId worker) {
  for (auto& [id, state] : workers_) {
    if (id != worker) continue;
    CHECK(state.in_flight > 0);
    --state.in_flight;
    state.alone = false;
  }
}

bool Dispatcher::serves(const std::string& model) const {
  return std::any_of(workers_.begin(), workers_.end(),
                     [&](const auto& entry) { return entry.second.serves(model); });
}

bool Dispatcher::has_credit(const std::string& model) const {
  return std::any_of(workers_.begin(), workers_.end(), [&](const auto& entry) {
    const Worker& state = entry.second;
    return !state.leaving && !state.alone && state.in_flight < state.slots && state.serves(model);
  });
}

std::uint32_t Dispatcher::slots() const {
  std::uint32_t total = 0;
  for (const auto& [id, state] : workers_) total += state.slots;
  return total;
}

}  // namespace waystation::dispatch
