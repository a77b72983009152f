#include "cache/exact_index.h"

namespace waystation::cache {

void ExactIndex::put(const std::string& key, RequestId id) {
  if (const auto known = entries_.find(key); known != entries_.end()) {
    known->second->second = id;
    by_use_.splice(by_use_.begin(), by_use_, known->second);
    return;
  }
  if (keys_max_ == 0) return;
  by_use_.emplace_front(key, id);
  entries_.emplace(key, by_use_.begin());
  if (entries_.size() > keys_max_) {
    entries_.erase(by_use_.back().first);
    by_use_.pop_back();
  }
}

std::optional<RequestId> ExactIndex::find(const std::string& key) {
  const auto known = entries_.find(key);
  if (known == entries_.end()) return std::nullopt;
  by_use_.splice(by_use_.begin(), by_use_, known->second);
  return known->second->second;
}

}  // namespace waystation::cache
