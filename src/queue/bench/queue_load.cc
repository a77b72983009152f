// Load for the queues of a running server, over gRPC: publishers with a window each, or closed-loop
// ones, and consumers that drain. Prints one line of JSON. A program for people and `make bench`.
#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/client_callback.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "message/proto/queue.pb.h"

namespace {

using namespace waystation;
using Clock = std::chrono::steady_clock;
using Stream = grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

struct Options {
  std::string target = "127.0.0.1:8081";
  std::string queue = "load";
  std::string key;
  int publishers = 4;
  int connections = 0;  // that the publishers share; 0: one each
  int consumers = 1;
  int window = 256;  // messages on their way, of one publisher
  int frame = 64;    // messages in one frame
  int bytes = 1024;
  double seconds = 5;
  double warmup_seconds = 1;
  std::uint32_t consume_window = 8192;
};

std::string bytes_of(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const auto& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

grpc::ByteBuffer buffer_of(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return {&slice, 1};
}

struct Shared {
  const Options& options;
  std::atomic<bool> stopping{false};
  std::atomic<std::uint64_t> published{0}, consumed{0}, errors{0};
};

class Base : public Stream {
 public:
  Base(Shared& shared, const std::shared_ptr<grpc::Channel>& channel, const char* method)
      : shared_(shared), stub_(channel) {
    if (!shared.options.key.empty()) {
      context_.AddMetadata("authorization", "Bearer " + shared.options.key);
    }
    stub_.PrepareBidiStreamingCall(&context_, method, {}, this);
  }
  void OnDone(const grpc::Status& status) override {
    if (!status.ok() && status.error_code() != grpc::StatusCode::CANCELLED) {
      std::fprintf(stderr, "call ended: %s\n", status.error_message().c_str());
      ++shared_.errors;
    }
    std::lock_guard lock(end_mutex_);
    ended_ = true;
    end_.notify_all();
  }
  void cancel() { context_.TryCancel(); }
  void wait() {
    std::unique_lock lock(end_mutex_);
    end_.wait(lock, [this] { return ended_; });
  }

 protected:
  Shared& shared_;
  grpc::GenericStub stub_;
  grpc::ClientContext context_;

 private:
  std::mutex end_mutex_;
  std::condition_variable end_;
  bool ended_ = false;
};

class Publisher final : public Base {
 public:
  Publisher(Shared& shared, const std::shared_ptr<grpc::Channel>& channel)
      : Base(shared, channel, "/waystation.v1.Queues/Publish"), frame_(shared.options.frame) {
    v1::PublishFrame payloads;
    for (int i = 0; i < frame_; ++i) {
      *payloads.add_payload() = std::string(static_cast<std::size_t>(shared.options.bytes),
                                            static_cast<char>('a' + i % 26));
    }
    payloads_ = grpc::Slice(payloads.SerializeAsString());
    free_ = std::max(1, shared.options.window / frame_);
    StartRead(&in_);
    StartCall();
    std::lock_guard lock(mutex_);
    write();
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (ok) write();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    v1::PublishReceipts receipts;
    receipts.ParseFromString(bytes_of(in_));
    const auto now = Clock::now();
    {
      std::lock_guard lock(mutex_);
      for (const auto& receipt : receipts.receipts()) {
        ++free_;
        if (receipt.has_error()) {
          ++shared_.errors;
        } else {
          shared_.published += receipt.count();
          if (measuring_) {
            latencies_.push_back(
                std::chrono::duration<double, std::milli>(now - sent_[receipt.number() % kSlots])
                    .count());
          }
        }
      }
      in_.Clear();
      StartRead(&in_);
      write();
    }
  }
  void measure() {
    std::lock_guard lock(mutex_);
    measuring_ = true;
  }
  std::vector<double> latencies() {
    std::lock_guard lock(mutex_);
    return latencies_;
  }

 private:
  static constexpr std::size_t kSlots = 4096;

  void write() {
    if (writing_ || free_ == 0 || shared_.stopping) return;
    v1::PublishFrame head;
    if (number_ == 0) head.set_queue(shared_.options.queue);
    head.set_number(++number_);
    sent_[number_ % kSlots] = Clock::now();
    const grpc::Slice slices[] = {grpc::Slice(head.SerializeAsString()), payloads_};
    out_ = grpc::ByteBuffer(slices, 2);
    --free_;
    writing_ = true;
    StartWrite(&out_);
  }

  const int frame_;
  grpc::Slice payloads_;
  grpc::ByteBuffer in_, out_;
  std::mutex mutex_;
  int free_ = 0;
  bool writing_ = false;
  bool measuring_ = false;
  std::uint64_t number_ = 0;
  std::vector<Clock::time_point> sent_ = std::vector<Clock::time_point>(kSlots);
  std::vector<double> latencies_;
};

class Consumer final : public Base {
 public:
  Consumer(Shared& shared, const std::shared_ptr<grpc::Channel>& channel)
      : Base(shared, channel, "/waystation.v1.Queues/Consume") {
    v1::ConsumeRequest open;
    open.set_number(1);
    open.mutable_open()->set_queue(shared.options.queue);
    open.mutable_open()->set_window(shared.options.consume_window);
    StartRead(&in_);
    StartCall();
    std::lock_guard lock(mutex_);
    waiting_ = open;
    has_waiting_ = true;
    number_ = 1;
    write();
  }
  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (ok) write();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    v1::Delivery head;
    parse_head(head);
    std::uint64_t count = 0;
    for (const auto& run : head.runs()) count += run.count();
    shared_.consumed += count;
    shared_.errors += static_cast<std::uint64_t>(head.errors_size());
    std::lock_guard lock(mutex_);
    if (count > 0) {
      waiting_.add_settle()->set_lease(head.lease());
      has_waiting_ = true;
    }
    in_.Clear();
    StartRead(&in_);
    write();
  }

 private:
  // Payloads are counted, not copied.
  void parse_head(v1::Delivery& head) {
    std::vector<grpc::Slice> slices;
    if (!in_.Dump(&slices).ok() || slices.empty()) return;
    const grpc::Slice& first = slices[0];
    std::size_t at = 0;
    const auto varint = [&] {
      std::uint64_t value = 0;
      for (int shift = 0; at < first.size(); shift += 7) {
        const std::uint8_t byte = first.begin()[at++];
        value |= std::uint64_t{byte & 0x7fu} << shift;
        if ((byte & 0x80) == 0) break;
      }
      return value;
    };
    while (at < first.size()) {
      const std::size_t start = at;
      const std::uint64_t tag = varint();
      if (tag == (15 << 3 | 2)) {
        head.ParseFromArray(first.begin(), static_cast<int>(start));
        return;
      }
      const std::uint64_t value = varint();
      if ((tag & 7) == 2) at += value;
    }
    head.ParseFromString(bytes_of(in_));
  }

  void write() {
    if (writing_ || !has_waiting_) return;
    if (waiting_.number() == 0) waiting_.set_number(++number_);
    out_ = buffer_of(waiting_);
    waiting_.Clear();
    has_waiting_ = false;
    writing_ = true;
    StartWrite(&out_);
  }

  grpc::ByteBuffer in_, out_;
  std::mutex mutex_;
  v1::ConsumeRequest waiting_;
  bool has_waiting_ = false;
  bool writing_ = false;
  std::uint64_t number_ = 0;
};

std::shared_ptr<grpc::Channel> connect(const Options& options) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection each
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  arguments.SetMaxReceiveMessageSize(16 << 20);
  return grpc::CreateCustomChannel(options.target, grpc::InsecureChannelCredentials(), arguments);
}

