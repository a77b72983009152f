// Which request answered this before? From a cache key to the newest request that has it.
#pragma once

#include <cstddef>
#include <list>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/ids.h"

namespace waystation::cache {

// Not thread-safe. Bounded: beyond `keys_max` the least recently used key is dropped.
class ExactIndex {
 public:
  explicit ExactIndex(std::size_t keys_max) : keys_max_(keys_max) {}

  // The key's newest request is `id`.
  void put(const std::string& key, RequestId id);
  // Counts as a use.
  std::optional<RequestId> find(const std::string& key);
  std::size_t size() const { return entries_.size(); }

 private:
  using Entry = std::pair<std::string, RequestId>;
  const std::size_t keys_max_;
  std::list<Entry> by_use_;  // the most recently used first
  std::unordered_map<std::string, std::list<Entry>::iterator> entries_;
};

}  // namespace waystation::cache
