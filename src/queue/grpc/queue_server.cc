#include "queue/grpc/queue_server.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <unordered_map>

#include "link/grpc/grpc_common.h"
#include "message/proto/queue.grpc.pb.h"
#include "queue/grpc/call.h"

namespace waystation::queue {
namespace {

constexpr int kFrameLimitBytes = 8 << 20;  // above what a frame may have, to say so politely

using Raw = v1::Queues::WithRawCallbackMethod_Publish<
    v1::Queues::WithRawCallbackMethod_Consume<v1::Queues::Service>>;

}  // namespace

struct QueueServer::Impl final : Raw {
  Impl(QueueServerOptions given, Station& with, const guard::KeyFile* known, const Clock& by)
      : options(std::move(given)), station(with), keys(known), clock(by) {}

  Stream* Publish(grpc::CallbackServerContext* context) override {
    return accept(context, [&](std::string tenant) {
      return make_publish_call(context, station, clock, std::move(tenant));
    });
  }
  Stream* Consume(grpc::CallbackServerContext* context) override {
    return accept(context, [&](std::string tenant) {
      return make_consume_call(context, station, std::move(tenant));
    });
  }

  template <typename Make>
  Stream* accept(grpc::CallbackServerContext* context, Make make) {
    std::string tenant(guard::kDefaultTenant);
    if (keys != nullptr) {
      const auto& metadata = context->client_metadata();
      const auto found = metadata.find("authorization");
      auto known = keys->authenticate(
          found == metadata.end() ? std::string_view()
                                  : std::string_view(found->second.data(), found->second.size()));
      if (!known) return new RefusedCall(grpc_status(known.error()));
      tenant = std::move(*known);
    }
    std::shared_ptr<Call> call;
    {
      std::lock_guard lock(mutex);
      if (stopping || calls.size() >= options.calls_max) {
        return new RefusedCall({grpc::StatusCode::UNAVAILABLE,
                                stopping ? "the server is stopping" : "too many calls are open"});
      }
      call = make(std::move(tenant));
      calls.emplace(call.get(), call);
    }
    call->begin([this](Call* ended) {
      std::lock_guard lock(mutex);
      calls.erase(ended);
      if (calls.empty()) empty.notify_all();
    });
    return call.get();
  }

  const QueueServerOptions options;
  Station& station;
  const guard::KeyFile* const keys;
  const Clock& clock;
  std::vector<int> ports;
  std::unique_ptr<grpc::Server> server;

  std::mutex mutex;
  std::condition_variable empty;
  bool stopping = false;
  std::unordered_map<Call*, std::shared_ptr<Call>> calls;
};

QueueServer::QueueServer(QueueServerOptions options, Station& station, const guard::KeyFile* keys,
                         const Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), station, keys, clock)) {
  link::route_grpc_log();
}

QueueServer::~QueueServer() {
  stop();
}

Status QueueServer::start() {
  Impl& impl = *impl_;
  auto tcp = link::server_credentials(impl.options.tls);
  if (!tcp) return tcp.error();
  grpc::ServerBuilder builder;
  impl.ports.assign(impl.options.addresses.size(), 0);
  bool any_unix = false;
  for (std::size_t i = 0; i < impl.options.addresses.size(); ++i) {
    const std::string& address = impl.options.addresses[i];
    if (Status good = link::check_address(address); !good) return good;
    const bool is_unix = link::is_unix_address(address);
    any_unix = any_unix || is_unix;
    builder.AddListeningPort(address, is_unix ? grpc::InsecureServerCredentials() : *tcp,
                             &impl.ports[i]);
  }
  builder.RegisterService(&impl);
  builder.SetMaxReceiveMessageSize(kFrameLimitBytes);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, link::kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, link::kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  const mode_t mask = any_unix ? ::umask(077) : 0;
  impl.server = builder.BuildAndStart();
  if (any_unix) ::umask(mask);
  if (impl.server != nullptr) return {};
  for (std::size_t i = 0; i < impl.ports.size(); ++i) {
    if (impl.ports[i] != 0) continue;
    return Error{Code::kBusy, "can't listen for the queues on '" + impl.options.addresses[i] +
                                  "': it is in use, or not an address of this machine"};
  }
  return Error{Code::kIo, "can't listen for the queues"};
}

void QueueServer::stop() {
  std::vector<std::shared_ptr<Call>> open;
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
    for (const auto& [key, call] : impl_->calls) open.push_back(call);
  }
  if (impl_->server == nullptr) return;
  for (const auto& call : open) call->abort();
  open.clear();
  impl_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  {
    std::unique_lock lock(impl_->mutex);
    impl_->empty.wait(lock, [this] { return impl_->calls.empty(); });
  }
  impl_->server.reset();
}

const std::vector<int>& QueueServer::ports() const {
  return impl_->ports;
}

}  // namespace waystation::queue
