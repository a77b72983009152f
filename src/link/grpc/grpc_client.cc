#include "link/grpc/grpc_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/client_callback.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "base/thread_name.h"
#include "link/grpc/grpc_common.h"
#include "message/proto/link.grpc.pb.h"

namespace waystation::link {
namespace {

constexpr std::chrono::seconds kFlushLimit{2};

// The end of a call, apart from the call itself: OnDone still holds it when the call is deleted.
struct Done {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
};

// The call. The hold taken in begin() lets other threads start writes and is given back when the
// first read fails, after which there are none. Destroyed by its owner's thread after
// wait_until_done(), never by gRPC's: its context holds the channel, and a channel's last owner
// waits for gRPC's callback threads.
class Call final : public grpc::ClientBidiReactor<v1::WorkerMessage, v1::ServerMessage> {
 public:
  Call(std::size_t queued_bytes_max, WorkerEvents& events)
      : queued_bytes_max_(queued_bytes_max), events_(events) {}

  void begin(v1::Link::Stub& stub) {
    stub.async()->Session(&context_, this);
    AddHold();
    StartRead(&incoming_);
    StartCall();
    writer_ = std::thread([this] {
      name_this_thread("link-writer");
      start_writes();
    });
  }

  bool send(v1::WorkerMessage message, bool wait) {
    std::unique_lock lock(mutex_);
    if (wait) {
      room_.wait(lock,
                 [this] { return closing_ || broken_ || queued_bytes_ <= queued_bytes_max_; });
    }
    if (closing_ || broken_) return false;
    if (queued_bytes_ > queued_bytes_max_) return true;  // given up, see send_if_room
    queued_bytes_ += message.ByteSizeLong();
    queue_.push_back(std::move(message));
    if (!writing_) to_write_.notify_one();
    return true;
  }

  void close() {
    std::lock_guard lock(mutex_);
    if (closing_) return;
    closing_ = true;
    room_.notify_all();
    to_write_.notify_all();
    if (!writing_ && queue_.empty() && !broken_) StartWritesDone();
  }

  void wait_until_done() {
    {
      std::unique_lock lock(end_->mutex);
      const auto done = [this] { return end_->done; };
      if (!end_->changed.wait_for(lock, kFlushLimit, done)) {
        context_.TryCancel();
        end_->changed.wait(lock, done);
      }
    }
    writer_.join();
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      events_.on_message(std::move(incoming_));
      incoming_.Clear();
      StartRead(&incoming_);
      return;
    }
    {
      std::lock_guard lock(mutex_);
      broken_ = true;
      room_.notify_all();
      to_write_.notify_all();
    }
    RemoveHold();
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    queued_bytes_ -= queue_.front().ByteSizeLong();
    queue_.pop_front();
    if (!ok) broken_ = true;  // the read fails too, and OnDone tells why
    room_.notify_all();
    if (broken_) return;
    if (!queue_.empty()) {
      write_next();
    } else if (closing_) {
      StartWritesDone();
    }
  }

  void OnDone(const grpc::Status& status) override {
    std::string reason = status.error_message();
    if (reason.empty()) {
      reason = status.ok() ? "the server closed the connection" : "connection lost";
    }
    events_.on_disconnected(std::move(reason));
    {
      std::lock_guard lock(mutex_);
      broken_ = true;
      room_.notify_all();
      to_write_.notify_all();
    }
    const std::shared_ptr<Done> end = end_;
    std::lock_guard lock(end->mutex);
    end->done = true;  // from here on the owner may destroy this
    end->changed.notify_all();
  }

 private:
  // Starting a write takes gRPC 0.15 ms and wakes the server, often on the same core. The caller is
  // an engine between two decode steps, for which its compute threads wait, so it is done here
  // instead.
  void start_writes() {
    std::unique_lock lock(mutex_);
    while (true) {
      to_write_.wait(lock, [this] {
        return broken_ || (closing_ && queue_.empty()) || (!writing_ && !queue_.empty());
      });
      if (broken_ || queue_.empty()) return;
      write_next();
    }
  }

  // With the mutex held.
  void write_next() {
    writing_ = true;
    grpc::WriteOptions options;
    if (queue_.size() > 1) options.set_buffer_hint();
    StartWrite(&queue_.front(), options);
  }

  const std::size_t queued_bytes_max_;
  WorkerEvents& events_;
  grpc::ClientContext context_;
  const std::shared_ptr<Done> end_ = std::make_shared<Done>();
  v1::ServerMessage incoming_;

  std::mutex mutex_;
  std::condition_variable room_;
  std::condition_variable to_write_;
  std::deque<v1::WorkerMessage> queue_;  // front: being written
  std::size_t queued_bytes_ = 0;
  bool writing_ = false;
  bool closing_ = false;
  bool broken_ = false;  // nothing can be written any more

  std::thread writer_;
};

class GrpcWorkerEnd final : public WorkerTransport {
 public:
  GrpcWorkerEnd(const std::shared_ptr<grpc::Channel>& channel, std::size_t queued_bytes_max,
                WorkerEvents& events)
      : stub_(v1::Link::NewStub(channel)), call_(queued_bytes_max, events) {
    call_.begin(*stub_);
  }
  ~GrpcWorkerEnd() override {
    call_.close();
    call_.wait_until_done();
  }

  bool send(v1::WorkerMessage message) override { return call_.send(std::move(message), true); }
  bool send_if_room(v1::WorkerMessage message) override {
    return call_.send(std::move(message), false);
  }
  void close() override { call_.close(); }

 private:
  const std::unique_ptr<v1::Link::Stub> stub_;
  Call call_;
};

grpc::ChannelArguments channel_arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A new session is a new connection, without the back-off of the one before: the worker has one.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
}

}  // namespace

Result<std::unique_ptr<WorkerTransport>> connect_grpc(const GrpcClientOptions& options,
                                                      WorkerEvents& events) {
  route_grpc_log();
  if (Status ok = check_address(options.address); !ok) return ok.error();
  const TlsFiles tls = is_unix_address(options.address) ? TlsFiles{} : options.tls;
  auto credentials = client_credentials(tls);
  if (!credentials) return credentials.error();
  auto channel = grpc::CreateCustomChannel(options.address, *credentials, channel_arguments());
  const auto deadline =
      std::chrono::system_clock::now() + std::chrono::milliseconds(options.connect_timeout_ms);
  if (!channel->WaitForConnected(deadline)) {
    return Error{Code::kUnavailable,
                 "can't reach a server at '" + options.address + "' within " +
                     std::to_string(options.connect_timeout_ms) +
                     " ms: check the address, that the server runs" +
                     (tls.empty() ? "" : ", and that both sides' TLS files match")};
  }
  return std::unique_ptr<WorkerTransport>(
      std::make_unique<GrpcWorkerEnd>(channel, options.queued_bytes_max, events));
}

}  // namespace waystation::link
