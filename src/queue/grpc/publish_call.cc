// Publish: frames in, receipts out.
#include <mutex>

#include "queue/grpc/call.h"

namespace waystation::queue {
namespace {

// What one caller may have on its way to the disk; it is read on when there is room again.
constexpr std::size_t kFramesMax = 4096;
constexpr std::size_t kBytesMax = 16u << 20;

class PublishCall final : public Call, public Sink {
 public:
  PublishCall(grpc::CallbackServerContext* context, Station& station, const Clock& clock,
              std::string tenant)
      : Call(context), station_(station), clock_(clock), tenant_(std::move(tenant)) {}

  void kick() override { pump(); }

 protected:
  bool on_message(const grpc::ByteBuffer& message) override {
    std::uint64_t number = 0;
    auto frame = parse_frame(message, clock_.wall_ms(), number);
    if (!frame) {
      receive(number, 0, frame.error());
      return true;
    }
    if (!frame->queue.empty()) queue_ = std::move(frame->queue);
    const std::size_t bytes = frame->publication.payload->bytes().size();
    {
      std::lock_guard lock(receipts_mutex_);
      ++frames_;
      bytes_ += bytes;
    }
    auto self = std::static_pointer_cast<PublishCall>(shared_from_this());
    station_.publish(
        tenant_, queue_, std::move(frame->publication),
        [self, number, bytes](Result<Receipt> receipt) {
          self->receive(number, bytes, receipt);
          std::lock_guard lock(self->receipts_mutex_);
          --self->frames_;
        },
        self);
    return true;
  }

  bool next_write(grpc::ByteBuffer& out) override {
    std::lock_guard lock(receipts_mutex_);
    if (receipts_.receipts().empty()) return false;
    out = buffer_of(receipts_);
    receipts_.Clear();
    return true;
  }
  bool is_complete() override {
    std::lock_guard lock(receipts_mutex_);
    return frames_ == 0 && receipts_.receipts().empty();
  }
  bool wants_more() override {
    std::lock_guard lock(receipts_mutex_);
    return frames_ < kFramesMax && bytes_ < kBytesMax;
  }

 private:
  void receive(std::uint64_t number, std::size_t bytes, const Result<Receipt>& result) {
    std::lock_guard lock(receipts_mutex_);
    bytes_ -= bytes;
    v1::PublishReceipt& receipt = *receipts_.add_receipts();
    receipt.set_number(number);
    if (!result) return write_error(result.error(), *receipt.mutable_error());
    receipt.set_first(result->first);
    receipt.set_count(result->count);
    receipt.set_duplicate(result->duplicate);
  }

  Station& station_;
  const Clock& clock_;
  const std::string tenant_;
  std::string queue_;  // of the last frame

  std::mutex receipts_mutex_;
  v1::PublishReceipts receipts_;
  std::size_t frames_ = 0;  // without a receipt
  std::size_t bytes_ = 0;
};

}  // namespace

std::shared_ptr<Call> make_publish_call(grpc::CallbackServerContext* context, Station& station,
                                        const Clock& clock, std::string tenant) {
  return std::make_shared<PublishCall>(context, station, clock, std::move(tenant));
}

}  // namespace waystation::queue
