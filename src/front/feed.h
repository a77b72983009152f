// Carries the events of one request from the broker to one HTTP answer: submits or joins, keeps the
// place, joins again after it was let go for being slow, tells the broker when the client goes
// away, and keeps the times (status held back, keep-alive). Loop's thread only.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "front/deps.h"
#include "front/exchange.h"
#include "front/inbox.h"
#include "front/sink.h"

namespace waystation::front {

class Feed final : public Activity, public Wakeable, public std::enable_shared_from_this<Feed> {
 public:
  // `makes_request`: the answer is to the call that makes the request. Its first event counts for
  // the time-to-first-event metric, and a client that leaves may take the request with it.
  static std::shared_ptr<Feed> make(const Deps& deps, ExchangePtr exchange,
                                    std::unique_ptr<Sink> sink, bool makes_request);

  using Submit = std::function<Status(broker::Submission, broker::Callback<broker::Submitted>)>;
  // One of these, once; a refusal is answered through the sink. `how`: instead of the broker's own
  // submit.
  void submit(broker::Submission submission, const Submit& how = {});
  void attach(RequestId id, Sequence from);

  void on_wake() override { pump(); }
  void on_sent() override { pump(); }
  void on_tick(std::int64_t now_us) override;
  void on_half_closed() override;
  void on_gone() override;
  void on_stop() override;

 private:
  Feed(const Deps& deps, ExchangePtr exchange, std::unique_ptr<Sink> sink, bool makes_request);

  void pump();
  void identify(Result<Identity> identity);
  void take_block(const stream::Block& block);
  void join();
  void fail(const Error& error);
  void finish();
  void let_go(bool client_gone);

  const Deps& deps_;
  const ExchangePtr exchange_;
  const std::unique_ptr<Sink> sink_;
  const bool makes_request_;
  bool is_cacheable_ = false;
  std::shared_ptr<Inbox> inbox_;

  std::optional<RequestId> id_;  // known once accepted or joined
  Sequence next_ = 0;            // the event that comes next
  bool joined_ = false;          // the broker may know our inbox
  bool saw_event_ = false;
  bool done_ = false;
  bool gone_ = false;        // the client left before the request had an id
  bool join_again_ = false;  // at the next tick: the broker was too busy to take the call
  bool waited_ = false;      // the status is no longer held back
  std::int64_t last_write_us_ = 0;
};

}  // namespace waystation::front
