#include "store/responses.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "store/conversations.h"

namespace waystation::store {
namespace {

using message::Item;

Item item(const std::string& id, const std::string& text = "") {
  return {id, "message",
          "{\"id\":\"" + id + "\",\"type\":\"message\",\"role\":\"user\",\"content\":\"" + text +
              "\"}"};
}

class ResponsesStoreTest : public testing::Test {
 protected:
  ResponsesStoreTest() {
    char name[] = "/tmp/ws_responses_test.XXXXXX";
    folder_ = ::mkdtemp(name);
    std::vector<Migration> schema = responses_schema();
    for (Migration& step : conversations_schema()) schema.push_back(std::move(step));
    auto database = Database::open({.path = folder_ + "/store.db"}, schema);
    EXPECT_TRUE(database) << database.error().message;
    database_ = std::move(*database);
  }
  ~ResponsesStoreTest() override {
    database_.reset();
    std::filesystem::remove_all(folder_);
  }

  template <typename T>
  Result<T> in(std::function<Result<T>(Sql&)> work) {
    return database_->call<T>([work](Sql& sql) { return work(sql); });
  }
  std::vector<std::string> page(const PageQuery& wanted, bool* has_more = nullptr) {
    auto page = in<ItemPage>([&](Sql& sql) { return page_of_items(sql, "t", "c", wanted); });
    EXPECT_TRUE(page);
    std::vector<std::string> ids;
    for (const Item& one : page->items) ids.push_back(one.id);
    if (has_more != nullptr) *has_more = page->has_more;
    return ids;
  }
  void make_conversation_of(const std::vector<std::string>& ids) {
    EXPECT_TRUE(in<void>([&](Sql& sql) -> Result<void> {
      if (auto made = make_conversation(sql, "t", {"c", 1, "{}"}); !made) return made;
      std::vector<Item> items;
      for (const std::string& id : ids) items.push_back(item(id));
      auto added = append_items(sql, "t", "c", kId, items);
      return added ? Result<void>() : Result<void>(added.error());
    }));
  }

