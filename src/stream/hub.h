// The hub: what readers may see of each request, and who is reading. It holds the visible events of
// live requests, and of as many ended ones as fit; older ones are loaded from the journal by the
// owner (see history.h) and handed in with `load`.
//
// Everything that is put in is visible: it is durable already (invariant I2).
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "stream/reader.h"

namespace waystation::stream {

using ReaderPtr = std::shared_ptr<Reader>;

// Owned and called by the broker's thread.
class Hub {
 public:
  // `ended_bytes_max`: bound on what is held of ended requests that nobody reads.
  explicit Hub(std::uint64_t ended_bytes_max) : ended_bytes_max_(ended_bytes_max) {}

  // Begins to hold a live request, of which `visible` events exist already (in the journal alone).
  void open(RequestId id, Sequence visible);
  bool holds(RequestId id) const { return logs_.contains(id); }

  // The next events are visible. The request must be held.
  void append(RequestId id, BlockPtr block);
  // Its sequence is filled in here: one past what is visible, which is all there will be.
  void end(RequestId id, Ending ending);

  // Joins a reader from event `from` on. False: events before what is held are needed first; `load`
  // them and attach again. The request must be held. A reader that attaches again moves.
  bool attach(RequestId id, Sequence from, ReaderPtr reader);

  // Puts the events before those held in front of them. `blocks` are contiguous from 0.
  void load(RequestId id, const std::vector<BlockPtr>& blocks);
  // The number of the first event that is held.
  Sequence first_held(RequestId id) const;

  // Lets a reader go; gives how many readers the request still has.
  std::size_t detach(RequestId id, const Reader* reader);
  std::size_t readers(RequestId id) const;
  std::size_t readers() const { return reader_count_; }

  // Nothing of the request is held any more; who still reads it hears that it is gone.
  void forget(RequestId id);

  // Every reader hears that its stream can't go on here.
  void interrupt_all(const Error& error);

 private:
  struct Seat {
    ReaderPtr reader;
    Sequence next = 0;     // the event it gets next
    bool lagging = false;  // had no room; gets nothing until it attaches again
  };
  struct Log {
    Sequence first = 0;  // of the first block held
    Sequence end = 0;
    std::deque<BlockPtr> blocks;
    std::uint64_t bytes = 0;
    std::optional<Ending> ending;
    std::vector<Seat> seats;
    std::list<RequestId>::iterator idle;  // in idle_, when ended and without readers
    bool is_idle = false;
  };

  // Gives a seat all that it hasn't seen. False when the reader is done (it got the ending).
  bool catch_up(Log& log, Seat& seat);
  void deliver(RequestId id, Log& log);
  void set_idle(RequestId id, Log& log);
  void set_busy(Log& log);
  void evict();
  Log& log_of(RequestId id);
  // Its readers but for those that only observe.
  static std::size_t clients_of(const Log& log);

  const std::uint64_t ended_bytes_max_;
  std::unordered_map<RequestId, Log> logs_;
  std::list<RequestId> idle_;  // ended ones without readers, the longest idle first
  std::uint64_t idle_bytes_ = 0;
  std::size_t reader_count_ = 0;
};

}  // namespace waystation::stream
