// Consume: deliveries and confirmations out, outcomes in.
#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>

#include "queue/grpc/call.h"

namespace waystation::queue {
namespace {

constexpr std::uint32_t kWindowDefault = 256;
constexpr std::uint32_t kWindowMax = 65'536;
constexpr TimeMs kLeaseMsMax = 12ll * 3600 * 1000;
constexpr std::uint64_t kBatchBytes = 512u << 10;

// What waits to be sent; more is not taken from the queue.
constexpr std::uint64_t kUnsentBytesMax = 2u << 20;

// Requests that are not confirmed yet.
constexpr std::size_t kRequestsMax = 4096;

class ConsumeCall final : public Call, public Consumer {
 public:
  ConsumeCall(grpc::CallbackServerContext* context, Station& station, std::string tenant)
      : Call(context), station_(station), tenant_(std::move(tenant)) {}

  // ---- Consumer ----

  void deliver(Taken taken) override {
    std::lock_guard lock(out_mutex_);
    unsent_ += taken.bytes;
    out_.push_back(std::move(taken));
  }
  bool has_room() const override { return unsent_ < kUnsentBytesMax; }
  void kick() override { pump(); }
  void on_closed(const Error& why) override { end_with(grpc_status(why)); }

 protected:
  bool on_message(const grpc::ByteBuffer& message) override {
    v1::ConsumeRequest request;
    if (!request.ParseFromString(bytes_of(message))) {
      end_with({grpc::StatusCode::INVALID_ARGUMENT, "the request is no ConsumeRequest"});
      return false;
    }
    {
      // One more than its outcomes: the request isn't confirmed while they are handed over.
      std::lock_guard lock(out_mutex_);
      requests_.push_back({request.number(), request.settle_size() + 1});
    }
    if (joined_.consumer.value == 0) {
      if (!open(request)) return false;
    } else if (request.has_open()) {
      end_with({grpc::StatusCode::INVALID_ARGUMENT, "only the first request opens"});
      return false;
    }
    for (const v1::Settle& each : request.settle()) settle(request.number(), each);
    done(request.number(), 0, {});
    return true;
  }

  void on_half_closed() override { leave(context_->IsCancelled()); }
  void on_ended() override { leave(true); }

  void on_written() override {
    bool has_room_again = false;
    ConsumerId consumer;
    {
      std::lock_guard lock(out_mutex_);
      const std::uint64_t before = unsent_;
      unsent_ -= std::exchange(sending_, 0);
      consumer = joined_.consumer;
      has_room_again = before >= kUnsentBytesMax && unsent_ < kUnsentBytesMax;
    }
    if (has_room_again) station_.resume(consumer);
  }

  bool next_write(grpc::ByteBuffer& out) override {
    std::unique_lock lock(out_mutex_);
    const bool has_news = !errors_.empty() || confirmed_ != told_;
    if (out_.empty() && !has_news) return false;
    v1::Delivery head;
    head.set_confirmed(confirmed_);
    for (v1::SettleError& error : errors_) head.add_errors()->Swap(&error);
    errors_.clear();
    told_ = confirmed_;
    Taken taken;
    if (!out_.empty()) {
      taken = std::move(out_.front());
      out_.pop_front();
      sending_ = taken.bytes;
    }
    lock.unlock();
    out = delivery_buffer(taken, head);
    return true;
  }
  bool is_complete() override {
    std::lock_guard lock(out_mutex_);
    return requests_.empty() && errors_.empty() && confirmed_ == told_;
  }
  bool wants_more() override {
    std::lock_guard lock(out_mutex_);
    return requests_.size() < kRequestsMax;
  }

 private:
  struct Unconfirmed {
    std::uint64_t number = 0;
    int left = 0;
  };

  bool open(const v1::ConsumeRequest& request) {
    const v1::Open& asked = request.open();
    if (!request.has_open() || asked.window() > kWindowMax || asked.lease_ms() < 0 ||
        asked.lease_ms() > kLeaseMsMax) {
      end_with({grpc::StatusCode::INVALID_ARGUMENT,
                "the first request must open a queue, with a window of at most 65536 messages and "
                "a lease of at most 12 hours"});
      return false;
    }
    Subscription how;
    how.window = asked.window() > 0 ? asked.window() : kWindowDefault;
    how.lease_ms = asked.lease_ms();
    how.batch_messages_max = asked.batch() > 0 ? asked.batch() : how.window;
    how.batch_bytes_max = kBatchBytes;
    const auto joined = station_.subscribe(
        tenant_, asked.queue(), how, std::static_pointer_cast<ConsumeCall>(shared_from_this()));
    if (!joined) {
      end_with(grpc_status(joined.error()));
      return false;
    }
    {
      std::lock_guard lock(out_mutex_);
      joined_ = *joined;
    }
    station_.resume(joined->consumer);  // what was sent meanwhile couldn't ask for more
    return true;
  }

  void settle(std::uint64_t number, const v1::Settle& from) {
    auto parsed = parse_settle(from);
    if (!parsed) return done(number, from.lease(), parsed.error());
    auto self = std::static_pointer_cast<ConsumeCall>(shared_from_this());
    station_.settle(
        joined_.queue, std::move(*parsed),
        [self, number, lease = from.lease()](Result<TimeMs> result) {
          self->done(number, lease, result ? Status() : Status(result.error()));
        },
        self);
  }

  // A part of a request is on disk, or refused.
  void done(std::uint64_t number, std::uint64_t lease, const Status& status) {
    std::lock_guard lock(out_mutex_);
    if (!status) {
      v1::SettleError& error = errors_.emplace_back();
      error.set_number(number);
      error.set_lease(lease);
      write_error(status.error(), *error.mutable_error());
    }
    for (Unconfirmed& request : requests_) {
      if (request.number != number || request.left == 0) continue;
      --request.left;
      break;
    }
    while (!requests_.empty() && requests_.front().left == 0) {
      confirmed_ = requests_.front().number;
      requests_.pop_front();
    }
  }

  void leave(bool counts) {
    if (joined_.consumer.value != 0) station_.unsubscribe(joined_.consumer, counts);
  }

  Station& station_;
  const std::string tenant_;
  Subscribed joined_;  // set by the first request

  std::mutex out_mutex_;
  std::deque<Taken> out_;
  std::uint64_t sending_ = 0;  // bytes
  std::atomic<std::uint64_t> unsent_{0};
  std::deque<Unconfirmed> requests_;
  std::uint64_t confirmed_ = 0;
  std::uint64_t told_ = 0;
  std::vector<v1::SettleError> errors_;
};

}  // namespace

std::shared_ptr<Call> make_consume_call(grpc::CallbackServerContext* context, Station& station,
                                        std::string tenant) {
  return std::make_shared<ConsumeCall>(context, station, std::move(tenant));
}

}  // namespace waystation::queue