void sleep_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

double percentile(const std::vector<double>& sorted, double part) {
  if (sorted.empty()) return 0;
  return sorted[std::min(sorted.size() - 1,
                         static_cast<std::size_t>(part * static_cast<double>(sorted.size())))];
}

int load(const Options& options) {
  Shared shared{options};
  std::vector<std::unique_ptr<Consumer>> consumers;
  std::vector<std::unique_ptr<Publisher>> publishers;
  for (int i = 0; i < options.consumers; ++i) {
    consumers.push_back(std::make_unique<Consumer>(shared, connect(options)));
  }
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  const int connections = options.connections > 0 ? options.connections : options.publishers;
  for (int i = 0; i < connections; ++i) channels.push_back(connect(options));
  for (int i = 0; i < options.publishers; ++i) {
    publishers.push_back(
        std::make_unique<Publisher>(shared, channels[static_cast<std::size_t>(i % connections)]));
  }
  sleep_for(options.warmup_seconds);
  for (auto& publisher : publishers) publisher->measure();
  const std::uint64_t published = shared.published, consumed = shared.consumed;
  const auto began = Clock::now();
  sleep_for(options.seconds);
  const std::uint64_t published_end = shared.published, consumed_end = shared.consumed;
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  shared.stopping = true;
  std::vector<double> all;
  for (auto& publisher : publishers) {
    const auto own = publisher->latencies();
    all.insert(all.end(), own.begin(), own.end());
  }
  std::sort(all.begin(), all.end());
  // Until what was published is consumed, as far as that goes on.
  for (int i = 0; options.consumers > 0 && i < 50 && shared.consumed < shared.published; ++i) {
    sleep_for(0.1);
  }
  std::printf(
      "{\"publishers\":%d,\"connections\":%d,\"window\":%d,\"frame\":%d,\"bytes\":%d,\"consumers\":"
      "%d,\"seconds\":%.2f,"
      "\"published_per_s\":%.0f,\"consumed_per_s\":%.0f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,"
      "\"published\":%llu,\"consumed\":%llu,\"errors\":%llu}\n",
      options.publishers, connections, options.window, options.frame, options.bytes,
      options.consumers, seconds, static_cast<double>(published_end - published) / seconds,
      static_cast<double>(consumed_end - consumed) / seconds, percentile(all, 0.5),
      percentile(all, 0.99), static_cast<unsigned long long>(shared.published.load()),
      static_cast<unsigned long long>(shared.consumed.load()),
      static_cast<unsigned long long>(shared.errors.load()));
  for (auto& publisher : publishers) publisher->cancel();
  for (auto& consumer : consumers) consumer->cancel();
  for (auto& publisher : publishers) publisher->wait();
  for (auto& consumer : consumers) consumer->wait();
  return shared.errors == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  bool closed = false;
  CLI::App parser("Load for the queues of a running server");
  parser.add_option("--target", options.target)->capture_default_str();
  parser.add_option("--queue", options.queue)->capture_default_str();
  parser.add_option("--api-key", options.key);
  parser.add_option("--publishers", options.publishers)->capture_default_str();
  parser
      .add_option("--connections", options.connections,
                  "Connections that the publishers share; 0: one each")
      ->capture_default_str();
  parser.add_option("--consumers", options.consumers)->capture_default_str();
  parser.add_option("--window", options.window, "Messages on their way, of one publisher")
      ->capture_default_str();
  parser.add_option("--frame", options.frame, "Messages in one frame")->capture_default_str();
  parser.add_option("--bytes", options.bytes)->capture_default_str();
  parser.add_option("--seconds", options.seconds)->capture_default_str();
  parser.add_option("--warmup-seconds", options.warmup_seconds)->capture_default_str();
  parser.add_option("--consume-window", options.consume_window)->capture_default_str();
  parser.add_flag("--closed", closed, "64 publishers with one message each, whatever else is said");
  CLI11_PARSE(parser, argc, argv);
  if (closed) {
    options.publishers = 64;
    options.window = options.frame = 1;
  }
  return load(options);
}
