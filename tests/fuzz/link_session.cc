// Both ends of the link: messages that the other end may send, in any order.
//
//   input   flags, then steps: a letter, and for most of them a block
//           h  the server hears a worker's message        (block)
//           w  the worker hears a server's message        (block)
//           W A C D B  the server says Welcome, Assign, Cancel, Drain, Heartbeat where it may,
//                      and the worker hears it
//           S  the worker accounts for a step and sends it (block)
//           L  the worker leaves
//           t  time passes
//   flags   1: the connection is remote
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "fuzz/fuzz.h"
#include "link/server_session.h"
#include "link/worker_session.h"

namespace waystation::fuzz {
namespace {

using namespace waystation::link;

constexpr std::uint64_t kEpoch = 3;
constexpr int kStepsMax = 200;

template <typename Message>
bool parse(Message& message, std::string_view bytes) {
  return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

v1::Hello hello() {
  v1::Hello hello;
  hello.set_protocol(kProtocolVersion);
  hello.set_worker_name("fuzz");
  hello.set_slots(2);
  hello.add_models()->set_id("small");
  return hello;
}

class Link {
 public:
  explicit Link(bool remote)
      : server_(ConnectionId{1}, Peer{"peer", !remote}, {.join_token = "secret"}, 0),
        worker_(hello(), 0) {}

  void step(std::uint8_t letter, Input& input) {
    switch (letter) {
      case 'h':
        server_hears(input.block());
        break;
      case 'w':
        worker_hears(input.block());
        break;
      case 'W':
        welcome();
        break;
      case 'A':
        assign(input.u8());
        break;
      case 'C':
        cancel(input.u8());
        break;
      case 'D':
        if (auto drain = server_.drain()) carry(std::move(*drain));
        REQUIRE(!server_.drain(), "drained twice");
        break;
      case 'B':
        if (auto beat = server_.heartbeat(now_ms_)) carry(std::move(*beat));
        break;
      case 'S':
        send_step(input.block());
        break;
      case 'L':
        if (auto leaving = worker_.leaving("done")) hear(std::move(*leaving));
        REQUIRE(!worker_.leaving("done"), "left twice");
        break;
      default:
        now_ms_ += letter;
        break;
    }
    check();
  }

 private:
  void server_hears(std::string_view bytes) {
    v1::WorkerMessage message;
    if (!parse(message, bytes)) return;
    synced_ = false;  // the worker session didn't say that
    hear(std::move(message));
  }

  // The server hears the message; what it makes of it must fit what it knew.
  void hear(v1::WorkerMessage message) {
    const std::set<FenceKey> before = in_flight_;
    const bool is_hello = message.has_hello();
    const auto heard = server_.on_message(std::move(message), now_ms_);
    if (!heard) {
      require_sayable(heard.error());
      REQUIRE(heard.error().code == Code::kInvalidArgument ||
                  heard.error().code == Code::kUnauthenticated,
              heard.error().message);
      REQUIRE(!server_over_ || *server_over_ == heard.error().message, "another error");
      server_over_ = heard.error().message;
      return;
    }
    REQUIRE(!server_over_, "heard after its end");
    if (std::holds_alternative<HelloHeard>(*heard)) {
      REQUIRE(is_hello && !greeted_, "a second Hello");
      greeted_ = true;
      REQUIRE(server_.hello().join_token().empty(), "the token is kept");
      REQUIRE(server_.credit() == 0, "credit before the Welcome");
    }
    if (const auto* step = std::get_if<StepHeard>(&*heard)) hear_step(*step, before);
  }

  void hear_step(const StepHeard& step, const std::set<FenceKey>& before) {
    REQUIRE(welcomed_, "a Step before the Welcome");
    for (const v1::Output& output : step.outputs) {
      const FenceKey key = key_of(output.fence());
      REQUIRE(output.fence().epoch() == kEpoch && before.contains(key), "a stale fence");
      REQUIRE(endings_of(output) <= 1, "two endings");
      REQUIRE(in_flight_.contains(key), "outputs after the last one");
      if (endings_of(output) == 1) in_flight_.erase(key);
    }
    for (const v1::Fence& fence : step.fenced) {
      REQUIRE(fence.epoch() != kEpoch || !in_flight_.contains(key_of(fence)), "a good fence");
    }
  }

  void worker_hears(std::string_view bytes) {
    v1::ServerMessage message;
    if (!parse(message, bytes)) return;
    synced_ = false;  // the server session didn't say that
    (void)told(std::move(message));
  }

  // A message of the server session: while nobody else spoke, the worker session takes it.
  void carry(v1::ServerMessage message) {
    const bool good = told(std::move(message));
    REQUIRE(good || !synced_, *worker_over_);
  }

  bool told(v1::ServerMessage message) {
    const auto news = worker_.on_message(std::move(message), now_ms_);
    if (!news) {
      if (!worker_over_) worker_over_ = news.error().message;
      REQUIRE(*worker_over_ == news.error().message, "another error");
      return false;
    }
    REQUIRE(!worker_over_, "heard after its end");
    if (const auto* cancel = std::get_if<CancelAsked>(&*news)) {
      bool known = false;
      for (const v1::Fence& fence : worker_.in_flight()) {
        known = known ||
                (fence.epoch() == cancel->fence.epoch() && key_of(fence) == key_of(cancel->fence));
      }
      REQUIRE(known, "a Cancel of what isn't in flight");
    }
    return true;
  }

  void welcome() {
    if (!greeted_) {
      synced_ = synced_ && !server_over_;
      hear(worker_.hello());
    }
    if (!greeted_ || welcomed_ || server_over_) return;
    welcomed_ = true;
    synced_ = synced_ && server_.hello().worker_name() == "fuzz" && server_.hello().slots() == 2;
    carry(server_.welcome(Epoch{kEpoch}, WorkerId{1}));
  }

  void assign(std::uint8_t number) {
    FenceKey key{std::string(16, static_cast<char>(number % 8)), 1u + number / 8};
    if (server_.credit() == 0 || in_flight_.contains(key)) return;
    v1::Assign assign;
    *assign.mutable_fence() = fence_of(kEpoch, key);
    assign.set_choices(1);
    in_flight_.insert(key);
    carry(server_.assign(std::move(assign)));
  }

  void cancel(std::uint8_t number) {
    const FenceKey key{std::string(16, static_cast<char>(number % 8)), 1u + number / 8};
    const auto message = server_.cancel(fence_of(kEpoch, key));
    REQUIRE(!message || in_flight_.contains(key), "a Cancel of what isn't in flight");
    REQUIRE(!server_.cancel(fence_of(kEpoch, key)), "cancelled twice");
    if (message) carry(*message);
  }

  // What the worker session lets through never breaks the server session, but for who started.
  void send_step(std::string_view bytes) {
    v1::WorkerMessage message;
    if (!parse(*message.mutable_step(), bytes)) return;
    worker_.account(*message.mutable_step());
    for (const v1::Output& output : message.step().outputs()) {
      REQUIRE(endings_of(output) <= 1, "two endings");
    }
    if (worker_.joined()) hear(std::move(message));
  }

  void check() const {
    REQUIRE(server_.in_flight_count() == in_flight_.size(), "another account");
    REQUIRE(server_.in_flight().size() == in_flight_.size(), "another account");
    REQUIRE(worker_.in_flight_count() <= hello().slots(), "more than its slots");
    if (server_over_ || server_.leaving()) REQUIRE(server_.credit() == 0, "credit at the end");
    if (welcomed_) REQUIRE(server_.in_flight_count() <= server_.hello().slots(), "over its slots");
    REQUIRE(server_.joined() == (welcomed_ && !server_over_), "joined");
  }

  ServerSession server_;
  WorkerSession worker_;
  TimeMs now_ms_ = 0;
  bool greeted_ = false;
  bool welcomed_ = false;
  bool synced_ = true;  // each has heard what the other said, and nothing else
  std::set<FenceKey> in_flight_;
  std::optional<std::string> server_over_;
  std::optional<std::string> worker_over_;
};

}  // namespace
}  // namespace waystation::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waystation::fuzz;
  be_quiet();
  Input input(data, size);
  Link link(input.u8() & 1);
  for (int i = 0; i < kStepsMax && !input.empty(); ++i) link.step(input.u8(), input);
  return 0;
}
