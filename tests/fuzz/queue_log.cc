// The records and checkpoints of people's queues.
//
//   input   'r', then blocks, each a record: a log from its beginning
//           'h', then the same with holes: an empty block is where records are lost
//           anything else, then a checkpoint
#include <sstream>
#include <string>
#include <vector>

#include "fuzz/fuzz.h"
#include "queue/ledger.h"
#include "queue/record.h"
#include "queue/salvage.h"

namespace waystation::fuzz {
namespace {

using namespace waystation::queue;

constexpr TimeMs kNowMs = 1'800'000'000'000;
constexpr TimeMs kLeaseMs = 1000;
constexpr int kTakesMax = 20;
constexpr std::uint64_t kLostAtOnce = 2;
// Small, so that payloads leave memory.
constexpr Limits kLimits{.memory_bytes_max = 4096, .queue_memory_bytes_min = 256};

// What is read is written again to what reads the same.
void check_record(std::string_view bytes) {
  const auto record = decode(bytes);
  if (!record) return require_sayable(record.error());
  const std::string once = encode(*record);
  const auto again = decode(once);
  REQUIRE(again, again.error().message);
  REQUIRE(encode(*again) == once, "another record came back");
}

std::string restored(const std::string& snapshot, LogIndex index) {
  Ledger ledger(kLimits);
  const Status status = ledger.restore(snapshot, index);
  REQUIRE(status, status.error().message);
  return ledger.snapshot();
}

// A consumer takes what there is, and is of every mind about it.
void consume(Ledger& ledger, QueueId queue, TimeMs& now_ms, Proposal& out) {
  for (int i = 0; i < kTakesMax; ++i) {
    const Taken taken = ledger.take(queue, {7, 1u << 16}, ConsumerId{1}, kLeaseMs, now_ms);
    if (taken.lease == 0) return;
    const LeaseKey key{queue, taken.lease};
    Status done;
    if (i % 4 == 0) done = ledger.ack(key, {}, now_ms, out);
    if (i % 4 == 1) done = ledger.nack(key, {}, 50, true, "nack", now_ms, out);
    if (i % 4 == 2) done = ledger.terminate(key, {}, "no", now_ms, out);
    if (i % 4 == 3) now_ms += 2 * kLeaseMs;
    REQUIRE(done, done.error().message);
    std::vector<QueueId> changed;
    ledger.tick(now_ms, out, changed);
  }
}

void exercise(Ledger& ledger, const std::vector<std::string>& tenants, Proposal& out) {
  TimeMs now_ms = kNowMs;
  ledger.begin(now_ms, out);
  std::vector<QueueId> changed;
  ledger.make_visible({ledger.index().value + 1'000'000}, changed);
  (void)ledger.stored_below({ledger.index().value + 1}, 1000);
  (void)ledger.oldest_needed();
  for (const std::string& tenant : tenants) {
    for (const QueueInfo& info : ledger.list(tenant)) {
      const auto queue = ledger.find(tenant, info.name);
      REQUIRE(queue, info.name);
      consume(ledger, *queue, now_ms, out);
      (void)ledger.cold(*queue, 1000);
      if (!ledger.dead_letters(*queue, 0, 10).empty()) {
        const auto revived = ledger.revive(*queue, {}, now_ms, out);
        REQUIRE(revived && *revived > 0, "no dead letter was revived");
      }
      consume(ledger, *queue, now_ms, out);
    }
  }
  ledger.end_consumer(ConsumerId{1}, true, now_ms, out);
}

// From here on the log must be good: it is what a server would serve from.
void check_state(Ledger& ledger, std::vector<std::string> tenants) {
  const std::string begin = ledger.snapshot();
  const LogIndex index = ledger.index();
  REQUIRE(restored(begin, index) == begin, "a checkpoint is another state");
  tenants.insert(tenants.end(), {"t", ""});  // t: in the seeds
  Proposal out;
  exercise(ledger, tenants, out);
  Ledger follower(kLimits);
  REQUIRE(follower.restore(begin, index), "not restored");
  LogIndex at = index;
  for (const std::string& record : out) {
    check_record(record);
    ++at.value;
    const Status applied = follower.apply(record, at);
    REQUIRE(applied, applied.error().message);
  }
  REQUIRE(follower.snapshot() == ledger.snapshot(), "the log doesn't give the state");
}

void check_log(Input& input) {
  Ledger ledger(kLimits);
  std::vector<std::string> tenants;
  for (LogIndex index{1}; !input.empty(); ++index.value) {
    const std::string_view bytes = input.block();
    check_record(bytes);
    if (const Status status = ledger.apply(bytes, index); !status) {
      return require_sayable(status.error());
    }
    const Record record = decode(bytes).value();
    if (const auto* created = std::get_if<Created>(&record.body)) {
      if (tenants.size() < 8) tenants.push_back(created->tenant);
    }
  }
  check_state(ledger, std::move(tenants));
}

// Whatever is lost, and whatever is there instead: a log comes of it that a server can start from.
void check_salvage(Input& input) {
  Salvage salvage;
  Ledger follower(kLimits);
  LogIndex index;
  const Status begun = salvage.begin([](LogIndex) { return false; },
                                     [&](std::string record, TimeMs) {
                                       ++index.value;
                                       return follower.apply(record, index);
                                     });
  REQUIRE(begun, "not begun");
  while (!input.empty()) {
    const std::string_view bytes = input.block();
    if (bytes.empty()) {
      salvage.hole(kLostAtOnce);
      continue;
    }
    const auto taken = salvage.take(bytes);
    REQUIRE(taken, taken.error().message);
  }
  const Status finished = salvage.finish();
  REQUIRE(finished, finished.error().message);
  std::ostringstream out;
  salvage.tell(out, {}, {});
  check_state(follower, {});
}

void check_checkpoint(std::string_view bytes) {
  Ledger ledger(kLimits);
  const LogIndex index{1'000'000};
  if (const Status status = ledger.restore(bytes, index); !status) {
    return require_sayable(status.error());
  }
  check_state(ledger, {});
}

}  // namespace
}  // namespace waystation::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waystation::fuzz;
  be_quiet();
  Input input(data, size);
  const std::uint8_t kind = input.u8();
  if (kind == 'r') {
    check_log(input);
  } else if (kind == 'h') {
    check_salvage(input);
  } else {
    check_checkpoint(input.rest());
  }
  return 0;
}
