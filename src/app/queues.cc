#include "app/queues.h"

#include "app/open_journal.h"
#include "base/log.h"
#include "front/options.h"

namespace waystation::app {
namespace {

// Much goes through it: fewer, larger files.
constexpr std::uint64_t kSegmentFactor = 2;

// As gRPC wants it: an address and a port.
Result<std::string> address_of(const ServeOptions& options, const guard::KeyFile* keys) {
  const auto listen = front::parse_listen(options.queue_listen);
  if (!listen) return listen.error();
  if (keys != nullptr || listen->is_loopback()) {
    const bool is_v6 = listen->host.find(':') != std::string::npos;
    return (is_v6 ? "[" + listen->host + "]" : listen->host) + ":" + std::to_string(listen->port);
  }
  return Error{Code::kInvalidArgument,
               "--queue-listen " + options.queue_listen +
                   ", which other machines can reach, needs --api-key-file FILE; make a key with: "
                   "waystation keys add FILE --tenant NAME",
               "queue-listen"};
}

}  // namespace

Result<std::unique_ptr<Queues>> Queues::open(const ServeOptions& options,
                                             journal::FileSystem& files, Executor& background,
                                             Clock& clock, Meter& meter,
                                             const guard::KeyFile* keys) {
  auto queues = std::make_unique<Queues>();
  queue::Station::Options limits;
  limits.segment_bytes = kSegmentFactor * options.segment_bytes;
  queues->station_ =
      std::make_unique<queue::Station>(limits, queue::Station::Deps{clock, background, meter});
  journal::FileJournal::Options file;
  file.segment_bytes_max = limits.segment_bytes;
  file.compress_above_bytes = journal::kBatchBytesMax;  // payloads go as they are
  auto journal = open_journal(options, "queues", std::move(file), files, meter,
                              queues->station_->journal_callbacks());
  if (!journal) return journal.error();
  queues->journal_ = std::move(*journal);
  if (const Status started = queues->station_->start(*queues->journal_); !started) {
    return started.error();
  }
  if (options.queue_listen.empty()) return queues;
  auto address = address_of(options, keys);
  if (!address) return address.error();
  queues->server_ = std::make_unique<queue::QueueServer>(
      queue::QueueServerOptions{.addresses = {std::move(*address)},
                                .tls = {options.queue_cert, options.queue_key, ""}},
      *queues->station_, keys, clock);
  return queues;
}

Queues::~Queues() {
  if (station_) stop();
}

Status Queues::start() {
  if (!server_) return {};
  if (const Status started = server_->start(); !started) return started;
  WS_LOG(info, "queues listening port={}", server_->ports().at(0));
  return {};
}

void Queues::stop() {
  if (server_) server_->stop();
  station_->stop();
}

}  // namespace waystation::app
