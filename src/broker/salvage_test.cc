#include "broker/salvage.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <sstream>

#include "broker/recovery.h"
#include "journal/inspect.h"
#include "journal/salvage.h"
#include "journal/test_support.h"
#include "ledger/random_log.h"
#include "stream/history.h"

namespace waystation::broker {
namespace {

using ledger::testing::Audit;
using ledger::testing::kStartMs;
using ledger::testing::Random;

constexpr ledger::Limits kLimits{
    .live_requests_max = 30, .idempotency_ttl_ms = 100'000, .retain_ms = 100'000};

std::string text_of(const std::vector<stream::BlockPtr>& blocks) {
  std::string all;
  for (const auto& block : blocks) {
    for (const v1::Event& event : block->events) all += event.SerializeAsString() + '|';
  }
  return all;
}

std::vector<LogIndex> positions_of(const ledger::Request& request) {
  std::vector<LogIndex> positions;
  for (const auto& position : request.positions) positions.push_back(position.index);
  return positions;
}

// A journal with a random log in small segments, and perhaps checkpoints.
class SalvageFolderTest : public journal::JournalTest {
 protected:
  SalvageFolderTest() {
    segment_bytes_ = 2048;
    compress_above_ = 400;
  }
  void write_log(Random& random) {
    ledger::Ledger ledger(kLimits);
    TimeMs now_ms = kStartMs;
    std::uint64_t number = 0;
    std::vector<v1::Record> log;
    ledger::testing::RandomLog driver(ledger, random, log, now_ms, number);
    open();
    std::size_t written = 0;
    const auto flush = [&] {
      std::vector<std::string> batch;
      for (; written < log.size(); ++written) batch.push_back(log[written].SerializeAsString());
      if (!batch.empty()) append_durably(std::move(batch), now_ms);
    };
    driver.start_epoch();
    for (int i = 0; i < 200; ++i) {
      driver.step();
      if (random.one_in(70)) driver.start_epoch();
      if (random.one_in(2)) flush();
      if (random.one_in(90)) {
        flush();
        ASSERT_TRUE(write_checkpoint(*journal_, kLimits, {}));
      }
    }
    driver.drain();
    flush();
    log_ = std::move(log);
    if (random.one_in(2)) {
      kill();
    } else {
      close();
    }
  }
  std::vector<std::string> files(bool segments_only) {
    std::vector<std::string> found;
    for (const std::string& path : disk_.paths()) {
      if (path.ends_with(".segment") || (!segments_only && path.ends_with(".ckpt"))) {
        found.push_back(path);
      }
    }
    return found;
  }
  void damage(Random& random) {
    damage_file(random.pick(files(!random.one_in(3))),
                [&](std::uint64_t n) { return random.below(n); });
  }
  // The numbers of the records that can still be read.
  std::set<std::uint64_t> left() {
    std::set<std::uint64_t> numbers;
    const auto listing = journal::list_journal(disk_, journal::kDir);
    EXPECT_TRUE(listing);
    (void)journal::read_leftover(disk_, journal::kDir, *listing, {}, 0x0123456789abcdef,
                                 {[&](LogIndex index, TimeMs, std::string_view) {
                                    numbers.insert(index.value);
                                    return Status();
                                  },
                                  [](const journal::LostRange&) { return Status(); }});
    return numbers;
  }
  Status run(bool dry_run = false) {
    out_.str("");
    return salvage(disk_,
                   {.dir = journal::kDir,
                    .to = "/new",
                    .dry_run = dry_run,
                    .new_journal_id = 99,
                    .segment_bytes = 4096},
                   out_);
  }
  void open_new() {
    watcher_ = std::make_unique<journal::Watcher>();
    auto o = options(*watcher_);
    o.dir = "/new";
    auto opened = journal::FileJournal::open(std::move(o));
    ASSERT_TRUE(opened) << opened.error().message << "\n" << out_.str();
    journal_ = std::move(*opened);
  }
  std::vector<v1::Record> log_;
  std::ostringstream out_;
};

std::string subject(const v1::Record& record) {
  if (record.has_accepted()) {
    return RequestId::parse(record.accepted().envelope().id())->to_bytes();
  }
  if (record.has_leased()) return record.leased().request();
  if (record.has_appended()) return record.appended().request();
  if (record.has_attempt_ended()) return record.attempt_ended().request();
  if (record.has_settled()) return record.settled().request();
  if (record.has_carried()) return record.carried().request();
  if (record.has_erased()) return record.erased().request();
  return "";
}

// Whatever is flipped, zeroed, cut or removed: a new folder comes of it that a server can start
// with, every stream in it can be read to its end, and requests that the damage didn't touch are
// there with the same end and the same events. The old folder stays as it was.
TEST_F(SalvageFolderTest, AnyDamage) {
  std::size_t untouched = 0;
  std::size_t failed = 0;
  std::size_t nothing = 0;
  for (const std::uint64_t seed : ledger::testing::seeds(1, 150)) {
    SCOPED_TRACE("WAYSTATION_SEED=" + std::to_string(seed));
    Random random(seed);
    journal_.reset();
    for (const std::string& path : disk_.paths()) ASSERT_TRUE(disk_.remove(path));
    write_log(random);
    for (std::uint64_t i = 1 + random.below(3); i > 0; --i) {
      if (!files(true).empty()) damage(random);
    }
    std::map<std::string, std::string> before;
    for (const std::string& path : files(false)) before[path] = disk_.contents(path);
    const std::set<std::uint64_t> there = left();
    const Status saved = run();
    for (const auto& [path, bytes] : before) EXPECT_EQ(disk_.contents(path), bytes);
    if (!saved) {  // not a single header
      ++nothing;
      EXPECT_TRUE(files(true).empty() || saved.error().code == Code::kCorruption)
          << saved.error().message;
      continue;
    }
    std::ostringstream verdict;
    EXPECT_TRUE(journal::verify(disk_, "/new", verdict)) << verdict.str();
    open_new();
    auto recovered = recover(*journal_, kLimits);
    ASSERT_TRUE(recovered) << recovered.error().message << "\n" << out_.str();

    Audit audit;
    EXPECT_EQ(audit.read_all(log_), "");
    std::set<std::string> touched;
    std::set<std::string> forgotten;
    for (std::size_t i = 0; i < log_.size(); ++i) {
      for (const std::string& id : log_[i].forgotten().requests()) forgotten.insert(id);
      if (there.contains(i + 1)) continue;
      touched.insert(subject(log_[i]));
      for (const std::string& id : log_[i].forgotten().requests()) touched.insert(id);
    }
    for (const auto& [id, entry] : audit.entries) {
      const ledger::Request* request = recovered->ledger->find(*RequestId::from_bytes(id));
      if (request != nullptr) {
        const auto history = stream::load_history(*journal_, request->id, positions_of(*request));
        ASSERT_TRUE(history) << history.error().message << "\n" << out_.str();
        failed += request->failure.code() == "lost_in_salvage";
        if (!touched.contains(id) && !request->erased) {
          std::string text;
          for (const v1::Event& event : entry.events) text += event.SerializeAsString() + '|';
          // Of a carried request the log of this test holds no events.
          const bool carried = std::ranges::any_of(log_, [&, &id = id](const v1::Record& record) {
            return record.has_carried() && record.carried().request() == id;
          });
          EXPECT_TRUE(carried || text_of(*history) == text);
        }
      }
      if (touched.contains(id) || forgotten.contains(id)) continue;
      ++untouched;
      ASSERT_NE(request, nullptr) << out_.str();
      EXPECT_EQ(request->state, entry.state) << out_.str();
    }
    if (HasFailure()) return;
  }
  if (!ledger::testing::other_seeds()) {
    EXPECT_GT(untouched, 1000u);
    EXPECT_GT(failed, 50u);
    EXPECT_LT(nothing, 50u);
  }
}

TEST_F(SalvageFolderTest, TellsWhatIsLostAndADryRunWritesNothing) {
  Random random(4);
  write_log(random);
  const std::string path = segment_path(1);
  disk_.flip_bit(path, journal::kSegmentHeaderBytes + journal::kBatchHeaderBytes + 3, 2);
  ASSERT_TRUE(run(true));
  EXPECT_NE(out_.str().find("damage: " + path + " at byte 48 to "), std::string::npos)
      << out_.str();
  EXPECT_NE(out_.str().find("would keep "), std::string::npos) << out_.str();
  for (const std::string& file : disk_.paths()) EXPECT_FALSE(file.starts_with("/new")) << file;
  const std::string dry = out_.str();
  ASSERT_TRUE(run());
  EXPECT_EQ(out_.str().substr(0, 40), dry.substr(0, 40));
  EXPECT_EQ(run().error().code, Code::kInvalidArgument);  // not empty now
}

TEST_F(SalvageFolderTest, AFolderInUseIsRefused) {
  open();
  EXPECT_EQ(run().error().code, Code::kBusy);
}

}  // namespace
}  // namespace waystation::broker
