// Makes the inputs that aren't text: make_seeds CORPUS_FOLDER. The same ones each time, so that
// what is in the tree can be made again when a format changes. Text inputs are written by hand.
#include <deque>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "base/executor.h"
#include "base/meter.h"
#include "fuzz/fuzz.h"
#include "journal/faulty_file_system.h"
#include "journal/file_journal.h"
#include "ledger/random_log.h"
#include "link/server_session.h"
#include "queue/testing.h"

namespace waystation::fuzz {
namespace {

namespace fs = std::filesystem;

fs::path corpus;

void put(const std::string& target, const std::string& name, const std::string& bytes) {
  fs::create_directories(corpus / target);
  std::ofstream(corpus / target / name, std::ios::binary) << bytes;
}

// ---- Journals -----------------------------------------------------------------------------------

// The journal's thread, when we say so.
class Steps final : public Executor {
 public:
  void run(Task task) override { tasks_.push_back(std::move(task)); }
  void work() {
    while (!tasks_.empty()) {
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      task();
    }
  }

 private:
  std::deque<Task> tasks_;
};

class Writer {
 public:
  explicit Writer(std::size_t compress_above, std::uint64_t journal_id = 0x0123456789abcdef)
      : compress_above_(compress_above), journal_id_(journal_id) {
    open();
  }

  void open() {
    journal::FileJournal::Options options;
    options.dir = "/j";
    options.segment_bytes_max = 600;
    options.compress_above_bytes = compress_above_;
    options.file_system = &disk_;
    options.meter = meter_.get();
    options.new_journal_id = journal_id_;
    options.executor = &steps_;
    options.callbacks = {[](LogIndex) {}, [](const Error&) {}};
    journal_ = std::move(journal::FileJournal::open(std::move(options)).value());
    steps_.work();
  }
  void append(std::vector<std::string> records) {
    journal_->append(std::move(records), 1'800'000'000'000);
    steps_.work();
  }
  void checkpoint(LogIndex index) {
    (void)journal_->write_checkpoint({index, std::string(200, 's') + std::to_string(index.value)});
  }
  void kill() {
    disk_.kill();
    journal_.reset();
    steps_.work();
  }
  void close() {
    journal_.reset();
    steps_.work();
  }
  // The folder as the target reads it, without the zeros that segments are filled up with.
  std::string folder(char flags) const { return std::string(1, flags) + files('s') + files('c'); }
  // The segments of it, or the checkpoints.
  std::string files(char kind) const {
    std::string out;
    for (const std::string& path : disk_.paths()) {
      if (!path.ends_with(kind == 's' ? ".segment" : ".ckpt")) continue;
      std::string bytes = disk_.contents(path);
      bytes.resize(bytes.find_last_not_of('\0') + 1);
      out.push_back(kind);
      append_block(out, bytes);
    }
    return out;
  }

