// Logs and checkpoints that were changed by another hand: refused or taken, but never a crash.
// Run it under the address and undefined-behaviour sanitizers to see more.
#include <gtest/gtest.h>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/stubs/logging.h>

#include <limits>

#include "ledger/random_log.h"

namespace waystation::ledger {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using testing::bytes_of;
using testing::kStartMs;
using testing::Random;

constexpr Limits kSmall{.live_requests_max = 30, .idempotency_ttl_ms = 500, .retain_ms = 300};

// Ids as raw bytes land in text fields here, which protobuf would complain about each time.
class LedgerGarbageTest : public ::testing::Test {
 private:
  google::protobuf::LogSilencer silencer_;
};

std::uint64_t odd_number(Random& random) {
  switch (random.below(6)) {
    case 0:
      return 0;
    case 1:
      return ~0ull;
    case 2:
      return 1ull << 63;
    case 3:
      return (1ull << 63) - 1;
    default:
      return random.below(8);
  }
}

// Changes one field somewhere in the message. Strings become one of `words`.
void mutate(Message& message, Random& random, const std::vector<std::string>& words) {
  const Reflection& fields = *message.GetReflection();
  const auto& descriptor = *message.GetDescriptor();
  const FieldDescriptor* field = descriptor.field(
      static_cast<int>(random.below(static_cast<std::uint64_t>(descriptor.field_count()))));
  if (random.one_in(12)) return fields.ClearField(&message, field);
  if (field->is_repeated()) {
    const int size = fields.FieldSize(message, field);
    if (size > 0 && random.one_in(3)) return fields.RemoveLast(&message, field);
    const int at = static_cast<int>(random.below(static_cast<std::uint64_t>(size)));
    if (size > 1 && random.one_in(3)) return fields.SwapElements(&message, field, at, 0);
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (size == 0 || random.one_in(6)) {
          Message* added = fields.AddMessage(&message, field);
          if (size > 0) added->CopyFrom(fields.GetRepeatedMessage(message, field, at));
          return;
        }
        return mutate(*fields.MutableRepeatedMessage(&message, field, at), random, words);
      case FieldDescriptor::CPPTYPE_STRING:
        return fields.AddString(&message, field, random.pick(words));
      case FieldDescriptor::CPPTYPE_UINT32:
        return fields.AddUInt32(&message, field, static_cast<std::uint32_t>(odd_number(random)));
      case FieldDescriptor::CPPTYPE_UINT64:
        return fields.AddUInt64(&message, field, odd_number(random));
      default:
        return;
    }
  }
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      // Mostly into what is there: an unset body is another kind of record.
      if (!fields.HasField(message, field) && !random.one_in(10)) {
        for (int i = 0; i < descriptor.field_count(); ++i) {
          const FieldDescriptor* other = descriptor.field(i);
          if (other->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !other->is_repeated() &&
              fields.HasField(message, other)) {
            return mutate(*fields.MutableMessage(&message, other), random, words);
          }
        }
      }
      return mutate(*fields.MutableMessage(&message, field), random, words);
    case FieldDescriptor::CPPTYPE_STRING:
      return fields.SetString(&message, field, random.pick(words));
    case FieldDescriptor::CPPTYPE_ENUM:
      return fields.SetEnumValue(&message, field, static_cast<int>(odd_number(random)));
    case FieldDescriptor::CPPTYPE_BOOL:
      return fields.SetBool(&message, field, random.one_in(2));
    case FieldDescriptor::CPPTYPE_INT32:
      return fields.SetInt32(&message, field, static_cast<std::int32_t>(odd_number(random)));
    case FieldDescriptor::CPPTYPE_INT64:
      return fields.SetInt64(&message, field, static_cast<std::int64_t>(odd_number(random)));
    case FieldDescriptor::CPPTYPE_UINT32:
      return fields.SetUInt32(&message, field, static_cast<std::uint32_t>(odd_number(random)));
    case FieldDescriptor::CPPTYPE_UINT64:
      return fields.SetUInt64(&message, field, odd_number(random));
    default:
      return;
  }
}

// A valid log of about `steps` random operations, and words that mean something in it.
struct History {
  History(Random& random, int steps) : ledger(kSmall) {
    testing::RandomLog driver(ledger, random, log, now_ms, number);
    driver.start_epoch();
    for (int i = 0; i < steps; ++i) {
      driver.step();
      if (random.one_in(60)) driver.start_epoch();
    }
    words = {"", "acme", "small", "talk0", "key1", std::string("a\0b", 3), "no id"};
    const v1::LedgerSnapshot snapshot = ledger.snapshot();
    for (const auto& request : snapshot.requests()) {
      words.push_back(request.id());
      words.push_back(RequestId::from_bytes(request.id())->to_string());
    }
  }
  Ledger ledger;
  std::vector<v1::Record> log;
  std::vector<std::string> words;
  TimeMs now_ms = kStartMs;
  std::uint64_t number = 0;
};

