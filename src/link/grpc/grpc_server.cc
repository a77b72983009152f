#include "link/grpc/grpc_server.h"

#include <grpcpp/alarm.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "link/grpc/grpc_common.h"
#include "message/proto/link.grpc.pb.h"

namespace waystation::link {
namespace {

using Stream = grpc::ServerBidiReactor<v1::WorkerMessage, v1::ServerMessage>;

// How long a worker may take to read what was sent before a close.
constexpr std::chrono::seconds kFlushLimit{2};

// One connection. gRPC owns the calls, `self_` keeps the object until the last of them (OnDone).
// gRPC never calls back from inside a Start… or Finish, so these are called under the mutex.
class Connection final : public Stream, public std::enable_shared_from_this<Connection> {
 public:
  using Ended = std::function<void(ConnectionId)>;

  Connection(ConnectionId id, grpc::CallbackServerContext* context, std::size_t queued_bytes_max,
             ServerEvents& events, Ended ended)
      : id_(id),
        context_(context),
        queued_bytes_max_(queued_bytes_max),
        events_(events),
        ended_(std::move(ended)) {}

  void begin() {
    self_ = shared_from_this();
    events_.on_connected(id_, Peer{context_->peer(), context_->peer().starts_with("unix")});
    StartRead(&incoming_);
  }

  void send(v1::ServerMessage message) {
    std::lock_guard lock(mutex_);
    if (closing_) return;
    queued_bytes_ += message.ByteSizeLong();
    if (queued_bytes_ > queued_bytes_max_) {
      cancel("the worker doesn't read: " + std::to_string(queued_bytes_) + " bytes wait for it");
      return;
    }
    queue_.push_back(std::move(message));
    if (!writing_) write_next();
  }

  void close(const std::string& reason) {
    std::lock_guard lock(mutex_);
    begin_closing(reason);
  }

  void abort(const std::string& reason) {
    std::lock_guard lock(mutex_);
    cancel(reason);
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      events_.on_message(id_, std::move(incoming_));
      std::lock_guard lock(mutex_);
      if (finished_) return;
      // The next message is read only now: a slow owner slows its worker down.
      incoming_.Clear();
      StartRead(&incoming_);
      return;
    }
    std::lock_guard lock(mutex_);
    begin_closing("the worker closed the connection");
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!queue_.empty()) {
      queued_bytes_ -= queue_.front().ByteSizeLong();
      queue_.pop_front();
    }
    if (!ok) {
      give_up("the connection broke");
    } else if (!queue_.empty()) {
      write_next();
    } else if (closing_) {
      finish();
    }
  }

  void OnCancel() override {
    std::lock_guard lock(mutex_);
    give_up("the connection broke");
  }

  void OnDone() override {
    std::string reason;
    {
      std::lock_guard lock(mutex_);
      done_ = true;
      reason = reason_;
      if (alarm_set_) flush_limit_.Cancel();
    }
    events_.on_disconnected(id_, std::move(reason));
    ended_(id_);
    self_.reset();  // may destroy this
  }

 private:
  // All of these with the mutex held.

  void write_next() {
    writing_ = true;
    grpc::WriteOptions options;
    // More is waiting: lets gRPC put several messages into one system call.
    if (queue_.size() > 1) options.set_buffer_hint();
    StartWrite(&queue_.front(), options);
  }

  void note(const std::string& reason) {
    if (reason_.empty()) reason_ = reason;
  }

  void begin_closing(const std::string& reason) {
    if (closing_) return;
    closing_ = true;
    note(reason);
    if (!writing_) {
      finish();
      return;
    }
    alarm_set_ = true;
    // Weak: the alarm keeps this function for as long as it lives, and it is a part of this.
    flush_limit_.Set(std::chrono::system_clock::now() + kFlushLimit,
                     [weak = weak_from_this()](bool expired) {
                       const auto self = expired ? weak.lock() : nullptr;
                       if (self) self->abort("the worker didn't read what was left");
                     });
  }

  // Ends the connection without waiting for what is queued.
  void cancel(const std::string& reason) {
    if (done_ || finished_) return;
    closing_ = true;
    note(reason);
    context_->TryCancel();  // OnCancel follows, and an OnWriteDone that failed
  }

  // The peer is gone: forgets what is queued, but for what gRPC still holds.
  void give_up(const std::string& reason) {
    closing_ = true;
    note(reason);
    while (queue_.size() > (writing_ ? 1u : 0u)) queue_.pop_back();
    if (!writing_) finish();
  }

  void finish() {
    if (finished_) return;
    finished_ = true;
    Finish(grpc::Status::OK);
  }

  const ConnectionId id_;
  grpc::CallbackServerContext* const context_;  // gRPC's; valid until OnDone
  const std::size_t queued_bytes_max_;
  ServerEvents& events_;
  const Ended ended_;
  std::shared_ptr<Connection> self_;
  v1::WorkerMessage incoming_;

