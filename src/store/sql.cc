#include "store/sql.h"

#include <sqlite3.h>

#include <utility>

#include "base/check.h"

namespace waystation::store {
namespace {

constexpr std::size_t kCacheMax = 256;

// WAL with FULL: a commit is one append to the log and one fsync of it. EXCLUSIVE: one process, so
// the log's index needs no shared memory.
constexpr const char* kPragmas =
    "PRAGMA locking_mode = EXCLUSIVE;"
    "PRAGMA journal_mode = WAL;"
    "PRAGMA synchronous = FULL;"
    "PRAGMA foreign_keys = ON;"
    "PRAGMA temp_store = MEMORY;"
    "PRAGMA cache_size = -16384;"
    "PRAGMA journal_size_limit = 67108864;";

Code code_of(int extended) {
  switch (extended) {
    case SQLITE_IOERR_FSYNC:
    case SQLITE_IOERR_DIR_FSYNC:
    case SQLITE_IOERR_READ:
      return Code::kIo;
    default:
      break;
  }
  switch (extended & 0xff) {
    case SQLITE_FULL:
    case SQLITE_IOERR:  // a write that failed: undone, and may succeed later
    case SQLITE_NOMEM:
      return Code::kUnavailable;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CONSTRAINT:
      return Code::kBusy;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Code::kCorruption;
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
      return Code::kIo;
    case SQLITE_TOOBIG:
      return Code::kTooLarge;
    default:
      return Code::kInternal;
  }
}

std::string advice(Code code) {
  switch (code) {
    case Code::kUnavailable:
      return "; nothing was stored, free some space on the disk and try again";
    case Code::kCorruption:
      return "; restore the folder 'store' from a backup, or move it away to begin anew";
    case Code::kIo:
      return "; look at the disk, then restart the server";
    default:
      return "";
  }
}

}  // namespace

// ---- Rows ---------------------------------------------------------------------------------------

Rows::Rows(Rows&& other) noexcept
    : sql_(other.sql_),
      statement_(std::exchange(other.statement_, nullptr)),
      status_(std::move(other.status_)) {}

Rows::~Rows() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  const std::string_view text = sqlite3_sql(statement_);
  if (sql_->cache_.size() >= kCacheMax || sql_->cache_.contains(text)) {
    sqlite3_finalize(statement_);
    return;
  }
  sqlite3_clear_bindings(statement_);
  sql_->cache_.emplace(text, statement_);
}

bool Rows::next() {
  if (!status_) return false;
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) status_ = sql_->error(sqlite3_extended_errcode(sql_->handle_));
  return false;
}

bool Rows::is_null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}
std::int64_t Rows::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}
double Rows::number(int column) const {
  return sqlite3_column_double(statement_, column);
}

std::string Rows::text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  if (bytes == nullptr) return {};
  return {static_cast<const char*>(bytes),
          static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

void Rows::check_bound(int code) {
  if (code != SQLITE_OK && status_) status_ = sql_->error(code);
}
void Rows::check_count(int given) {
  CHECK(given == sqlite3_bind_parameter_count(statement_));
}
void Rows::bind(int index, std::string_view text) {
  // A null pointer would be SQL's null.
  const char* data = text.data() == nullptr ? "" : text.data();
  check_bound(
      sqlite3_bind_text64(statement_, index, data, text.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
}
void Rows::bind(int index, Bytes bytes) {
  const char* data = bytes.value.data() == nullptr ? "" : bytes.value.data();
  check_bound(sqlite3_bind_blob64(statement_, index, data, bytes.value.size(), SQLITE_TRANSIENT));
}
void Rows::bind(int index, std::nullptr_t) {
  check_bound(sqlite3_bind_null(statement_, index));
}
void Rows::bind(int index, double value) {
  check_bound(sqlite3_bind_double(statement_, index, value));
}
void Rows::bind_integer(int index, std::int64_t value) {
  check_bound(sqlite3_bind_int64(statement_, index, value));
}

// ---- Sql ----------------------------------------------------------------------------------------

Result<std::unique_ptr<Sql>> Sql::open(const std::string& path) {
  sqlite3* handle = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &handle,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  auto sql = std::unique_ptr<Sql>(new Sql(handle));
  if (handle == nullptr) return Error{Code::kUnavailable, "out of memory"};
  sqlite3_extended_result_codes(handle, 1);
  if (code != SQLITE_OK) {
    Error error = sql->error(sqlite3_extended_errcode(handle));
    error.message = "can't open " + path + ": " + error.message;
    return error;
  }
  if (Status s = sql->script(kPragmas); !s) {
    Error error = s.error();
    error.message = "can't open " + path + ": " + error.message;
    return error;
  }
  return sql;
}

Sql::~Sql() {
  for (auto& [text, statement] : cache_) sqlite3_finalize(statement);
  // Every Rows is gone by now; a close that is refused would be a leak.
  CHECK(handle_ == nullptr || sqlite3_close(handle_) == SQLITE_OK);
}

Result<Rows> Sql::prepare(std::string_view sql) {
  if (const auto found = cache_.find(sql); found != cache_.end()) {
    sqlite3_stmt* statement = found->second;
    cache_.erase(found);
    return Rows(this, statement);
  }
  sqlite3_stmt* statement = nullptr;
  const char* rest = nullptr;
  const int code = sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement, &rest);
  if (code != SQLITE_OK) return error(sqlite3_extended_errcode(handle_));
  CHECK(statement != nullptr && rest == sql.data() + sql.size());  // one statement
  return Rows(this, statement);
}

Status Sql::script(const std::string& text) {
  if (sqlite3_exec(handle_, text.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) return {};
  return error(sqlite3_extended_errcode(handle_));
}

std::int64_t Sql::changes() const {
  return sqlite3_changes64(handle_);
}
bool Sql::is_idle() const {
  return sqlite3_get_autocommit(handle_) != 0;
}

Error Sql::error(int code) const {
  const Code ours = code_of(code);
  return {ours, std::string("the store's database: ") + sqlite3_errmsg(handle_) + advice(ours), "",
          ours == Code::kUnavailable ? 1000 : 0};
}

}  // namespace waystation::store