// Asks all questions, then does all there is to do: start, run, cancel, forget.
void exercise(Ledger& ledger, Random& random, TimeMs now_ms) {
  const v1::LedgerSnapshot snapshot = ledger.snapshot();
  for (const RequestId id : ledger.live()) {
    const Request* request = ledger.find(id);
    ASSERT_TRUE(request != nullptr && request->envelope != nullptr);
    (void)ledger.queue_position(*request);
  }
  (void)ledger.stored_below(ledger.index(), 100);
  (void)ledger.oldest_needed();
  (void)ledger.counts();
  std::vector<v1::Record> log;
  std::uint64_t number = 1'000'000;
  testing::RandomLog driver(ledger, random, log, now_ms, number);
  driver.start_epoch();
  for (int i = 0; i < 60; ++i) driver.step();
  driver.drain();
  EXPECT_TRUE(ledger.live().empty());
  Proposal out;
  ledger.expire(now_ms, out);
  ledger.forget(std::numeric_limits<TimeMs>::max(), LogIndex{}, 1'000'000, out);
  EXPECT_EQ(ledger.counts().live_bytes, 0u);
  // Unless the damage moved the log's time to where nothing ever grows old.
  if (ledger.snapshot().last_time_ms() < 2 * kStartMs) {
    EXPECT_EQ(ledger.counts().retained, 0u);
  }
}

void damage(std::vector<v1::Record>& log, Random& random, const std::vector<std::string>& words) {
  const std::size_t at = random.below(log.size());
  const auto place = log.begin() + static_cast<std::ptrdiff_t>(at);
  switch (random.below(8)) {
    case 0:
      log.insert(place, v1::Record(*place));
      break;
    case 1:
      log.erase(place);
      break;
    case 2:
      std::swap(log[at], log[random.below(log.size())]);
      break;
    case 3: {  // bits
      std::string raw = log[at].SerializeAsString();
      if (!raw.empty()) raw[random.below(raw.size())] ^= static_cast<char>(1 << random.below(8));
      v1::Record changed;
      if (changed.ParseFromString(raw)) log[at] = changed;
      break;
    }
    default:
      mutate(log[at], random, words);
      break;
  }
  if (log.empty()) log.emplace_back();
}

// Applies a damaged log. After an error it goes on: worse than any caller does.
TEST_F(LedgerGarbageTest, ADamagedLogNeverCrashes) {
  int refused = 0;
  int taken = 0;
  for (const std::uint64_t seed : testing::seeds(1, 150)) {
    SCOPED_TRACE("WAYSTATION_SEED=" + std::to_string(seed));
    Random random(seed);
    History history(random, 150);
    for (int round = 0; round < 10; ++round) {
      std::vector<v1::Record> log = history.log;
      for (std::uint64_t i = 1 + random.below(4); i > 0; --i) damage(log, random, history.words);
      const bool mend_times = random.one_in(2);
      Ledger ledger(kSmall);
      bool clean = true;
      for (v1::Record& record : log) {
        if (mend_times && record.time_ms() < kStartMs) record.set_time_ms(history.now_ms);
        const bool look = clean && round == 0;
        const std::string before = look ? bytes_of(ledger.snapshot()) : "";
        const Status status = ledger.apply(record, LogIndex{ledger.index().value + 1});
        EXPECT_TRUE(status || status.error().code == Code::kCorruption);
        // The first refusal of a log: whatever it was, it has changed nothing.
        EXPECT_TRUE(status || !look || bytes_of(ledger.snapshot()) == before);
        clean = clean && status.has_value();
      }
      ++(clean ? taken : refused);
      exercise(ledger, random, history.now_ms);
      if (::testing::Test::HasFailure()) return;
    }
  }
  if (!testing::other_seeds()) {
    EXPECT_GT(refused, 100);  // both happen, or this test tests nothing
    EXPECT_GT(taken, 100);
  }
}

TEST_F(LedgerGarbageTest, ADamagedCheckpointIsRefusedOrWorks) {
  int refused = 0;
  int taken = 0;
  for (const std::uint64_t seed : testing::seeds(5000, 200)) {
    SCOPED_TRACE("WAYSTATION_SEED=" + std::to_string(seed));
    Random random(seed);
    History history(random, 100);
    const v1::LedgerSnapshot good = history.ledger.snapshot();
    for (int round = 0; round < 20; ++round) {
      v1::LedgerSnapshot bad = good;
      for (std::uint64_t i = 1 + random.below(3); i > 0; --i) {
        if (random.one_in(4) || bad.requests().empty()) {
          mutate(bad, random, history.words);
        } else {
          const auto size = static_cast<std::uint64_t>(bad.requests_size());
          mutate(*bad.mutable_requests(static_cast<int>(random.below(size))), random,
                 history.words);
        }
      }
      Ledger ledger(kSmall);
      const Status status = ledger.restore(bad);
      ++(status ? taken : refused);
      if (!status) {
        EXPECT_EQ(status.error().code, Code::kCorruption);
        continue;
      }
      Ledger again(kSmall);
      EXPECT_TRUE(again.restore(ledger.snapshot()));
      EXPECT_EQ(bytes_of(again.snapshot()), bytes_of(ledger.snapshot()));
      exercise(ledger, random, history.now_ms);
      if (::testing::Test::HasFailure()) return;
    }
  }
  if (!testing::other_seeds()) {
    EXPECT_GT(refused, 100);
    EXPECT_GT(taken, 100);
  }
}

// Each kind of record, by itself, on an empty ledger.
TEST_F(LedgerGarbageTest, RandomRecordsNeverCrash) {
  for (const std::uint64_t seed : testing::seeds(9000, 500)) {
    Random random(seed);
    Ledger ledger(kSmall);
    const std::vector<std::string> words = {"", "a", RequestId{}.to_bytes(),
                                            RequestId{}.to_string()};
    for (int i = 0; i < 50; ++i) {
      v1::Record record;
      for (int j = 0; j < 8; ++j) mutate(record, random, words);
      if (random.one_in(2)) record.set_time_ms(kStartMs);
      (void)ledger.apply(record, LogIndex{ledger.index().value + 1});
    }
    exercise(ledger, random, kStartMs);
  }
}

}  // namespace
}  // namespace waystation::ledger
