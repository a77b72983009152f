#include "broker/testing.h"

#include "base/check.h"

namespace waystation::broker::testing {
namespace {

// Where the broker's answer goes. It may come long after the question's function has returned.
template <typename T>
std::shared_ptr<Result<T>> no_answer() {
  return std::make_shared<Result<T>>(Error{Code::kInternal, "not answered"});
}

}  // namespace

bool TestReader::on_block(stream::BlockPtr block) {
  CHECK(block->first == next);  // no gap, no repetition
  for (const v1::Event& event : block->events) text += event.text();
  next = block->end();
  return true;
}

v1::Hello TestWorker::hello_of(std::string name, std::string model, std::uint32_t slots) {
  v1::Hello hello;
  hello.set_protocol(link::kProtocolVersion);
  hello.set_worker_name(std::move(name));
  hello.set_slots(slots);
  hello.set_pid(4711);
  v1::ModelInfo& served = *hello.add_models();
  served.set_id(std::move(model));
  served.set_fingerprint("sha");
  return hello;
}

TestWorker::TestWorker(link::MemoryLink& link, v1::Hello hello) {
  transport_ = link.connect(link::Peer{"unix:", true}, *this);
  v1::WorkerMessage message;
  *message.mutable_hello() = std::move(hello);
  transport_->send(std::move(message));
}

void TestWorker::on_message(v1::ServerMessage message) {
  if (message.has_welcome()) welcome = message.welcome();
  if (message.has_assign()) {
    started_.push_back(false);
    made_.push_back(message.assign().resume().empty()
                        ? 0
                        : static_cast<std::size_t>(message.assign().resume(0).token_ids_size()));
    assigned.push_back(std::move(*message.mutable_assign()));
  }
  if (message.has_cancel()) cancelled.push_back(message.cancel().fence());
}

void TestWorker::send(v1::Output output) {
  v1::WorkerMessage message;
  *message.mutable_step()->add_outputs() = std::move(output);
  transport_->send(std::move(message));
}

void TestWorker::produce(std::size_t index, std::size_t count) {
  v1::Output output;
  *output.mutable_fence() = assigned.at(index).fence();
  if (!started_[index]) {
    output.set_started(true);
    output.set_prompt_tokens(3);
    started_[index] = true;
  }
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    output.add_token_ids(static_cast<std::uint32_t>(made_[index]));
    text += "t" + std::to_string(made_[index]++) + " ";
  }
  output.set_text(text);
  send(std::move(output));
}

void TestWorker::finish(std::size_t index) {
  v1::Output output;
  *output.mutable_fence() = assigned.at(index).fence();
  output.set_started(!started_[index]);
  output.set_finish_reason("stop");
  send(std::move(output));
}

void TestWorker::fail(std::size_t index, Code code, const std::string& message) {
  v1::Output output;
  *output.mutable_fence() = assigned.at(index).fence();
  output.mutable_failure()->set_code(std::string(code_name(code)));
  output.mutable_failure()->set_message(message);
  send(std::move(output));
}

void TestWorker::leave() {
  v1::WorkerMessage message;
  message.mutable_leaving()->set_reason("the test says so");
  transport_->send(std::move(message));
}

void TestWorker::die() {
  transport_->close();
}

Station::Station(bool immediately_durable, Config given, Composer* composer_in)
    : config(std::move(given)), composer(composer_in), immediate_(immediately_durable) {
  config.expected_models.push_back("m");
  start();
}

Station::~Station() {
  link.reset();
}

void Station::start() {
  link = std::make_unique<link::MemoryLink>(link::MemoryLink::Delivery::kStepped);
  broker = std::make_unique<Broker>(
      config, Deps{clock, executor, *meter_, [this] { return random_++ * 0x9e3779b97f4a7c15ull; },
                   [this](std::int64_t pid) { stuck.push_back(pid); }, composer});
  link->serve(*broker);
  journal::MemoryJournal::Options options{broker->journal_callbacks(), immediate_, 64};
  if (journal == nullptr) {
    journal = std::make_unique<journal::MemoryJournal>(options);
  } else {
    auto reopened = journal::MemoryJournal::reopen(*journal, options);
    dead_journals_.push_back(std::exchange(journal, std::move(reopened)));
  }
  CHECK(broker->start(*journal, *link).has_value());
}

void Station::restart() {
  link.reset();
  broker.reset();
  start();
}

void Station::settle() {
  for (int quiet = 0; quiet < 3;) {
    const std::size_t delivered = link->deliver_all();
    const LogIndex before = journal->next_index();
    broker->turn(std::chrono::milliseconds(0));
    executor.run_all();
    quiet = delivered == 0 && before == journal->next_index() ? quiet + 1 : 0;
  }
}

Result<Submitted> Station::submit(const std::string& model, const std::string& conversation,
                                  const std::string& key, std::shared_ptr<TestReader> reader,
                                  bool detached) {
  Submission submission = submission_of(model);
  submission.envelope.set_partitionkey(conversation);
  submission.envelope.set_idempotencykey(key);
  submission.reader = std::move(reader);
  submission.detached = detached;
  return submit(std::move(submission));
}

Submission Station::submission_of(const std::string& model) {
  Submission submission;
  submission.envelope.set_tenant("default");
  submission.envelope.set_model(model);
  submission.envelope.set_data("{}");
  submission.detached = true;
  return submission;
}

Result<Submitted> Station::submit(Submission submission) {
  const auto answer = no_answer<Submitted>();  // it may come later, when the journal is let go on
  CHECK(broker->submit(std::move(submission), [answer](Result<Submitted> got) { *answer = got; }));
  settle();
  return *answer;
}

Result<RequestView> Station::get(RequestId id, const std::string& tenant) {
  const auto answer = no_answer<RequestView>();
  CHECK(broker->get(tenant, id, [answer](Result<RequestView> got) { *answer = got; }));
  settle();
  return *answer;
}

Result<RequestView> Station::cancel(RequestId id) {
  const auto answer = no_answer<RequestView>();
  CHECK(broker->cancel("default", id, [answer](Result<RequestView> got) { *answer = got; }));
  settle();
  return *answer;
}

std::shared_ptr<TestReader> Station::attach(RequestId id, Sequence from) {
  auto reader = std::make_shared<TestReader>(from);
  CHECK(broker->attach("default", id, from, reader, [](Result<RequestView>) {}));
  settle();
  return reader;
}

void Station::sync() {
  for (int round = 0; round < 3; ++round) {
    journal->make_all_durable();
    settle();
  }
}

std::shared_ptr<TestWorker> Station::worker(v1::Hello hello) {
  auto made = std::make_shared<TestWorker>(*link, std::move(hello));
  settle();
  return made;
}

std::shared_ptr<TestWorker> Station::worker(const std::string& name, const std::string& model,
                                            std::uint32_t slots) {
  auto made = std::make_shared<TestWorker>(*link, name, model, slots);
  settle();
  return made;
}

}  // namespace waystation::broker::testing
