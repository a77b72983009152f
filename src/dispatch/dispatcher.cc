#include "dispatch/dispatcher.h"

#include <algorithm>

#include "base/check.h"

namespace waystation::dispatch {
namespace {
constexpr std::size_t kLanesRemembered = 16'384;
constexpr std::uint64_t kShare = 1 << 20;
}  // namespace

const Service* Dispatcher::Worker::service(const std::string& model) const {
  const auto& all = offer.services;
  const auto at = std::find_if(all.begin(), all.end(),
                               [&](const Service& service) { return service.model == model; });
  return at == all.end() ? nullptr : &*at;
}

bool Dispatcher::Worker::can_continue(const Need& need) const {
  const Service* mine = service(need.model);
  if (mine == nullptr) return false;
  return mine->prefills || (!need.fingerprint.empty() && mine->fingerprint == need.fingerprint);
}

Dispatcher::Dispatcher(std::unique_ptr<Policy> policy) : policy_(std::move(policy)) {}

void Dispatcher::add(WorkerId worker, std::string name, Offer offer) {
  Worker state{std::move(name), std::move(offer)};
  // It begins beside those that are there, not with all the work that they got before it came.
  std::optional<std::uint64_t> least;
  for (const auto& [id, other] : workers_)
    least = std::min(least.value_or(other.taken), other.taken);
  state.taken = least.value_or(0);
  workers_.emplace_back(worker, std::move(state));
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

bool Dispatcher::somebody_continues(const Need& need) const {
  return std::any_of(workers_.begin(), workers_.end(), [&](const auto& entry) {
    return !entry.second.leaving && entry.second.can_continue(need);
  });
}

std::optional<WorkerId> Dispatcher::pick(const Need& need) {
  if (need.alone) return pick_alone(need);
  const auto known = need.lane.empty() ? lane_index_.end() : lane_index_.find(need.lane);
  const std::optional<WorkerId> prefix_holder = prefixes_.holder(need.prefix);
  const bool must_continue = need.begun && somebody_continues(need);
  std::optional<std::uint32_t> rank;
  std::optional<WorkerId> avoided;
  candidates_.clear();
  for (const auto& [id, state] : workers_) {
    if (!state.open() || state.service(need.model) == nullptr) continue;
    if (must_continue && !state.can_continue(need)) continue;
    if (!need.avoid.empty() && state.name == need.avoid) {
      avoided = id;
      continue;
    }
    if (rank && state.offer.rank > *rank) continue;
    if (rank && state.offer.rank < *rank) candidates_.clear();
    rank = state.offer.rank;
    const bool ran_lane = known != lane_index_.end() && known->second->second == id;
    candidates_.push_back({id, state.offer.slots, state.in_flight, ran_lane, prefix_holder == id,
                           state.offer.weight, state.taken});
  }
  if (candidates_.empty() && !avoided) return std::nullopt;
  const WorkerId chosen =
      candidates_.empty() ? *avoided : candidates_[policy_->choose(candidates_)].worker;
  for (auto& [id, state] : workers_) {
    if (id != chosen) continue;
    ++state.in_flight;
    state.taken += kShare / std::max(state.offer.weight, 1U);
  }
  if (!need.lane.empty()) remember(need.lane, chosen);
  prefixes_.remember(need.prefix, chosen);
  return chosen;
}

std::optional<WorkerId> Dispatcher::pick_alone(const Need& need) {
  Worker* least = nullptr;
  const bool must_continue = need.begun && somebody_continues(need);
  for (auto& [id, state] : workers_) {
    if (state.leaving || state.alone || state.reserved) continue;
    if (state.service(need.model) == nullptr) continue;
    if (must_continue && !state.can_continue(need)) continue;
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
                     [&](const auto& entry) { return entry.second.service(model) != nullptr; });
}

bool Dispatcher::has_choice(const std::string& model) const {
  return std::count_if(workers_.begin(), workers_.end(), [&](const auto& entry) {
           return entry.second.service(model) != nullptr;
         }) > 1;
}

bool Dispatcher::has_credit(const std::string& model) const {
  return std::any_of(workers_.begin(), workers_.end(), [&](const auto& entry) {
    const Worker& state = entry.second;
    return !state.leaving && !state.alone && state.in_flight < state.offer.slots &&
           state.service(model) != nullptr;
  });
}

std::uint32_t Dispatcher::slots() const {
  std::uint32_t total = 0;
  for (const auto& [id, state] : workers_) total += state.offer.slots;
  return total;
}

}  // namespace waystation::dispatch
