#include "store/database.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <latch>
#include <thread>

namespace waystation::store {
namespace {

const std::vector<Migration> kSchema = {
    {"test.1", "CREATE TABLE items (id INTEGER PRIMARY KEY, body TEXT NOT NULL, n INTEGER)"},
    {"test.2", "CREATE UNIQUE INDEX items_body ON items (body); CREATE TABLE more (id INTEGER)"},
};

class DatabaseTest : public testing::Test {
 protected:
  DatabaseTest() {
    char name[] = "/tmp/ws_store_test.XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~DatabaseTest() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return folder_ + "/store.db"; }
  std::unique_ptr<Database> open(const std::vector<Migration>& schema = kSchema,
                                 DatabaseOptions options = {}) {
    options.path = path();
    auto database = Database::open(options, schema);
    EXPECT_TRUE(database) << database.error().message;
    return database ? std::move(*database) : nullptr;
  }
  static Result<std::int64_t> count(Database& database) {
    return database.call<std::int64_t>([](Sql& sql) -> Result<std::int64_t> {
      auto rows = sql.query("SELECT count(*) FROM items");
      if (!rows) return rows.error();
      if (!rows->next()) return rows->status().error();
      return rows->integer(0);
    });
  }
  static Status insert(Sql& sql, std::string_view body, std::int64_t n = 0) {
    return sql.run("INSERT INTO items (body, n) VALUES (?, ?)", body, n);
  }

  std::string folder_;
};

TEST_F(DatabaseTest, KeepsWhatWasWrittenOverAReopen) {
  {
    auto database = open();
    ASSERT_TRUE(database->call<void>([](Sql& sql) { return insert(sql, "a", -7); }));
    const std::string bytes("x\0y\xff", 4);
    ASSERT_TRUE(database->call<void>([&](Sql& sql) {
      return sql.run("INSERT INTO items (id, body, n) VALUES (?, ?, ?)", 1ull << 40, Bytes{bytes},
                     std::optional<int>());
    }));
  }
  auto database = open();
  const auto got =
      database->call<std::vector<std::string>>([](Sql& sql) -> Result<std::vector<std::string>> {
        std::vector<std::string> out;
        auto rows = sql.query("SELECT id, body, n FROM items WHERE id > ? ORDER BY id", 0);
        if (!rows) return rows.error();
        while (rows->next()) {
          out.push_back(rows->text(1) + "/" + std::to_string(rows->integer(0)) + "/" +
                        (rows->is_null(2) ? "null" : std::to_string(rows->integer(2))));
        }
        if (!rows->status()) return rows->status().error();
        return out;
      });
  ASSERT_TRUE(got);
  const std::string second = std::string("x\0y\xff", 4) + "/1099511627776/null";
  EXPECT_EQ(*got, (std::vector<std::string>{"a/1/-7", second}));
}

TEST_F(DatabaseTest, AWorkThatFailsLeavesNothingAndHarmsNobody) {
  auto database = open();
  std::latch blocked(1);
  // Holds the thread so that the works below share one commit.
  ASSERT_TRUE(database->post<void>(
      [&](Sql&) -> Status {
        blocked.wait();
        return {};
      },
      [](const Status&) {}));
  std::vector<std::string> order;
  const auto note = [&order](std::string name) {
    return [&order, name](const Status& s) {
      order.push_back(name + (s ? "" : ":" + std::string(code_name(s.error().code))));
    };
  };
  ASSERT_TRUE(database->post<void>([](Sql& sql) { return insert(sql, "one"); }, note("one")));
  ASSERT_TRUE(database->post<void>(
      [](Sql& sql) -> Status {
        if (Status s = insert(sql, "half"); !s) return s;
        return insert(sql, "one");  // not unique
      },
      note("half")));
  ASSERT_TRUE(database->post<void>(
      [](Sql& sql) -> Status {
        if (Status s = insert(sql, "refused"); !s) return s;
        return Error{Code::kNotFound, "no"};
      },
      note("refused")));
  ASSERT_TRUE(database->post<void>([](Sql& sql) { return insert(sql, "two"); }, note("two")));
  blocked.count_down();
  EXPECT_EQ(count(*database), 2);
  EXPECT_EQ(order, (std::vector<std::string>{"one", "half:busy", "refused:not_found", "two"}));
}

TEST_F(DatabaseTest, ManyThreadsShareCommits) {
  auto database = open();
  constexpr int kThreads = 4, kEach = 500;
  std::atomic<int> done = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const std::string body = std::to_string(t) + "." + std::to_string(i);
        // Full: the sender comes again.
        while (!database->post<void>([body](Sql& sql) { return insert(sql, body); },
                                     [&done](const Status& s) { done += s ? 1 : 0; })) {
          std::this_thread::yield();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count(*database), kThreads * kEach);
  EXPECT_EQ(done, kThreads * kEach);
}

TEST_F(DatabaseTest, AFullQueueRefuses) {
  auto database = open(kSchema, {.path = "", .queue_max = 2});
  std::latch started(1), blocked(1);
  ASSERT_TRUE(database->post<void>(
      [&](Sql&) -> Status {
        started.count_down();
        blocked.wait();
        return {};
      },
      [](const Status&) {}));
  started.wait();
  const auto nothing = [](Sql&) -> Status { return {}; };
  EXPECT_TRUE(database->post<void>(nothing, [](const Status&) {}));
  EXPECT_TRUE(database->post<void>(nothing, [](const Status&) {}));
  const Status refused = database->post<void>(nothing, [](const Status&) { FAIL(); });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kQueueFull);
  EXPECT_GT(refused.error().retry_after_ms, 0);
  blocked.count_down();
  database->stop();
  const Status ended = database->post<void>(nothing, [](const Status&) { FAIL(); });
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, Code::kUnavailable);
}

TEST_F(DatabaseTest, StopFinishesWhatIsQueued) {
  auto database = open();
  int done = 0;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(database->post<void>([i](Sql& sql) { return insert(sql, std::to_string(i)); },
                                     [&done](const Status& s) { done += s ? 1 : 0; }));
  }
  database->stop();
  EXPECT_EQ(done, 100);
  EXPECT_EQ(count(*open()), 100);
}

