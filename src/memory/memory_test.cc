#include "memory/memory.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "broker/testing.h"
#include "message/chat.h"
#include "message/envelope.h"

namespace waystation::memory {
namespace {

using broker::RequestView;
using broker::Submitted;
using broker::testing::Station;
using message::Item;

// A broker on a memory journal, turned by hand, and a real database beside it.
class MemoryTest : public testing::Test {
 protected:
  MemoryTest() {
    char name[] = "/tmp/ws_memory_test.XXXXXX";
    folder_ = ::mkdtemp(name);
    open();
    station_ = std::make_unique<Station>(true, broker::Config{}, memory_.get());
    EXPECT_TRUE(memory_->start(*station_->broker));
    worker_ = station_->worker("w", "m", 4);
  }
  ~MemoryTest() override {
    database_->stop();
    station_.reset();
    memory_.reset();
    database_.reset();
    std::filesystem::remove_all(folder_);
  }

  void open() {
    std::vector<store::Migration> schema = store::responses_schema();
    for (auto& step : store::conversations_schema()) schema.push_back(std::move(step));
    for (auto& step : store::bound_keys_schema()) schema.push_back(std::move(step));
    auto database = store::Database::open({.path = folder_ + "/store.db"}, schema);
    ASSERT_TRUE(database) << database.error().message;
    database_ = std::move(*database);
    Options options;
    options.retry_ms = 5;
    memory_ =
        std::make_unique<Memory>(Deps{*database_, clock_, [this] { return ++random_; }}, options);
  }

  // The whole server dies and starts again. What the store had not committed is lost.
  void restart() {
    database_->stop();
    auto dead_memory = std::move(memory_);
    auto dead_database = std::move(database_);
    open();
    station_->composer = memory_.get();
    station_->restart();
    ASSERT_TRUE(memory_->start(*station_->broker));
    worker_ = station_->worker("w2", "m", 4);
  }

