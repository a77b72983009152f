// Envelopes, and the records and checkpoints of requests.
//
//   input   'e', then an envelope
//           'r', then blocks, each a record: a log from its beginning
//           anything else, then a checkpoint
#include <string>
#include <vector>

#include "fuzz/fuzz.h"
#include "ledger/ledger.h"
#include "ledger/random_log.h"
#include "message/envelope.h"

namespace waystation::fuzz {
namespace {

using namespace waystation::ledger;

constexpr int kSteps = 12;
constexpr Limits kLimits{.live_requests_max = 20, .live_bytes_max = 1u << 20};

// What is read is written again to the same bytes, also the fields that aren't known here.
template <typename Message>
void check_stable(const Message& message) {
  const std::string once = message.SerializeAsString();
  Message again;
  REQUIRE(again.ParseFromString(once), "it can't be read back");
  REQUIRE(again.SerializeAsString() == once, "another message came back");
}

void check_envelope_bytes(std::string_view bytes) {
  v1::Envelope envelope;
  if (!envelope.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  check_stable(envelope);
  const Status status = message::check_envelope(envelope);
  if (!status) {
    require_sayable(status.error());
    REQUIRE(!status.error().param.empty(), status.error().message);
    return;
  }
  REQUIRE(message::type_major_version(envelope.type()) == 1, envelope.type());
  REQUIRE(envelope.id().empty() || RequestId::parse(envelope.id()), envelope.id());
}

std::string state_of(const Ledger& ledger) {
  return ledger.snapshot().SerializeAsString();
}

// From here on the log must be good: it is what a server would serve from.
void check_state(Ledger& ledger, std::uint64_t seed) {
  const v1::LedgerSnapshot begin = ledger.snapshot();
  Ledger follower(kLimits);
  const Status status = follower.restore(begin);
  REQUIRE(status, status.error().message);
  REQUIRE(state_of(follower) == begin.SerializeAsString(), "a checkpoint is another state");
  (void)ledger.oldest_needed();
  (void)ledger.cacheable();
  for (const RequestId id : ledger.live()) (void)ledger.queue_position(*ledger.find(id));

  std::vector<v1::Record> log;
  TimeMs now_ms = testing::kStartMs;
  std::uint64_t number = 1'000'000;
  testing::Random random(seed);
  testing::RandomLog driver(ledger, random, log, now_ms, number);
  driver.start_epoch();
  for (int i = 0; i < kSteps; ++i) driver.step();
  driver.drain();
  REQUIRE(ledger.live().empty(), "a request can't be ended");
  for (const v1::Record& record : log) {
    check_stable(record);
    const Status applied = follower.apply(record, {follower.index().value + 1});
    REQUIRE(applied, applied.error().message);
  }
  REQUIRE(state_of(follower) == state_of(ledger), "the log doesn't give the state");
}

// What the records make of an empty ledger.
std::string state_after(const std::vector<v1::Record>& log) {
  Ledger ledger(kLimits);
  for (const v1::Record& record : log) {
    REQUIRE(ledger.apply(record, {ledger.index().value + 1}), record.ShortDebugString());
  }
  return state_of(ledger);
}

void check_log(Input& input) {
  Ledger ledger(kLimits);
  std::vector<v1::Record> log;
  while (!input.empty()) {
    const std::string_view bytes = input.block();
    v1::Record record;
    if (!record.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
    check_stable(record);
    const Status status = ledger.apply(record, {ledger.index().value + 1});
    if (!status) {
      require_sayable(status.error());
      REQUIRE(state_of(ledger) == state_after(log), "a refused record changed the state");
      return;
    }
    log.push_back(std::move(record));
  }
  check_state(ledger, log.size());
}

void check_checkpoint(std::string_view bytes) {
  v1::LedgerSnapshot snapshot;
  if (!snapshot.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  check_stable(snapshot);
  Ledger ledger(kLimits);
  if (const Status status = ledger.restore(snapshot); !status) {
    return require_sayable(status.error());
  }
  check_state(ledger, bytes.size());
}

}  // namespace
}  // namespace waystation::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waystation::fuzz;
  be_quiet();
  Input input(data, size);
  const std::uint8_t kind = input.u8();
  if (kind == 'e') {
    check_envelope_bytes(input.rest());
  } else if (kind == 'r') {
    check_log(input);
  } else {
    check_checkpoint(input.rest());
  }
  return 0;
}
