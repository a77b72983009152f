// Where the broker's thread leaves what a stream needs, for the stream's loop to fetch: bounded,
// and one wake-up for however much comes in a burst.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "broker/api.h"
#include "front/loop.h"
#include "stream/reader.h"

namespace waystation::front {

// What is known of a request once it is accepted or joined.
struct Identity {
  RequestId id;
  TimeMs accepted_ms = 0;
  bool duplicate = false;                   // an earlier request: same key, or cached
  bool cached = false;                      // found in the cache
  std::optional<broker::RequestView> view;  // when it was joined, not submitted
};

// The reader that front gives to the broker. Any thread. It may outlive its owner and its loop.
class Inbox final : public stream::Reader {
 public:
  struct Limits {
    std::size_t events_max;
    std::size_t bytes_max;
  };

  // In the order in which it is to be acted on.
  struct Content {
    std::optional<Result<Identity>> identity;
    std::vector<stream::BlockPtr> blocks;
    std::optional<stream::Ending> ending;
    std::optional<Error> interruption;
    bool let_go = false;  // a block was turned away: join again from where the blocks end
  };

  Inbox(std::shared_ptr<Loop> loop, Limits limits) : loop_(std::move(loop)), limits_(limits) {}

  // Before the inbox is given away.
  void set_owner(std::weak_ptr<Wakeable> owner) { owner_ = std::move(owner); }

  bool on_block(stream::BlockPtr block) override;
  void on_end(const stream::Ending& ending) override;
  void on_interrupted(const Error& error) override;
  // `wake`: false when the owner wants it only together with what comes next, or asks for it.
  void on_identity(Result<Identity> identity, bool wake = true);
  // From now on the owner is woken for the identity in any case.
  void insist() {
    std::lock_guard lock(mutex_);
    insists_ = true;
  }

  // Everything so far. There is room again.
  Content take();
  // Nothing more is wanted.
  void close();

 private:
  // Applies `change`, which says whether it is worth waking the owner.
  template <typename Change>
  void deliver(Change change);

  const std::shared_ptr<Loop> loop_;
  const Limits limits_;
  std::weak_ptr<Wakeable> owner_;

  std::mutex mutex_;  // guards the rest
  Content content_;
  std::size_t events_ = 0;
  std::size_t bytes_ = 0;
  bool identified_ = false;  // until then nobody is woken: blocks may come before the identity
  bool insists_ = false;
  bool woken_ = false;
  bool closed_ = false;
};

}  // namespace waystation::front