  template <typename Condition>
  void turn_until(Condition condition) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), give_up);
      station_->settle();
      std::this_thread::yield();
    }
  }

  // The result of a call of Memory.
  template <typename T, typename Call>
  Result<T> result_of(Call call) {
    std::mutex mutex;
    std::optional<Result<T>> got;
    const auto status = call([&](Result<T> result) {
      std::lock_guard lock(mutex);
      got.emplace(std::move(result));
    });
    if (!status) return status.error();
    turn_until([&] {
      std::lock_guard lock(mutex);
      return got.has_value();
    });
    return std::move(*got);
  }

  struct Asked {
    std::string conversation;
    std::string previous;
    bool store = true;
    bool background = true;
    std::string tenant = "default";
    std::string key;
  };

  Result<Context> prepare(const std::string& text, const Asked& asked, RequestId id) {
    std::string body = R"({"model":"m","input":")" + text + "\"";
    if (!asked.conversation.empty()) body += R"(,"conversation":")" + asked.conversation + "\"";
    if (!asked.previous.empty()) body += R"(,"previous_response_id":")" + asked.previous + "\"";
    auto request = message::parse_response_request(body + "}", id);
    if (!request) return request.error();
    return result_of<Context>(
        [&](auto done) { return memory_->prepare(asked.tenant, *request, done); });
  }

  Result<Submitted> ask(const std::string& text, const Asked& asked) {
    const RequestId id = memory_->new_id();
    auto context = prepare(text, asked, id);
    if (!context) return context.error();
    store::ResponseRow row;
    row.id = id;
    row.tenant = asked.tenant;
    row.created_ms = id.time_ms();
    row.api = "responses";
    row.model = "m";
    row.conversation = asked.conversation;
    row.previous = message::parse_response_id(asked.previous);
    row.visible = asked.store;
    row.background = asked.background;
    row.parameters = context->request.parameters;
    row.input = message::items_json(context->request.input);
    broker::Submission submission;
    submission.envelope.set_id(id.to_string());
    submission.envelope.set_tenant(asked.tenant);
    submission.envelope.set_model("m");
    submission.envelope.set_partitionkey(asked.conversation);
    submission.envelope.set_idempotencykey(asked.key);
    submission.envelope.set_data(*message::response_chat_body(context->request, context->earlier));
    submission.detached = asked.background;
    submission.compose = !asked.conversation.empty();
    return result_of<Submitted>([&](auto done) { return memory_->submit(row, submission, done); });
  }
  RequestId asked_id(const std::string& text) { return asked_id(text, Asked()); }
  RequestId asked_id(const std::string& text, const Asked& asked) {
    auto submitted = ask(text, asked);
    EXPECT_TRUE(submitted) << submitted.error().message;
    return submitted->id;
  }

  Result<Found> find(RequestId id, const std::string& tenant = "default") {
    return result_of<Found>([&](auto done) { return memory_->find(tenant, id, done); });
  }
  // Lets the worker answer what it was given as number `index`.
  void answer(std::size_t index, std::size_t tokens = 2) {
    turn_until([&] { return worker_->assigned.size() > index; });
    worker_->produce(index, tokens);
    worker_->finish(index);
    station_->settle();
  }
  // What the model heard, as "role:content" in order.
  std::vector<std::string> heard(std::size_t index) {
    turn_until([&] { return worker_->assigned.size() > index; });
    auto chat = message::parse_chat_request(worker_->assigned[index].envelope().data());
    EXPECT_TRUE(chat) << worker_->assigned[index].envelope().data();
    std::vector<std::string> out;
    for (const auto& message : chat->messages) out.push_back(message.role + ":" + message.content);
    return out;
  }
  std::string conversation() {
    auto made = result_of<store::ConversationRow>(
        [&](auto done) { return memory_->create_conversation("default", "{}", {}, {}, done); });
    EXPECT_TRUE(made);
    return made->id;
  }
  std::vector<Item> items(const std::string& id) {
    auto page = result_of<store::ItemPage>([&](auto done) {
      return memory_->list_items("default", id, {100, true, ""}, done);
    });
    EXPECT_TRUE(page) << page.error().message;
    return page->items;
  }
  std::int64_t rows() {
    return *database_->call<std::int64_t>([](store::Sql& sql) -> Result<std::int64_t> {
      auto rows = sql.query("SELECT count(*) FROM responses");
      if (!rows || !rows->next()) return Error{};
      return rows->integer(0);
    });
  }

  std::string folder_;
  ManualClock clock_;
  std::atomic<std::uint64_t> random_ = 1;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<Station> station_;
  std::shared_ptr<broker::testing::TestWorker> worker_;
};

TEST_F(MemoryTest, AResponseIsFoundWhileItRunsAndWhenItHasEnded) {
  const RequestId id = asked_id("hello");
  auto found = find(id);
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->row.ended);
  EXPECT_EQ(found->view->state, v1::REQUEST_STATE_RUNNING);
  answer(0);
  found = find(id);
  ASSERT_TRUE(found->row.ended);
  EXPECT_EQ(found->row.state, "completed");
  EXPECT_NE(found->row.answer.find("\"text\":\"t0 t1 \""), std::string::npos) << found->row.answer;
  EXPECT_EQ(find(id, "other").error().code, Code::kNotFound);
  EXPECT_EQ(find(memory_->new_id()).error().code, Code::kNotFound);
}

TEST_F(MemoryTest, WhatIsNotToBeStoredIsGoneWhenItHasEnded) {
  Asked asked;
  asked.store = false;
  const RequestId id = asked_id("hello", asked);
  EXPECT_EQ(find(id).error().code, Code::kNotFound);
  EXPECT_EQ(rows(), 1);
  answer(0);
  turn_until([&] { return rows() == 0; });
}

TEST_F(MemoryTest, ARefusalLeavesNoRow) {
  station_->broker->drain();
  EXPECT_FALSE(ask("hello", {}));
  turn_until([&] { return rows() == 0; });
}

