#include "store/database.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/check.h"
#include "base/crash_point.h"
#include "base/log.h"
#include "base/thread_name.h"

namespace waystation::store {
namespace {

using std::chrono::steady_clock;

Status apply(Sql& sql, const Migration& step) {
  if (Status s = sql.run("BEGIN IMMEDIATE"); !s) return s;
  Status done = sql.script(step.sql);
  if (done) done = sql.run("INSERT INTO migrations (name) VALUES (?)", step.name);
  if (done) done = sql.run("COMMIT");
  if (done) return {};
  if (!sql.is_idle()) (void)sql.run("ROLLBACK");
  Error error = done.error();
  error.message = "schema step " + step.name + ": " + error.message;
  return error;
}

Status migrate(Sql& sql, const std::vector<Migration>& steps) {
  if (Status s = sql.run("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY)"); !s)
    return s;
  std::set<std::string> applied;
  {
    auto rows = sql.query("SELECT name FROM migrations");
    if (!rows) return rows.error();
    while (rows->next()) applied.insert(rows->text(0));
    if (!rows->status()) return rows->status().error();
  }
  std::set<std::string> known;
  for (const Migration& step : steps) CHECK(known.insert(step.name).second);
  for (const std::string& name : applied) {
    if (!known.contains(name)) {
      return Error{Code::kInvalidArgument,
                   "the store was written by a newer version (its schema has the step " + name +
                       ", which this version doesn't know): start that version again, or move the "
                       "folder 'store' away to begin anew"};
    }
  }
  for (const Migration& step : steps) {
    if (applied.contains(step.name)) continue;
    if (Status s = apply(sql, step); !s) return s;
  }
  return {};
}

// A file that was just made is only there after a crash when its folder is on the disk.
Status sync_folder(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path();
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool ok = fd >= 0 && ::fsync(fd) == 0;
  const int why = errno;
  if (fd >= 0) ::close(fd);
  if (ok) return {};
  return Error{Code::kIo, "can't sync the folder of " + path + ": " + std::strerror(why)};
}

}  // namespace

Result<std::unique_ptr<Database>> Database::open(DatabaseOptions options,
                                                 const std::vector<Migration>& migrations) {
  auto sql = Sql::open(options.path);
  if (!sql) return sql.error();
  if (Status s = migrate(**sql, migrations); !s) {
    Error error = s.error();
    error.message = options.path + ": " + error.message;
    return error;
  }
  if (Status s = sync_folder(options.path); !s) return s.error();
  return std::unique_ptr<Database>(new Database(std::move(options), std::move(*sql)));
}

Database::Database(DatabaseOptions options, std::unique_ptr<Sql> sql)
    : options_(std::move(options)),
      sql_(std::move(sql)),
      inbox_(options_.queue_max),
      thread_([this] {
        name_this_thread("database");
        loop();
      }) {}

Database::~Database() {
  stop();
}

void Database::stop() {
  inbox_.close();
  if (!thread_.joinable()) return;
  CHECK(thread_.get_id() != std::this_thread::get_id());
  thread_.join();
  sql_.reset();
}

Status Database::enqueue(ItemPtr item) {
  if (inbox_.try_send(std::move(item))) return {};
  if (inbox_.size() >= options_.queue_max) {
    return Error{Code::kQueueFull, "the store has too much to do; try again soon", "", 200};
  }
  return Error{Code::kUnavailable, "the server is ending; try again soon", "", 1000};
}

Status Database::every(std::chrono::milliseconds interval, std::move_only_function<void()> task) {
  return post<void>(
      [this, interval, task = std::move(task)](Sql&) mutable -> Status {
        periodics_.push_back({interval, steady_clock::now() + interval, std::move(task)});
        return {};
      },
      [](const Status&) {});
}

void Database::loop() {
  std::vector<ItemPtr> items;
  while (inbox_.receive_all(items, until_periodic())) {
    for (std::size_t next = 0; next < items.size();) next = run_group(items, next);
    items.clear();
    run_periodics();
  }
  // What callbacts posted after the close was refused, so nothing is left.
}

std::chrono::milliseconds Database::until_periodic() const {
  std::chrono::milliseconds wait = std::chrono::hours{1};
  const auto now = steady_clock::now();
  for (const Periodic& periodic : periodics_) {
    wait = std::min(wait, std::chrono::ceil<std::chrono::milliseconds>(periodic.due - now));
  }
  return std::max(wait, std::chrono::milliseconds{0});
}

void Database::run_periodics() {
  const auto now = steady_clock::now();
  for (Periodic& periodic : periodics_) {
    if (now < periodic.due) continue;
    periodic.due = now + periodic.interval;
    periodic.task();
  }
}

std::size_t Database::run_group(std::vector<ItemPtr>& items, std::size_t begin) {
  const auto deadline = steady_clock::now() + options_.group_time_max;
  std::size_t end = begin;
  Status open = broken_ ? Status(*broken_) : sql_->run("BEGIN IMMEDIATE");
  if (!open) {
    end = std::min(items.size(), begin + options_.group_max);
    for (std::size_t i = begin; i < end; ++i) items[i]->undo(open.error());
    note_failure(open.error());
  } else {
    do {
      run_one(*items[end++]);
      // SQLite undid the whole transaction (a full disk, a failed read).
      if (sql_->is_idle()) break;
    } while (end < items.size() && end - begin < options_.group_max &&
             steady_clock::now() < deadline);
    crash_point(CrashPoint::kStoreBeforeCommit);
    Status committed =
        sql_->is_idle()
            ? Status(Error{Code::kUnavailable,
                           "the store couldn't write; nothing was stored, try again", "", 1000})
            : sql_->run("COMMIT");
    crash_point(CrashPoint::kStoreAfterCommit);
    if (!committed) {
      if (!sql_->is_idle()) (void)sql_->run("ROLLBACK");
      for (std::size_t i = begin; i < end; ++i) items[i]->undo(committed.error());
      note_failure(committed.error());
    }
  }
  for (std::size_t i = begin; i < end; ++i) {
    items[i]->finish();
    items[i].reset();
  }
  return end;
}

void Database::run_one(ItemBase& item) {
  if (Status s = sql_->run("SAVEPOINT work"); !s) return item.undo(s.error());
  if (!item.run(*sql_) && !sql_->is_idle()) {
    if (Status s = sql_->run("ROLLBACK TO work"); !s) item.undo(s.error());
  }
  if (sql_->is_idle()) return;
  if (Status s = sql_->run("RELEASE work"); !s) item.undo(s.error());
}

// After a failed fsync nobody knows what the disk holds: only a restart reads it anew.
void Database::note_failure(const Error& error) {
  if (broken_ || (error.code != Code::kIo && error.code != Code::kCorruption)) return;
  WS_LOG(error, "the store's database failed, it takes nothing more until a restart what={}",
         error.message);
  broken_ = error;
}

}  // namespace waystation::store
