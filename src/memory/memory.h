// What outlives a request: responses that can be fetched for weeks, and the turns of conversations.
// Keeps the store and the ledger in step, so that each request is in the store exactly once:
//
//   submit:  row in the store, durable ─▶ broker accepts ─▶ watcher reads along ─▶ outcome in the
//   row
//               crash ─▶ no such request: row removed          crash ─▶ start() watches again
//
// The outcome is written once: a row that has one is left alone. With it, in the same transaction,
// the turn's items are added to its conversation.
//
// Threads: all calls may come from any thread and return at once. An error returned by the call
// itself means that nothing was done; otherwise the callback is called once, on the store's or the
// broker's thread, and must not block. State that isn't in the store belongs to the store's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "broker/api.h"
#include "message/responses.h"
#include "store/bound_keys.h"
#include "store/conversations.h"
#include "store/responses.h"

namespace waystation::memory {

struct Options {
  TimeMs retention_ms = 30LL * 24 * 3600 * 1000;  // of an ended response, from when it was made
  TimeMs house_ms = 600'000;                      // how often expired ones are looked for
  TimeMs retry_ms = 200;     // what the store or the broker had no room for is tried again
  bool refuse_busy = false;  // a turn of a conversation that has one in flight is refused
};

struct Deps {
  store::Database& database;
  const Clock& clock;
  std::function<std::uint64_t()> random;  // any thread
};

template <typename T>
using Callback = broker::Callback<T>;

// A response as it stands.
struct Found {
  store::ResponseRow row;
  std::optional<broker::RequestView> view;  // while the row has no outcome
};

// A response request with what it builds on.
struct Context {
  message::ResponseRequest request;    // without references
  std::vector<message::Item> earlier;  // of the responses before it, oldest first
};

class Watcher;

class Memory final : public broker::Composer {
 public:
  Memory(Deps deps, Options options);
  // After the broker's and the store's threads have ended.
  ~Memory() override;

  // Takes up what an earlier server left without an outcome. Once, before anything else, and not
  // on the store's thread: waits for it. `api` outlives the store's thread.
  Status start(broker::Api& api);

  // For a new request or item.
  RequestId new_id() const;

  // Writes the row, submits, and sees to the outcome. The envelope's id must be the row's. A
  // refusal leaves no row; a duplicate neither, since the earlier request has its own.
  Status submit(store::ResponseRow row, broker::Submission submission,
                Callback<broker::Submitted> done);

  // A chat completion as a turn of the conversation that is its partitionkey: its body has only the
  // new messages. A leading system message takes the place of the conversation's. kInvalidArgument
  // for a request with several choices.
  Status submit_turn(broker::Submission submission, Callback<broker::Submitted> done);

  void compose(v1::Envelope envelope, Callback<std::string> done) override;

  bool refuses_busy() const { return options_.refuse_busy; }

  // ---- Responses
  // ---------------------------------------------------------------------------------

  // Finds the responses before it, the items it refers to, and whether its conversation exists.
  // kInvalidArgument with `param`; kNotFound for the conversation.
  Status prepare(std::string tenant, message::ResponseRequest request, Callback<Context> done);

  // What the object shows of its request (stream::RenderIdentity::echo); empty when there is no
  // row.
  Status find_echo(std::string tenant, RequestId id, Callback<std::string> done);

  // kNotFound also for what isn't the tenant's or wasn't to be stored. One that has ended has its
  // outcome, even if it ended just now.
  Status find(std::string tenant, RequestId id, Callback<Found> done);
  // Only background responses; one that has ended stays as it is.
  Status cancel(std::string tenant, RequestId id, Callback<Found> done);
  // With all that the broker still has of it. One that runs is cancelled first.
  Status remove(std::string tenant, RequestId id, Callback<void> done);

  // ---- Conversations: kNotFound when there is none
  // -------------------------------------------------

  // With a key that was used before it gives the conversation of that time, kGone when that was
  // deleted; kIdempotencyMismatch: for another body.
  Status create_conversation(std::string tenant, std::string metadata,
                             std::vector<message::Item> items, store::KeyUse use,
                             Callback<store::ConversationRow> done);
  Status get_conversation(std::string tenant, std::string id,
                          Callback<store::ConversationRow> done);
  Status update_conversation(std::string tenant, std::string id, std::string metadata,
                             Callback<store::ConversationRow> done);
  // Its turns that wait will fail, since what they were to build on is gone.
  Status remove_conversation(std::string tenant, std::string id, Callback<void> done);
  // Reads and changes come after the turns that have ended.
  Status add_items(std::string tenant, std::string id, std::vector<message::Item> items,
                   Callback<std::vector<message::Item>> done);
  Status list_items(std::string tenant, std::string id, store::PageQuery wanted,
                    Callback<store::ItemPage> done);
  Status get_item(std::string tenant, std::string id, std::string item,
                  Callback<message::Item> done);
  Status remove_item(std::string tenant, std::string id, std::string item,
                     Callback<store::ConversationRow> done);

 private:
  friend class Watcher;
  using Settled = Callback<std::optional<broker::RequestView>>;
  using Attempt = std::function<Status()>;

  // Work that must be done: what is refused now is tried again until it is taken.
  void insist(Attempt attempt);
  void retry();
  void keep_house();

  void watch(const std::string& tenant, RequestId id);
  void not_watched(const std::string& tenant, RequestId id, const Error& error);
  void drop_row(const std::string& tenant, RequestId id);
  // The watcher has it all.
  void ended(const Watcher& watcher, stream::Ending ending);
  void interrupted(RequestId id, const Error& error);
  Status write_outcome(std::string tenant, RequestId id,
                       std::shared_ptr<std::vector<stream::BlockPtr>> blocks,
                       stream::Ending ending);
  void wake(RequestId id, const Result<std::optional<broker::RequestView>>& what);

  // Calls back with nothing once the outcome is in the store (or the row gone), or with the view of
  // a request that isn't over.
  void settle(std::string tenant, RequestId id, Settled done);
  void wait_for_outcome(std::string tenant, RequestId id, Settled done);
  // All of a conversation's turns that are over, but for one.
  void settle_turns(std::string tenant, std::string conversation, std::optional<RequestId> except,
                    Callback<void> done);
  void erase(const std::string& tenant, RequestId id, const Callback<void>& done);
  void compose_now(v1::Envelope envelope, RequestId id, Callback<std::string> done);
  void prepare_now(std::string tenant, message::ResponseRequest request, Callback<Context> done);

  Deps deps_;
  const Options options_;
  broker::Api* api_ = nullptr;

  std::mutex mutex_;
  std::vector<Attempt> attempts_;  // under mutex_

  // The store's thread only.
  std::map<RequestId, std::vector<Settled>> waiting_;
  std::map<RequestId, Error> interrupted_;  // whose outcomes don't come before the next start
};

}  // namespace waystation::memory