TEST_F(MemoryTest, ADuplicateLeavesOneRow) {
  Asked asked;
  asked.key = "k";
  const RequestId first = asked_id("hello", asked);
  auto second = ask("hello", asked);
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->duplicate);
  EXPECT_EQ(second->id, first);
  turn_until([&] { return rows() == 1; });
}

TEST_F(MemoryTest, TheChainOfResponsesComesBefore) {
  const RequestId first = asked_id("one");
  EXPECT_EQ(heard(0), (std::vector<std::string>{"user:one"}));
  Asked asked;
  asked.previous = message::response_id(first);
  auto early = ask("two", asked);
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().param, "previous_response_id");
  EXPECT_NE(early.error().message.find("still running"), std::string::npos);
  answer(0);
  // At once: that its outcome isn't stored yet must not show.
  const RequestId second = asked_id("two", asked);
  EXPECT_EQ(heard(1), (std::vector<std::string>{"user:one", "assistant:t0 t1 ", "user:two"}));
  answer(1);
  asked.previous = message::response_id(second);
  asked_id("three", asked);
  EXPECT_EQ(heard(2), (std::vector<std::string>{"user:one", "assistant:t0 t1 ", "user:two",
                                                "assistant:t0 t1 ", "user:three"}));
  // Another tenant can't go on from it.
  asked.tenant = "other";
  EXPECT_EQ(ask("x", asked).error().param, "previous_response_id");
  // Nor anybody when a link is gone.
  asked.tenant = "default";
  ASSERT_TRUE(result_of<void>([&](auto done) { return memory_->remove("default", first, done); }));
  auto broken = ask("x", asked);
  ASSERT_FALSE(broken);
  EXPECT_NE(broken.error().message.find("deleted"), std::string::npos);
}

TEST_F(MemoryTest, ReferencesAreResolved) {
  const RequestId first = asked_id("one");
  answer(0);
  const auto resolve = [&](const std::string& item, const std::string& tenant = "default") {
    auto request = message::parse_response_request(
        R"({"model":"m","input":[{"type":"item_reference","id":")" + item + "\"}]}",
        memory_->new_id());
    return result_of<Context>([&](auto done) { return memory_->prepare(tenant, *request, done); });
  };
  auto context = resolve(message::item_id("msg", first, "0"));
  // Its outcome may not be stored yet.
  turn_until([&] { return bool(context = resolve(message::item_id("msg", first, "0"))); });
  EXPECT_EQ(context->request.input[0].type, "message");
  EXPECT_NE(context->request.input[0].json.find("t0 t1"), std::string::npos);
  EXPECT_TRUE(resolve(message::item_id("msg", first, "i0")));
  EXPECT_EQ(resolve("msg_nonsense").error().param, "input[0].id");
  EXPECT_FALSE(resolve(message::item_id("msg", first, "0"), "other"));
}

TEST_F(MemoryTest, CancellingIsForBackgroundAndIdempotent) {
  const auto cancel = [&](RequestId id) {
    return result_of<Found>([&](auto done) { return memory_->cancel("default", id, done); });
  };
  const RequestId id = asked_id("hello");
  auto found = cancel(id);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->row.state, "cancelled");
  const std::string answer_before = found->row.answer;
  found = cancel(id);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->row.answer, answer_before);
  Asked asked;
  asked.background = false;
  EXPECT_EQ(cancel(asked_id("hello", asked)).error().code, Code::kInvalidArgument);
}

TEST_F(MemoryTest, RemovingARunningOneCancelsIt) {
  const RequestId id = asked_id("hello");
  ASSERT_TRUE(result_of<void>([&](auto done) { return memory_->remove("default", id, done); }));
  EXPECT_EQ(find(id).error().code, Code::kNotFound);
  EXPECT_EQ(rows(), 0);
  EXPECT_EQ(worker_->cancelled.size(), 1u);
  EXPECT_EQ(station_->get(id).error().code, Code::kGone);
}

