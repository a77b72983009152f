// What a reader of a request's stream gets. Live or replayed, it is the same blocks in the same order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "message/proto/records.pb.h"

namespace waystation::stream {

// Consecutive events of one request. Immutable and shared between readers.
struct Block {
  Sequence first = 0;
  std::vector<v1::Event> events;
  Sequence end() const { return first + events.size(); }
};
using BlockPtr = std::shared_ptr<const Block>;

// How a request ended.
struct Ending {
  v1::RequestState state = v1::REQUEST_STATE_UNSPECIFIED;
  std::string finish_reason;
  v1::Failure failure;  // code empty when there is none
  v1::Usage usage;
  Sequence sequence = 0;  // the number of the terminal frame: one past the last event
};

// Called on the owner's (broker's) thread: must not block, hands on to its own executor.
class Reader {
 public:
  virtual ~Reader() = default;
  // Blocks come without gaps from the number asked for. False = no room: the block was not taken and
  // the reader was let go; it attaches again from where it stands once it has room.
  virtual bool on_block(BlockPtr block) = 0;
  // The last call. Every event came before.
  virtual void on_end(const Ending& ending) = 0;
  // The last call when the stream can't go on here (journal failed, server ends): the request is not
  // over, it can be read again from a healthy server.
  virtual void on_interrupted(const Error& error) = 0;
  // It takes notes for the server itself: no client waits for it, so a request that has no other
  // readers has nobody who reads it.
  virtual bool observes() const { return false; }
};

}  // namespace waystation::stream