  std::mutex mutex_;
  std::deque<v1::ServerMessage> queue_;  // front: being written
  std::size_t queued_bytes_ = 0;
  bool writing_ = false;
  bool closing_ = false;   // nothing more is taken
  bool finished_ = false;  // Finish was called
  bool done_ = false;
  bool alarm_set_ = false;
  std::string reason_;
  grpc::Alarm flush_limit_;
};

// Answers a connection over the limit.
class Refusal final : public Stream {
 public:
  explicit Refusal(std::string why) {
    Finish(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, std::move(why)));
  }
  void OnDone() override { delete this; }
};

}  // namespace

struct GrpcLinkServer::Impl final : v1::Link::CallbackService {
  explicit Impl(GrpcServerOptions given) : options(std::move(given)) {}

  Stream* Session(grpc::CallbackServerContext* context) override {
    std::shared_ptr<Connection> connection;
    {
      std::lock_guard lock(mutex);
      if (stopping || connections.size() >= static_cast<std::size_t>(options.connections_max)) {
        return new Refusal(stopping ? "the server is stopping" : "too many workers are connected");
      }
      const ConnectionId id{next_id++};
      connection = std::make_shared<Connection>(id, context, options.queued_bytes_max, *events,
                                                [this](ConnectionId ended) { remove(ended); });
      connections.emplace(id, connection);
    }
    connection->begin();
    return connection.get();
  }

  void remove(ConnectionId id) {
    std::lock_guard lock(mutex);
    connections.erase(id);
    if (connections.empty()) empty.notify_all();
  }

  std::shared_ptr<Connection> find(ConnectionId id) {
    std::lock_guard lock(mutex);
    const auto found = connections.find(id);
    return found == connections.end() ? nullptr : found->second;
  }

  Status listen(grpc::ServerBuilder& builder);

  const GrpcServerOptions options;
  ServerEvents* events = nullptr;
  std::vector<int> ports;
  std::unique_ptr<grpc::Server> server;

  std::mutex mutex;
  std::condition_variable empty;
  bool stopping = false;
  std::uint64_t next_id = 1;
  std::unordered_map<ConnectionId, std::shared_ptr<Connection>> connections;
};

Status GrpcLinkServer::Impl::listen(grpc::ServerBuilder& builder) {
  auto tcp = server_credentials(options.tls);
  if (!tcp) return tcp.error();
  ports.assign(options.addresses.size(), 0);
  bool any_unix = false;
  for (std::size_t i = 0; i < options.addresses.size(); ++i) {
    const std::string& address = options.addresses[i];
    if (Status ok = check_address(address); !ok) return ok;
    any_unix = any_unix || is_unix_address(address);
    builder.AddListeningPort(
        address, is_unix_address(address) ? grpc::InsecureServerCredentials() : *tcp, &ports[i]);
  }
  builder.RegisterService(this);
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  builder.SetMaxSendMessageSize(kMessageBytesMax);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a taken port must be an error
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  // The socket must never be open to others, not even between bind and a chmod.
  const mode_t mask = any_unix ? ::umask(077) : 0;
  server = builder.BuildAndStart();
  if (any_unix) ::umask(mask);
  if (server != nullptr) return {};
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (ports[i] == 0) {
      return Error{Code::kBusy, "can't listen for workers on '" + options.addresses[i] +
                                    "': it is in use, or not an address of this machine"};
    }
  }
  return Error{Code::kIo, "can't listen for workers"};
}

GrpcLinkServer::GrpcLinkServer(GrpcServerOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {
  route_grpc_log();
}

GrpcLinkServer::~GrpcLinkServer() { stop(); }

Status GrpcLinkServer::start(ServerEvents& events) {
  CHECK(impl_->events == nullptr);
  if (impl_->options.addresses.empty()) {
    return Error{Code::kInvalidArgument, "no address to listen on for workers"};
  }
  impl_->events = &events;
  grpc::ServerBuilder builder;
  return impl_->listen(builder);
}

void GrpcLinkServer::stop() {
  std::vector<std::shared_ptr<Connection>> connected;
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
    for (const auto& [id, connection] : impl_->connections) connected.push_back(connection);
  }
  if (impl_->server == nullptr) return;
  for (const auto& connection : connected) connection->abort("the server is stopping");
  connected.clear();
  impl_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  {
    std::unique_lock lock(impl_->mutex);
    impl_->empty.wait(lock, [this] { return impl_->connections.empty(); });
  }
  impl_->server.reset();
}

const std::vector<int>& GrpcLinkServer::ports() const { return impl_->ports; }

void GrpcLinkServer::send(ConnectionId connection, v1::ServerMessage message) {
  if (const auto found = impl_->find(connection)) found->send(std::move(message));
}

void GrpcLinkServer::close(ConnectionId connection) {
  if (const auto found = impl_->find(connection)) found->close("the server closed the connection");
}

}  // namespace waystation::link
