// A broker with everything around it in one thread, for tests: memory journal, memory link, a clock
// that is moved by hand, and workers that do what the test says.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "broker/broker.h"
#include "journal/memory_journal.h"
#include "link/memory_transport.h"

namespace waystation::broker::testing {

// Runs tasks when told to.
class ManualExecutor final : public Executor {
 public:
  void run(Task task) override { tasks_.push_back(std::move(task)); }
  void run_all() {
    while (!tasks_.empty()) {
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      task();
    }
  }

 private:
  std::deque<Task> tasks_;
};

// Collects a stream.
class TestReader final : public stream::Reader {
 public:
  explicit TestReader(Sequence from = 0) : next(from) {}
  bool on_block(stream::BlockPtr block) override;
  void on_end(const stream::Ending& given) override { ending = given; }
  void on_interrupted(const Error& error) override { interrupted = error; }

  Sequence next;
  std::string text;
  std::optional<stream::Ending> ending;
  std::optional<Error> interrupted;
};

// A worker that keeps what it was given until the test lets it answer.
class TestWorker final : public link::WorkerEvents {
 public:
  TestWorker(link::MemoryLink& link, std::string name, std::string model, std::uint32_t slots)
      : TestWorker(link, hello_of(std::move(name), std::move(model), slots)) {}
  TestWorker(link::MemoryLink& link, v1::Hello hello);

  // A plain worker with one model, whose file has the fingerprint "sha".
  static v1::Hello hello_of(std::string name, std::string model, std::uint32_t slots = 1);

  void on_message(v1::ServerMessage message) override;
  void on_disconnected(std::string) override { connected = false; }

  // Sends `count` tokens of the assignment `index`, "t<i> " each, going on from where it resumes.
  void produce(std::size_t index, std::size_t count);
  void finish(std::size_t index);
  void fail(std::size_t index, Code code, const std::string& message = "it said no");
  void leave();  // says that it takes no new work
  void send(v1::Output output);
  void die();  // the connection breaks

  std::vector<v1::Assign> assigned;  // all it ever got
  std::vector<v1::Fence> cancelled;
  std::optional<v1::Welcome> welcome;
  bool connected = true;

 private:
  std::vector<bool> started_;
  std::vector<std::size_t> made_;  // tokens per assignment, counting the resumed ones
  std::unique_ptr<link::WorkerTransport> transport_;
};

class Station {
 public:
  explicit Station(bool immediately_durable = true, Config config = {},
                   Composer* composer = nullptr);
  ~Station();

  // Kills the server and starts another on what was durable.
  void restart();
  // Turns, deliveries and background work until nothing moves.
  void settle();

  Result<Submitted> submit(const std::string& model, const std::string& conversation = "",
                           const std::string& key = "",
                           std::shared_ptr<TestReader> reader = nullptr, bool detached = true);
  Result<Submitted> submit(Submission submission);
  // A request that has nothing special; the tenant is "default".
  static Submission submission_of(const std::string& model);
  Result<RequestView> get(RequestId id, const std::string& tenant = "default");
  Result<RequestView> cancel(RequestId id);
  std::shared_ptr<TestReader> attach(RequestId id, Sequence from = 0);
  std::shared_ptr<TestWorker> worker(const std::string& name, const std::string& model,
                                     std::uint32_t slots = 1);
  std::shared_ptr<TestWorker> worker(v1::Hello hello);
  // Makes all that was written durable, and what comes of that too.
  void sync();

  ManualClock clock;
  Config config;
  Composer* composer;  // of the next start
  std::unique_ptr<journal::MemoryJournal> journal;
  std::unique_ptr<link::MemoryLink> link;
  std::unique_ptr<Broker> broker;
  ManualExecutor executor;
  std::vector<std::int64_t> stuck;  // process ids that the broker called stuck

 private:
  void start();
  const bool immediate_;
  std::unique_ptr<Meter> meter_ = make_null_meter();
  std::vector<std::unique_ptr<journal::MemoryJournal>> dead_journals_;
  std::uint64_t random_ = 1;
};

}  // namespace waystation::broker::testing