  const RequestId kId = RequestId::make(1, 2, 3);
  std::string folder_;
  std::unique_ptr<Database> database_;
};

TEST_F(ResponsesStoreTest, ARowComesBackAsItWas) {
  ResponseRow row;
  row.id = kId;
  row.tenant = "t";
  row.created_ms = 5;
  row.api = "responses";
  row.model = "m";
  row.conversation = "c";
  row.previous = RequestId::make(9, 9, 9);
  row.visible = true;
  row.background = true;
  row.parameters = "\"a\":1";
  row.instructions = "i";
  row.input = "[]";
  ASSERT_TRUE(in<void>([&](Sql& sql) { return insert_response(sql, row); }));
  EXPECT_EQ(in<void>([&](Sql& sql) { return insert_response(sql, row); }).error().code,
            Code::kBusy);
  auto got = in<std::optional<ResponseRow>>([&](Sql& sql) { return find_response(sql, "t", kId); });
  ASSERT_TRUE(got && *got);
  EXPECT_EQ((*got)->previous, row.previous);
  EXPECT_EQ((*got)->parameters, row.parameters);
  EXPECT_TRUE((*got)->background);
  EXPECT_FALSE((*got)->ended);
  // Another tenant's rows don't exist.
  got = in<std::optional<ResponseRow>>([&](Sql& sql) { return find_response(sql, "u", kId); });
  ASSERT_TRUE(got);
  EXPECT_FALSE(*got);

  const auto pending = [&] {
    return in<std::vector<PendingResponse>>([](Sql& sql) { return pending_responses(sql); })
        ->size();
  };
  EXPECT_EQ(pending(), 1u);
  ASSERT_TRUE(in<void>([&](Sql& sql) { return set_composed(sql, "t", kId, "data"); }));
  ASSERT_TRUE(in<void>([&](Sql& sql) { return set_outcome(sql, "t", kId, "completed", "{}"); }));
  EXPECT_EQ(pending(), 0u);
  got = in<std::optional<ResponseRow>>([&](Sql& sql) { return find_response(sql, "t", kId); });
  EXPECT_EQ((*got)->state, "completed");
  EXPECT_EQ((*got)->composed, "");
  // Old ones go.
  EXPECT_EQ(*in<std::int64_t>([](Sql& sql) { return expire_responses(sql, 5, 10); }), 0);
  EXPECT_EQ(*in<std::int64_t>([](Sql& sql) { return expire_responses(sql, 6, 10); }), 1);
}

TEST_F(ResponsesStoreTest, OnlyRowsWithAnOutcomeExpire) {
  ResponseRow row;
  row.id = kId;
  row.tenant = "t";
  ASSERT_TRUE(in<void>([&](Sql& sql) { return insert_response(sql, row); }));
  EXPECT_EQ(*in<std::int64_t>([](Sql& sql) { return expire_responses(sql, 1 << 30, 10); }), 0);
}

TEST_F(ResponsesStoreTest, ItemsAreReadInPagesBothWays) {
  make_conversation_of({"a", "b", "c", "d", "e"});
  bool has_more = false;
  EXPECT_EQ(page({2, true, ""}, &has_more), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(has_more);
  EXPECT_EQ(page({2, true, "b"}), (std::vector<std::string>{"c", "d"}));
  EXPECT_EQ(page({2, true, "d"}, &has_more), (std::vector<std::string>{"e"}));
  EXPECT_FALSE(has_more);
  EXPECT_EQ(page({2, false, ""}, &has_more), (std::vector<std::string>{"e", "d"}));
  EXPECT_TRUE(has_more);
  EXPECT_EQ(page({5, false, "b"}), (std::vector<std::string>{"a"}));
  auto bad = in<ItemPage>([](Sql& sql) { return page_of_items(sql, "t", "c", {2, true, "zzz"}); });
  EXPECT_EQ(bad.error().param, "after");
}

TEST_F(ResponsesStoreTest, PagesOfItemsAtHandAreTheSame) {
  std::vector<Item> items;
  std::vector<std::string> ids;
  for (char c = 'a'; c < 'h'; ++c) {
    items.push_back(item(std::string(1, c)));
    ids.emplace_back(1, c);
  }
  make_conversation_of(ids);
  for (const bool ascending : {true, false}) {
    for (const std::string after : {"", "a", "d", "g"}) {
      for (const std::size_t limit : {1, 3, 7, 100}) {
        const PageQuery wanted{limit, ascending, after};
        bool has_more = false;
        const auto expected = page(wanted, &has_more);
        const auto got = page_of(items, wanted);
        ASSERT_TRUE(got);
        EXPECT_EQ(got->has_more, has_more);
        ASSERT_EQ(got->items.size(), expected.size());
        for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(got->items[i].id, expected[i]);
      }
    }
  }
  EXPECT_FALSE(page_of(items, {2, true, "zzz"}));
}

TEST_F(ResponsesStoreTest, ATakenIdBecomesAnother) {
  make_conversation_of({"msg_1", "msg_1"});
  const auto ids = page({10, true, ""});
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids[0], "msg_1");
  EXPECT_TRUE(ids[1].starts_with("msg_"));
  EXPECT_NE(ids[1], ids[0]);
}

TEST_F(ResponsesStoreTest, TheSystemMessageStandsFirstAndIsReplaced) {
  make_conversation_of({"a"});
  const auto set = [&](const std::string& id) {
    return in<void>([&](Sql& sql) {
      Item system{id, "message",
                  "{\"id\":\"" + id + "\",\"type\":\"message\",\"role\":\"system\"}"};
      return set_system_item(sql, "t", "c", system);
    });
  };
  ASSERT_TRUE(set("s1"));
  EXPECT_EQ(page({10, true, ""}), (std::vector<std::string>{"s1", "a"}));
  ASSERT_TRUE(set("s2"));
  EXPECT_EQ(page({10, true, ""}), (std::vector<std::string>{"s2", "a"}));
}

TEST_F(ResponsesStoreTest, AConversationGoesWithItsItems) {
  make_conversation_of({"a"});
  ASSERT_TRUE(in<void>([](Sql& sql) { return remove_conversation(sql, "u", "c"); }));
  EXPECT_EQ(page({10, true, ""}).size(), 1u);
  ASSERT_TRUE(in<void>([](Sql& sql) { return remove_conversation(sql, "t", "c"); }));
  EXPECT_TRUE(page({10, true, ""}).empty());
}

}  // namespace
}  // namespace waystation::store