TEST_F(MemoryTest, RemovingTakesTheRequestAlong) {
  Asked asked;
  asked.key = "k";
  const RequestId id = asked_id("a secret", asked);
  answer(0);
  EXPECT_TRUE(station_->get(id));
  EXPECT_TRUE(result_of<void>([&](auto done) { return memory_->remove("default", id, done); }));
  EXPECT_EQ(station_->get(id).error().code, Code::kGone);
  EXPECT_EQ(find(id).error().code, Code::kNotFound);
  // Sent again with its key, it neither runs again nor leaves anything.
  EXPECT_EQ(ask("a secret", asked).error().code, Code::kGone);
  turn_until([&] { return rows() == 0; });
  EXPECT_EQ(worker_->assigned.size(), 1u);
}

TEST_F(MemoryTest, TurnsOfAConversationHearTheOnesBefore) {
  Asked asked;
  asked.conversation = conversation();
  std::vector<RequestId> ids;
  for (const char* text : {"one", "two", "three"}) ids.push_back(asked_id(text, asked));
  EXPECT_EQ(heard(0), (std::vector<std::string>{"user:one"}));
  answer(0);
  EXPECT_EQ(heard(1), (std::vector<std::string>{"user:one", "assistant:t0 t1 ", "user:two"}));
  answer(1, 1);
  EXPECT_EQ(heard(2), (std::vector<std::string>{"user:one", "assistant:t0 t1 ", "user:two",
                                                "assistant:t0 ", "user:three"}));
  answer(2);
  EXPECT_EQ(items(asked.conversation).size(), 6u);
}

TEST_F(MemoryTest, OnlyCompletedTurnsAreKept) {
  Asked asked;
  asked.conversation = conversation();
  const RequestId first = asked_id("one", asked);
  asked_id("two", asked);
  ASSERT_TRUE(result_of<Found>([&](auto done) { return memory_->cancel("default", first, done); }));
  EXPECT_EQ(heard(1), (std::vector<std::string>{"user:two"}));
  answer(1);
  EXPECT_EQ(items(asked.conversation).size(), 2u);
}

TEST_F(MemoryTest, AComposedTurnIsTheSameAfterARestart) {
  Asked asked;
  asked.conversation = conversation();
  asked_id("one", asked);
  heard(0);
  const std::string before = worker_->assigned[0].envelope().data();
  // What comes in between is for later turns.
  auto request = message::parse_items_member(R"({"items":[{"role":"user","content":"between"}]})",
                                             "items", memory_->new_id());
  ASSERT_TRUE(result_of<std::vector<Item>>([&](auto done) {
    return memory_->add_items("default", asked.conversation, *request, done);
  }));
  restart();
  heard(0);
  EXPECT_EQ(worker_->assigned[0].envelope().data(), before);
}

TEST_F(MemoryTest, OutcomesThatTheStoreMissedAreWrittenAfterARestart) {
  Asked asked;
  asked.conversation = conversation();
  const RequestId id = asked_id("one", asked);
  heard(0);
  database_->stop();  // the server dies after the ledger has the ending, before the store has it
  worker_->produce(0, 2);
  worker_->finish(0);
  station_->settle();
  restart();
  auto found = find(id);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->row.state, "completed");
  EXPECT_EQ(items(asked.conversation).size(), 2u);
  restart();  // and only once
  EXPECT_EQ(items(asked.conversation).size(), 2u);
}

TEST_F(MemoryTest, ARowThatWasNeverSubmittedIsRemoved) {
  store::ResponseRow row;
  row.id = memory_->new_id();
  row.tenant = "default";
  row.visible = true;
  row.input = "[]";
  ASSERT_TRUE(
      database_->call<void>([&](store::Sql& sql) { return store::insert_response(sql, row); }));
  restart();
  turn_until([&] { return rows() == 0; });
}

