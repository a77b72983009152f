// SQLite behind a small face: statements with parameters, rows, errors as values. Used on the
// database's thread only (database.h).
//
//   if (auto s = sql.run("UPDATE files SET refs = refs + ? WHERE id = ?", 1, id); !s) return
//   s.error();
//
//   auto rows = sql.query("SELECT id, bytes FROM files WHERE tenant = ?", tenant);
//   if (!rows) return rows.error();
//   while (rows->next()) use(rows->text(0), rows->integer(1));
//   if (auto s = rows->status(); !s) return s.error();
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace waystation::store {

class Sql;

// A parameter that is stored as bytes rather than as text.
struct Bytes {
  std::string_view value;
};

// A statement that runs, and its current row. Goes back to its Sql when it is destroyed.
class Rows {
 public:
  Rows(Rows&& other) noexcept;
  Rows& operator=(Rows&&) = delete;
  ~Rows();

  // Goes to the next row. False: there is none, or an error, which status() tells.
  bool next();
  const Status& status() const { return status_; }

  // Columns count from 0. Null is 0, "" and false.
  bool is_null(int column) const;
  std::int64_t integer(int column) const;
  double number(int column) const;
  std::string text(int column) const;  // text or bytes

 private:
  friend class Sql;
  Rows(Sql* sql, sqlite3_stmt* statement) : sql_(sql), statement_(statement) {}

  void bind(int index, std::string_view text);
  void bind(int index, const std::string& text) { bind(index, std::string_view(text)); }
  void bind(int index, const char* text) { bind(index, std::string_view(text)); }
  void bind(int index, Bytes bytes);
  void bind(int index, std::nullptr_t);
  void bind(int index, double value);
  void bind_integer(int index, std::int64_t value);
  template <std::integral T>
  void bind(int index, T value) {
    bind_integer(index, static_cast<std::int64_t>(value));
  }
  template <typename T>
  void bind(int index, const std::optional<T>& value) {
    value ? bind(index, *value) : bind(index, nullptr);
  }
  void check_bound(int code);
  void check_count(int given);

  Sql* sql_;
  sqlite3_stmt* statement_;
  Status status_;
};

// One open database file.
class Sql {
 public:
  // Makes the file when it isn't there. Errors as Database::open.
  static Result<std::unique_ptr<Sql>> open(const std::string& path);
  ~Sql();
  Sql(const Sql&) = delete;
  Sql& operator=(const Sql&) = delete;

  // Parameters stand for the statement's '?' in order: text, Bytes, integers, bool, double,
  // nullptr, std::optional of these. The SQL's text is a constant of the program.
  template <typename... Args>
  Result<Rows> query(std::string_view sql, const Args&... args) {
    Result<Rows> rows = prepare(sql);
    if (!rows) return rows;
    int index = 0;
    (rows->bind(++index, args), ...);
    rows->check_count(index);
    if (!rows->status_) return rows->status_.error();
    return rows;
  }

  // A statement without rows, or whose rows don't matter. A violated constraint is kBusy; where one
  // is to be expected, ON CONFLICT says it better.
  template <typename... Args>
  Status run(std::string_view sql, const Args&... args) {
    Result<Rows> rows = query(sql, args...);
    if (!rows) return rows.error();
    while (rows->next()) {
    }
    return rows->status();
  }

  // Rows changed by the last INSERT, UPDATE or DELETE.
  std::int64_t changes() const;

  // Several statements without parameters.
  Status script(const std::string& text);

  // For Database: no transaction is open (SQLite ends one by itself after some errors).
  bool is_idle() const;

 private:
  friend class Rows;
  explicit Sql(sqlite3* handle) : handle_(handle) {}
  Result<Rows> prepare(std::string_view sql);
  Error error(int code) const;

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>{}(text);
    }
  };

  sqlite3* handle_;
  // Prepared once; taken out while in use.
  std::unordered_map<std::string, sqlite3_stmt*, Hash, std::equal_to<>> cache_;
};

}  // namespace waystation::store
