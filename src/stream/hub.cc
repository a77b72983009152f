#include "stream/hub.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace waystation::stream {
namespace {

// What a block costs to hold, near enough for a bound.
std::uint64_t cost_of(const Block& block) {
  std::uint64_t bytes = sizeof(Block);
  for (const v1::Event& event : block.events) bytes += event.SpaceUsedLong();
  return bytes;
}

// The events of a block from number `from` on.
BlockPtr tail_of(const BlockPtr& block, Sequence from) {
  if (from <= block->first) return block;
  auto tail = std::make_shared<Block>();
  tail->first = from;
  tail->events.assign(block->events.begin() + static_cast<std::ptrdiff_t>(from - block->first),
                      block->events.end());
  return tail;
}

}  // namespace

Hub::Log& Hub::log_of(RequestId id) {
  const auto at = logs_.find(id);
  CHECK(at != logs_.end());
  return at->second;
}

void Hub::open(RequestId id, Sequence visible) {
  const auto [at, added] = logs_.try_emplace(id);
  CHECK(added);
  at->second.first = visible;
  at->second.end = visible;
}

void Hub::append(RequestId id, BlockPtr block) {
  Log& log = log_of(id);
  CHECK(block->first == log.end && !log.ending);
  log.end = block->end();
  log.bytes += cost_of(*block);
  log.blocks.push_back(std::move(block));
  deliver(id, log);
}

void Hub::end(RequestId id, Ending ending) {
  Log& log = log_of(id);
  CHECK(!log.ending);
  log.ending = std::move(ending);
  log.ending->sequence = log.end;
  deliver(id, log);
  if (log.seats.empty()) set_idle(id, log);
  evict();
}

void Hub::deliver(RequestId id, Log& log) {
  // By index: a reader may not call back into the hub, but the vector shrinks as readers finish.
  for (std::size_t i = 0; i < log.seats.size();) {
    if (log.seats[i].lagging || catch_up(log, log.seats[i])) {
      ++i;
      continue;
    }
    log.seats.erase(log.seats.begin() + static_cast<std::ptrdiff_t>(i));
    --reader_count_;
  }
}

bool Hub::catch_up(Log& log, Seat& seat) {
  if (seat.next < log.end) {
    // Readers mostly wait for the newest block, so look from the back.
    std::size_t at = log.blocks.size();
    while (at > 0 && log.blocks[at - 1]->end() > seat.next) --at;
    for (; at < log.blocks.size(); ++at) {
      if (!seat.reader->on_block(tail_of(log.blocks[at], seat.next))) {
        seat.lagging = true;
        return true;
      }
      seat.next = log.blocks[at]->end();
    }
  }
  if (!log.ending) return true;
  seat.reader->on_end(*log.ending);
  return false;
}

bool Hub::attach(RequestId id, Sequence from, ReaderPtr reader) {
  Log& log = log_of(id);
  if (from < log.first) return false;
  std::erase_if(log.seats, [&](const Seat& seat) {
    if (seat.reader != reader) return false;
    --reader_count_;
    return true;
  });
  set_busy(log);
  Seat seat{std::move(reader), from, false};
  if (catch_up(log, seat)) {
    log.seats.push_back(std::move(seat));
    ++reader_count_;
  }
  if (log.ending && log.seats.empty()) set_idle(id, log);
  evict();
  return true;
}

void Hub::load(RequestId id, const std::vector<BlockPtr>& blocks) {
  Log& log = log_of(id);
  const bool was_idle = log.is_idle;
  set_busy(log);
  for (auto at = blocks.rbegin(); at != blocks.rend(); ++at) {
    if ((*at)->first >= log.first) continue;  // became visible, and so held, since the load began
    BlockPtr block = *at;
    if (block->end() > log.first) {
      auto head = std::make_shared<Block>();
      head->first = block->first;
      head->events.assign(
          block->events.begin(),
          block->events.begin() + static_cast<std::ptrdiff_t>(log.first - block->first));
      block = std::move(head);
    }
    CHECK(block->end() == log.first);
    log.first = block->first;
    log.bytes += cost_of(*block);
    log.blocks.push_front(std::move(block));
  }
  if (was_idle) set_idle(id, log);
}

Sequence Hub::first_held(RequestId id) const {
  const auto at = logs_.find(id);
  CHECK(at != logs_.end());
  return at->second.first;
}

std::size_t Hub::detach(RequestId id, const Reader* reader) {
  const auto at = logs_.find(id);
  if (at == logs_.end()) return 0;
  Log& log = at->second;
  const std::size_t gone =
      std::erase_if(log.seats, [reader](const Seat& seat) { return seat.reader.get() == reader; });
  reader_count_ -= gone;
  if (gone > 0 && log.seats.empty() && log.ending) {
    set_idle(id, log);
    evict();
    return 0;
  }
  return clients_of(log);
}

std::size_t Hub::readers(RequestId id) const {
  const auto at = logs_.find(id);
  return at == logs_.end() ? 0 : clients_of(at->second);
}

std::size_t Hub::clients_of(const Log& log) {
  return static_cast<std::size_t>(
      std::count_if(log.seats.begin(), log.seats.end(),
                    [](const Seat& seat) { return !seat.reader->observes(); }));
}

void Hub::set_idle(RequestId id, Log& log) {
  if (log.is_idle) return;
  log.idle = idle_.insert(idle_.end(), id);
  log.is_idle = true;
  idle_bytes_ += log.bytes + sizeof(Log);
}

void Hub::set_busy(Log& log) {
  if (!log.is_idle) return;
  idle_.erase(log.idle);
  log.is_idle = false;
  idle_bytes_ -= log.bytes + sizeof(Log);
}

void Hub::evict() {
  while (idle_bytes_ > ended_bytes_max_ && !idle_.empty()) {
    const RequestId id = idle_.front();
    set_busy(log_of(id));
    logs_.erase(id);
  }
}

void Hub::forget(RequestId id) {
  const auto at = logs_.find(id);
  if (at == logs_.end()) return;
  set_busy(at->second);
  const std::vector<Seat> seats = std::move(at->second.seats);
  reader_count_ -= seats.size();
  logs_.erase(at);
  for (const Seat& seat : seats) {
    seat.reader->on_interrupted({Code::kGone, "the request was deleted, or is past its retention"});
  }
}

void Hub::interrupt_all(const Error& error) {
  for (auto& [id, log] : logs_) {
    for (Seat& seat : log.seats) seat.reader->on_interrupted(error);
    log.seats.clear();
    if (log.ending) set_idle(id, log);
  }
  reader_count_ = 0;
}

}  // namespace waystation::stream