 private:
  const std::size_t compress_above_;
  const std::uint64_t journal_id_;
  journal::FaultyFileSystem disk_;
  Steps steps_;
  std::unique_ptr<Meter> meter_ = make_null_meter();
  std::unique_ptr<journal::FileJournal> journal_;
};

void make_journals() {
  for (const std::size_t compress_above : {1u << 20, 64u}) {
    const std::string how = compress_above == 64 ? "-zstd" : "";
    Writer writer(compress_above);
    put("journal", "empty" + how, writer.folder('\0'));
    writer.append({"first one", "first two"});
    writer.append({"second"});
    writer.append({std::string(150, 'a')});
    put("journal", "open" + how, writer.folder('\0'));
    put("journal", "open-repaired" + how, writer.folder('\3'));
    std::string torn = writer.folder('\0');
    torn.resize(torn.size() - 20);
    put("journal", "torn" + how, torn);
    writer.append({std::string(300, 'b'), ""});
    writer.append({std::string(300, 'c')});
    writer.checkpoint({4});
    writer.append({"last"});
    writer.checkpoint({6});
    put("journal", "segments" + how, writer.folder('\5'));
    put("journal", "segments-chained" + how, writer.folder('\7'));
    writer.kill();
    writer.open();
    writer.append({"after the restart"});
    put("journal", "restarted" + how, writer.folder('\1'));
    writer.close();
    put("journal", "closed" + how, writer.folder('\0'));
  }
  Writer one(1u << 20);
  Writer other(1u << 20, 0xfedcba9876543210);
  for (Writer* writer : {&one, &other}) {
    writer->append({"first", "second"});
    writer->checkpoint({1});
  }
  put("journal", "checkpoint-of-another-journal",
      std::string(1, '\0') + one.files('s') + other.files('c'));
}

// ---- Logs ---------------------------------------------------------------------------------------

void make_request_logs() {
  for (const std::uint64_t seed : {1, 2, 3, 4}) {
    ledger::Ledger ledger({.live_requests_max = 20, .live_bytes_max = 1u << 20});
    ledger::testing::Random random(seed);
    std::vector<v1::Record> log;
    TimeMs now_ms = ledger::testing::kStartMs;
    std::uint64_t number = 0;
    ledger::testing::RandomLog driver(ledger, random, log, now_ms, number);
    driver.start_epoch();
    for (int i = 0; i < 40; ++i) driver.step();
    driver.start_epoch();
    for (int i = 0; i < 10; ++i) driver.step();
    std::string out = "r";
    for (const v1::Record& record : log) append_block(out, record.SerializeAsString());
    put("request_log", "log-" + std::to_string(seed), out);
    put("request_log", "checkpoint-" + std::to_string(seed),
        "c" + ledger.snapshot().SerializeAsString());
  }
  v1::Envelope envelope = ledger::testing::make_envelope(1, ledger::testing::kStartMs, "talk");
  envelope.set_specversion("1.0");
  envelope.set_type("waystation.chat.request.v1");
  envelope.set_source("/front/chat");
  put("request_log", "envelope", "e" + envelope.SerializeAsString());
  envelope.set_type("waystation.chat.request.v2");
  put("request_log", "envelope-newer", "e" + envelope.SerializeAsString());
}

void put_queue_log(const std::string& name, queue::TestLedger& ledger) {
  std::string out = "r";
  for (const std::string& record : ledger.out()) append_block(out, record);
  put("queue_log", "log-" + name, out);
  std::string holed = "h";
  for (std::size_t i = 0; i < ledger.out().size(); ++i) {
    append_block(holed, i % 5 == 3 ? std::string() : ledger.out()[i]);
  }
  put("queue_log", "holes-" + name, holed);
  put("queue_log", "checkpoint-" + name, "c" + ledger->snapshot());
}

void make_queue_logs() {
  queue::TestLedger ledger;
  const queue::MessageOptions laned{.lane = "a"};
  const queue::MessageOptions late{.priority = queue::Priority::kHigh, .not_before_ms = 10};
  (void)ledger.publish("jobs", {"one", "two", "three"});
  (void)ledger.publish("jobs", {"four", "five"}, {laned});
  (void)ledger.publish("mail", {"six", "seven"}, {laned, late}, "key");
  ledger.sync();
  put_queue_log("published", ledger);
  auto taken = ledger.take("jobs", 2);
  (void)ledger.ack("jobs", taken, {{1, 1}});
  (void)ledger.nack("jobs", taken, {{2, 1}}, 1000);
  taken = ledger.take("jobs", 2);
  (void)ledger->terminate(ledger.key("jobs", taken), {}, "no use", ledger.now, ledger.out());
  ledger->configure(ledger.id("mail"), {.attempts_max = 1, .lease_ms = 5, .dead_blocks = true},
                    ledger.now, ledger.out());
  taken = ledger.take("mail", 1);
  (void)ledger.nack("mail", taken);
  ledger.sync();
  put_queue_log("settled", ledger);
  (void)ledger->revive(ledger.id("mail"), {}, ledger.now, ledger.out());
  (void)ledger->discard(ledger.id("jobs"), {}, ledger.now, ledger.out());
  ledger.sync();
  put_queue_log("revived", ledger);
  (void)ledger.publish("gone", {"eight"});
  ledger.sync();
  ledger->remove(ledger.id("gone"), ledger.now, ledger.out());
  ledger.sync();
  ledger.crash();
  ledger.sync();
  put_queue_log("restarted", ledger);
}

// ---- Sessions -----------------------------------------------------------------------------------

std::string step_block(std::uint8_t number, bool started, const std::string& finish) {
  v1::Step step;
  v1::Output& output = *step.add_outputs();
  *output.mutable_fence() =
      link::fence_of(3, {std::string(16, static_cast<char>(number % 8)), 1u + number / 8});
  output.set_started(started);
  output.set_text("word");
  output.add_token_ids(7);
  output.set_finish_reason(finish);
  std::string out;
  append_block(out, step.SerializeAsString());
  return out;
}

std::string hello_block(const std::string& token) {
  v1::WorkerMessage message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_protocol(link::kProtocolVersion);
  hello.set_worker_name("gpu");
  hello.set_slots(3);
  hello.set_join_token(token);
  hello.add_models()->set_id("small");
  hello.add_models()->set_id("large");
  std::string out;
  append_block(out, message.SerializeAsString());
  return out;
}

std::string wrapped(const std::string& block) {
  v1::WorkerMessage message;
  message.mutable_step()->ParseFromString(block.substr(2));
  std::string out;
  append_block(out, message.SerializeAsString());
  return out;
}

void make_sessions() {
  const std::string local(1, '\0');
  const std::string remote(1, '\1');
  const std::string one("A\1", 2);
  const std::string two("A\2", 2);
  put("link_session", "answer",
      local + "W" + one + "S" + step_block(1, true, "") + "S" + step_block(1, false, "stop") + one);
  put("link_session", "two-at-once",
      local + "W" + one + two + "S" + step_block(2, true, "") + "S" +
          step_block(1, true, "length") + "C\2" + "tB" + "S" + step_block(2, false, "stop") + "L");
  put("link_session", "drained", local + "W" + one + "D" + "S" + step_block(1, true, "stop") + "L");
  put("link_session", "joined-by-token",
      remote + "h" + hello_block("secret") + "W" + one + "h" + wrapped(step_block(1, true, "")));
  put("link_session", "wrong-token", remote + "h" + hello_block("guess") + "W");
  put("link_session", "not-started", local + "W" + one + "S" + step_block(1, false, ""));
  put("link_session", "started-twice",
      local + "W" + one + "S" + step_block(1, true, "") + "S" + step_block(1, true, ""));
  put("link_session", "stale",
      local + "h" + hello_block("") + "W" + one + "h" + wrapped(step_block(9, true, "stop")) + "h" +
          wrapped(step_block(1, true, "stop")));
  // One output ends its attempt, the next one of the same step breaks a rule.
  v1::Step mixed;
  mixed.ParseFromString(step_block(1, true, "stop").substr(2));
  v1::Step bad;
  bad.ParseFromString(step_block(2, false, "").substr(2));
  mixed.MergeFrom(bad);
  std::string block;
  append_block(block, mixed.SerializeAsString());
  put("link_session", "ends-one-breaks-with-another", local + "W" + one + two + "S" + block);
  v1::ServerMessage refused;
  refused.mutable_refused()->set_code("unavailable");
  block.clear();
  append_block(block, refused.SerializeAsString());
  put("link_session", "refused", local + "w" + block + "w" + block);
}

}  // namespace
}  // namespace waystation::fuzz

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " CORPUS_FOLDER\n";
    return 2;
  }
  using namespace waystation::fuzz;
  be_quiet();
  corpus = argv[1];
  make_journals();
  make_request_logs();
  make_queue_logs();
  make_sessions();
  return 0;
}