TEST_F(DatabaseTest, SchemaStepsAreAppliedOnceAndInOrder) {
  const std::vector<Migration> first(kSchema.begin(), kSchema.begin() + 1);
  auto database = open(first);
  ASSERT_TRUE(database->call<void>([](Sql& sql) { return insert(sql, "kept"); }));
  database.reset();
  database = open();  // one step more
  EXPECT_EQ(count(*database), 1);
  EXPECT_FALSE(database->call<void>([](Sql& sql) { return insert(sql, "kept"); }));
  EXPECT_TRUE(
      database->call<void>([](Sql& sql) { return sql.run("INSERT INTO more VALUES (1)"); }));
  database.reset();
  EXPECT_EQ(count(*open()), 1);
}

TEST_F(DatabaseTest, ASchemaStepThatFailsLeavesNothing) {
  open();
  std::vector<Migration> steps = kSchema;
  steps.push_back({"test.3", "CREATE TABLE half (id INTEGER); CREATE TABLE items (id INTEGER)"});
  const auto failed = Database::open({.path = path()}, steps);
  ASSERT_FALSE(failed);
  EXPECT_NE(failed.error().message.find("test.3"), std::string::npos);
  steps.back() = {"test.3", "CREATE TABLE half (id INTEGER)"};
  EXPECT_NE(open(steps), nullptr);
}

TEST_F(DatabaseTest, RefusesANewerSchema) {
  open();
  const auto refused = Database::open({.path = path()}, {kSchema.begin(), kSchema.begin() + 1});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
  EXPECT_NE(refused.error().message.find("newer version"), std::string::npos);
  EXPECT_NE(refused.error().message.find("test.2"), std::string::npos);
}

TEST_F(DatabaseTest, RefusesGarbageAndASecondOwner) {
  {
    auto owner = open();
    const auto second = Database::open({.path = path()}, kSchema);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Code::kBusy) << second.error().message;
  }
  std::ofstream(path(), std::ios::trunc) << std::string(8192, 'x');
  std::filesystem::remove(path() + "-wal");
  const auto garbage = Database::open({.path = path()}, kSchema);
  ASSERT_FALSE(garbage);
  EXPECT_EQ(garbage.error().code, Code::kCorruption) << garbage.error().message;
}

TEST_F(DatabaseTest, AFullDiskUndoesTheWorkAndPasses) {
  auto database = open();
  ASSERT_TRUE(database->call<void>([](Sql& sql) { return insert(sql, "before"); }));
  ASSERT_TRUE(
      database->call<void>([](Sql& sql) { return sql.script("PRAGMA max_page_count = 20"); }));
  const Status full =
      database->call<void>([](Sql& sql) { return insert(sql, std::string(1 << 20, 'x')); });
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, Code::kUnavailable) << full.error().message;
  EXPECT_EQ(count(*database), 1);
  ASSERT_TRUE(
      database->call<void>([](Sql& sql) { return sql.script("PRAGMA max_page_count = 1000000"); }));
  EXPECT_TRUE(
      database->call<void>([](Sql& sql) { return insert(sql, std::string(1 << 20, 'x')); }));
  EXPECT_EQ(count(*database), 2);
}

TEST_F(DatabaseTest, PeriodicTasksRun) {
  auto database = open();
  std::latch ticks(3);
  int left = 3;
  ASSERT_TRUE(database->every(std::chrono::milliseconds(2), [&] {
    if (left-- > 0) ticks.count_down();
  }));
  ticks.wait();
}

// A process that is killed at any moment: every write it reported is there after it.
TEST_F(DatabaseTest, ReportedWritesSurviveAKill) {
  std::int64_t reported_total = 0;
  for (int round = 0; round < 5; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(::pipe(pipe_fds), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      auto database = Database::open({.path = path()}, kSchema);
      if (!database) ::_exit(1);
      for (int i = 0;; ++i) {
        const std::string body = std::to_string(round) + "." + std::to_string(i);
        if (!(*database)->call<void>([&](Sql& sql) { return insert(sql, body); })) ::_exit(2);
        if (::write(pipe_fds[1], "x", 1) != 1) ::_exit(3);
      }
    }
    ::close(pipe_fds[1]);
    char byte = 0;
    for (int i = 0; i < 20 + round * 7; ++i) ASSERT_EQ(::read(pipe_fds[0], &byte, 1), 1);
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    std::int64_t reported = 20 + round * 7;
    while (::read(pipe_fds[0], &byte, 1) == 1) ++reported;
    ::close(pipe_fds[0]);
    auto database = open();
    const auto rows = count(*database);
    ASSERT_TRUE(rows);
    EXPECT_GE(*rows, reported_total + reported);
    EXPECT_LE(*rows, reported_total + reported + 1);
    reported_total = *rows;
  }
}

}  // namespace
}  // namespace waystation::store
