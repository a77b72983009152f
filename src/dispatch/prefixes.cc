#include "dispatch/prefixes.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace waystation::dispatch {
namespace {
constexpr std::size_t kBlockBytes = 128;
constexpr std::size_t kBlocksMax = 128;
constexpr std::size_t kRemembered = 32'768;
}  // namespace

std::vector<std::uint64_t> prefix_chain(std::string_view scope, std::string_view data) {
  const std::hash<std::string_view> hash;
  std::vector<std::uint64_t> chain;
  const std::size_t blocks = std::min(data.size() / kBlockBytes, kBlocksMax);
  chain.reserve(blocks);
  std::uint64_t so_far = hash(scope);
  for (std::size_t i = 0; i < blocks; ++i) {
    so_far = so_far * 0x9e3779b97f4a7c15 + hash(data.substr(i * kBlockBytes, kBlockBytes));
    chain.push_back(so_far);
  }
  return chain;
}

const WorkerId* PrefixIndex::find(std::uint64_t block) const {
  for (const Blocks* blocks : {&new_, &old_}) {
    if (const auto at = blocks->find(block); at != blocks->end()) return &at->second;
  }
  return nullptr;
}

std::optional<WorkerId> PrefixIndex::holder(const std::vector<std::uint64_t>& chain) const {
  for (std::size_t blocks = chain.size(); blocks > 0 && blocks * 2 >= chain.size(); --blocks) {
    if (const WorkerId* worker = find(chain[blocks - 1])) return *worker;
  }
  return std::nullopt;
}

void PrefixIndex::remember(const std::vector<std::uint64_t>& chain, WorkerId worker) {
  for (const std::uint64_t block : chain) new_.insert_or_assign(block, worker);
  if (new_.size() < kRemembered) return;
  old_ = std::exchange(new_, {});
}

}  // namespace waystation::dispatch
