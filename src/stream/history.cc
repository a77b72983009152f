#include "stream/history.h"

#include <memory>
#include <utility>

namespace waystation::stream {

Result<std::vector<BlockPtr>> load_history(const journal::Journal& journal, RequestId id,
                                           const std::vector<LogIndex>& positions) {
  const std::string id_bytes = id.to_bytes();
  std::vector<BlockPtr> blocks;
  blocks.reserve(positions.size());
  Sequence next = 0;
  for (const LogIndex position : positions) {
    const auto bytes = journal.read(position);
    if (!bytes) return bytes.error();
    v1::Record record;
    auto block = std::make_shared<Block>();
    block->first = next;
    bool fits = record.ParseFromString(*bytes);
    if (fits && record.has_appended()) {
      v1::Appended& appended = *record.mutable_appended();
      fits = appended.request() == id_bytes && appended.first_sequence() == next;
      block->events.assign(std::make_move_iterator(appended.mutable_events()->begin()),
                           std::make_move_iterator(appended.mutable_events()->end()));
    } else if (fits && record.has_carried()) {
      v1::Carried& carried = *record.mutable_carried();
      fits = carried.request() == id_bytes && next == 0;
      block->events.assign(std::make_move_iterator(carried.mutable_events()->begin()),
                           std::make_move_iterator(carried.mutable_events()->end()));
    } else {
      fits = false;
    }
    if (!fits) {
      return Error{Code::kCorruption, "journal record " + std::to_string(position.value) +
                                          " doesn't hold the events of request " + id.to_string()};
    }
    next = block->end();
    blocks.push_back(std::move(block));
  }
  return blocks;
}

}  // namespace waystation::stream
