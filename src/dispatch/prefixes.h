// Who computed the beginning of a prompt before: chats without a conversation of ours send their
// whole history with each turn, and a worker that ran the last one has most of it in its cache.
//
// Prompts are compared by their requests' bytes, in blocks, each block's hash taking in the ones
// before it: two turns of a chat are the same bytes up to the end of the first one's messages.
// Approximate in the way of other cache-aware routers: nobody tells us what a worker dropped from
// its cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"

namespace waystation::dispatch {

// The hashes of `data`'s whole blocks of 128 bytes, 128 of them at most. `scope` keeps apart what
// must not be compared: another tenant's, another model's.
std::vector<std::uint64_t> prefix_chain(std::string_view scope, std::string_view data);

// Bounded: of what it was told it keeps the newest 32,768 to 65,536 blocks.
class PrefixIndex {
 public:
  // Who had the longest known beginning of this chain, if that is at least half of it.
  std::optional<WorkerId> holder(const std::vector<std::uint64_t>& chain) const;
  void remember(const std::vector<std::uint64_t>& chain, WorkerId worker);

 private:
  using Blocks = std::unordered_map<std::uint64_t, WorkerId>;
  const WorkerId* find(std::uint64_t block) const;
  Blocks new_;
  Blocks old_;
};

}  // namespace waystation::dispatch
