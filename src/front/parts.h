// The parts of the server that the front door can do without: each may be absent, and then what needs
// it is refused with a message that says so.
#pragma once

#include <functional>

#include "base/result.h"
#include "broker/api.h"

namespace waystation::batch {
class Runner;
}
namespace waystation::memory {
class Memory;
}
namespace waystation::queue {
class Station;
}
namespace waystation::store {
class Files;
}

namespace waystation::front {

struct Parts {
  // Uploaded files, and the batches that are made of them; null: their calls are refused.
  store::Files* files = nullptr;
  batch::Runner* batches = nullptr;

  // Queues for people's own jobs; null: /v1/queues is refused.
  queue::Station* queues = nullptr;

  // Keeps responses and conversations; null: there are none, and /v1/responses is refused. With it,
  // the two functions below are its submit_turn and find_echo.
  memory::Memory* memory = nullptr;

  // Submits a request as a turn of its conversation, whose earlier turns the server knows
  // (X-Conversation-Memory): the same call as broker::Api::submit, with the same promises, but the
  // part `memory` remembers the turn and has the broker compose its prompt. The envelope has a
  // partitionkey and a chat body with only the new messages. Empty: conversation memory is off.
  std::function<Status(broker::Submission, broker::Callback<broker::Submitted>)> submit_turn;

  // What must be shown again of a Responses request (stream::RenderIdentity::echo), for its events
  // and its result under /v1/requests/{id}. `done` on any thread, once. Empty: it has none.
  std::function<void(std::string tenant, RequestId id, broker::Callback<std::string> done)> find_echo;
};

}  // namespace waystation::front