TEST_F(MemoryTest, ADeletedConversationFailsTheTurnsThatWait) {
  Asked asked;
  asked.conversation = conversation();
  asked_id("one", asked);
  const RequestId second = asked_id("two", asked);
  heard(0);
  ASSERT_TRUE(result_of<void>([&](auto done) {
    return memory_->remove_conversation("default", asked.conversation, done);
  }));
  answer(0);
  auto found = find(second);
  turn_until([&] { return (found = find(second)) && found->row.ended; });
  EXPECT_EQ(found->row.state, "failed");
  EXPECT_NE(found->row.answer.find("deleted"), std::string::npos);
  EXPECT_EQ(ask("three", asked).error().code, Code::kNotFound);
}

TEST_F(MemoryTest, AClientThatLeavesTakesItsRequestAlong) {
  Asked asked;
  asked.background = false;
  const RequestId id = asked_id("hello", asked);
  auto reader = station_->attach(id);
  heard(0);
  station_->broker->detach(id, reader, true);
  station_->settle();
  EXPECT_EQ(station_->get(id)->state, v1::REQUEST_STATE_CANCELLED);
  EXPECT_EQ(find(id)->row.state, "cancelled");
}

// X-Conversation-Memory.
TEST_F(MemoryTest, AChatsTurnsAreKept) {
  const auto chat = [&](const std::string& messages) {
    broker::Submission submission;
    submission.envelope.set_tenant("default");
    submission.envelope.set_api("chat.completions");
    submission.envelope.set_model("m");
    submission.envelope.set_partitionkey("talk");
    submission.envelope.set_data(R"({"model":"m","messages":)" + messages + "}");
    submission.detached = true;
    return result_of<Submitted>([&](auto done) { return memory_->submit_turn(submission, done); });
  };
  ASSERT_TRUE(chat(R"([{"role":"system","content":"s1"},{"role":"user","content":"one"}])"));
  EXPECT_EQ(heard(0), (std::vector<std::string>{"system:s1", "user:one"}));
  answer(0);
  ASSERT_TRUE(chat(R"([{"role":"user","content":"two"}])"));
  EXPECT_EQ(heard(1),
            (std::vector<std::string>{"system:s1", "user:one", "assistant:t0 t1 ", "user:two"}));
  answer(1);
  ASSERT_TRUE(chat(R"([{"role":"system","content":"s2"},{"role":"user","content":"three"}])"));
  EXPECT_EQ(heard(2).front(), "system:s2");
  EXPECT_EQ(heard(2).size(), 6u);
  answer(2);
  const auto kept = items("talk");
  ASSERT_EQ(kept.size(), 7u);
  EXPECT_NE(kept[0].json.find("s2"), std::string::npos);
  EXPECT_EQ(rows(), 0);
}

TEST_F(MemoryTest, OneKeyIsOneConversation) {
  const auto make = [&](const store::KeyUse& use) {
    return result_of<store::ConversationRow>(
        [&](auto done) { return memory_->create_conversation("default", "{}", {}, use, done); });
  };
  const std::string id = make({"k", "a"})->id;
  EXPECT_EQ(make({"k", "a"})->id, id);
  EXPECT_NE(make({})->id, id);
  EXPECT_EQ(make({"k", "b"}).error().code, Code::kIdempotencyMismatch);
  ASSERT_TRUE(result_of<void>(
      [&](auto done) { return memory_->remove_conversation("default", id, done); }));
  EXPECT_EQ(make({"k", "a"}).error().code, Code::kGone);
}

TEST_F(MemoryTest, AnEmptyConversationHasNoItems) {
  EXPECT_TRUE(items(conversation()).empty());
  auto none = result_of<store::ItemPage>(
      [&](auto done) { return memory_->list_items("default", "conv_none", {}, done); });
  EXPECT_EQ(none.error().code, Code::kNotFound);
}

}  // namespace
}  // namespace waystation::memory
