// The database of what outlives requests: files, batches, responses, conversations. SQLite, owned
// by one thread; everybody else posts work to it.
//
//   database.post<Row>([](Sql& sql) -> Result<Row> { … }, [](Result<Row> row) { … });
//
// Works that are queued together share one commit, so many small writes cost one fsync. A work that
// gives an error leaves nothing behind and does the others no harm. A result is given out only once
// it is durable.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/mailbox.h"
#include "base/result.h"
#include "store/sql.h"

namespace waystation::store {

// One change of the schema. Steps are applied once each, in the order given, each in a transaction
// of its own; a step that has ever been released is never changed. Each part of the store has its
// own list; names begin with the part's ("files.1").
struct Migration {
  std::string name;
  std::string sql;  // statements, separated by ';'
};

struct DatabaseOptions {
  std::string path;              // of the database file; its folder exists
  std::size_t queue_max = 4096;  // works that wait; more are refused with kQueueFull
  std::size_t group_max = 256;   // works of one commit
  std::chrono::milliseconds group_time_max{20};  // a commit waits no longer for further works
};

template <typename T>
using Work = std::move_only_function<Result<T>(Sql&)>;
template <typename T>
using Done = std::move_only_function<void(Result<T>)>;

class Database {
 public:
  // Opens (or makes) the file, brings its schema up to date, starts the thread.
  // kInvalidArgument: it was written by a newer version; kCorruption: it is damaged;
  // kBusy: another process has it; kIo, kUnavailable: the system refused.
  static Result<std::unique_ptr<Database>> open(DatabaseOptions options,
                                                const std::vector<Migration>& migrations);
  // Ends as stop() does.
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // Any thread. Runs `work` on the database's thread, in a transaction; `done` is called there once
  // the work is durable, or with the error that undid it. Neither may block; `done` may post.
  // Refused (kQueueFull, kUnavailable): `done` is not called.
  // Errors of the commit itself: kUnavailable (disk full: may work later), kIo, kCorruption (all
  // that follows is refused until the next start).
  template <typename T>
  Status post(Work<T> work, Done<T> done) {
    return enqueue(std::make_unique<Item<T>>(std::move(work), std::move(done)));
  }

  // Posts and waits. For starts and tests; never from the database's thread, nor from one that
  // others wait for.
  template <typename T>
  Result<T> call(Work<T> work) {
    auto promise = std::make_shared<std::promise<Result<T>>>();
    auto future = promise->get_future();
    Status posted = post<T>(std::move(work),
                            [promise](Result<T> result) { promise->set_value(std::move(result)); });
    if (!posted) return posted.error();
    return future.get();
  }

  // Runs `task` on the database's thread, between works, about every `interval`. It may post.
  Status every(std::chrono::milliseconds interval, std::move_only_function<void()> task);

  // Finishes what is queued, takes nothing more, closes the file. Idempotent.
  void stop();

 private:
  class ItemBase {
   public:
    virtual ~ItemBase() = default;
    virtual bool run(Sql& sql) = 0;             // false: to be undone
    virtual void undo(const Error& error) = 0;  // its result is this error instead
    virtual void finish() = 0;
  };
  template <typename T>
  class Item final : public ItemBase {
   public:
    Item(Work<T> work, Done<T> done) : work_(std::move(work)), done_(std::move(done)) {}
    bool run(Sql& sql) override {
      result_.emplace(work_(sql));
      return result_->has_value();
    }
    void undo(const Error& error) override { result_.emplace(error); }
    void finish() override { done_(std::move(*result_)); }

   private:
    Work<T> work_;
    Done<T> done_;
    std::optional<Result<T>> result_;
  };
  using ItemPtr = std::unique_ptr<ItemBase>;
  struct Periodic {
    std::chrono::milliseconds interval{};
    std::chrono::steady_clock::time_point due;
    std::move_only_function<void()> task;
  };

  Database(DatabaseOptions options, std::unique_ptr<Sql> sql);
  Status enqueue(ItemPtr item);
  void loop();
  std::chrono::milliseconds until_periodic() const;
  void run_periodics();
  // Runs works from `begin` on and commits them; gives the first one that is not of this group.
  std::size_t run_group(std::vector<ItemPtr>& items, std::size_t begin);
  void run_one(ItemBase& item);
  void note_failure(const Error& error);

  const DatabaseOptions options_;
  std::unique_ptr<Sql> sql_;
  std::optional<Error> broken_;  // the database's thread; once set, everything is refused
  Mailbox<ItemPtr> inbox_;
  std::vector<Periodic> periodics_;  // the database's thread
  std::thread thread_;
};

}  // namespace waystation::store
