#include "store/batches.h"

#include <limits>

#include "base/check.h"
#include "base/utf8.h"

namespace waystation::store {
namespace {

struct StatusRow {
  BatchStatus status;
  std::string_view name;
  // In which it may follow.
  std::initializer_list<BatchStatus> after;
};

using enum BatchStatus;

const StatusRow kStatuses[] = {
    {kValidating, "validating", {}},
    {kFailed, "failed", {kValidating}},
    {kInProgress, "in_progress", {kValidating}},
    {kFinalizing, "finalizing", {kInProgress}},
    {kCompleted, "completed", {kFinalizing}},
    {kExpired, "expired", {kFinalizing}},
    {kCancelling, "cancelling", {kValidating, kInProgress}},
    {kCancelled, "cancelled", {kCancelling}},
};

constexpr std::string_view kColumns =
    "id, tenant, endpoint, input_file_id, input_hash, completion_window, metadata,"
    " output_expires_after_s, status, errors, model, output_file_id, error_file_id, created_ms,"
    " expires_ms, failed_ms, in_progress_ms, finalizing_ms, completed_ms, expired_ms,"
    " cancelling_ms, cancelled_ms, total, completed, failed, input_tokens, cached_tokens,"
    " output_tokens, reasoning_tokens";

const StatusRow& row_of(BatchStatus status) {
  return kStatuses[static_cast<std::size_t>(status)];
}

BatchStatus status_of(std::string_view name) {
  for (const StatusRow& row : kStatuses) {
    if (row.name == name) return row.status;
  }
  CHECK(false);
}

BatchRow batch_of(const Rows& rows) {
  BatchRow out;
  out.id = rows.text(0);
  out.tenant = rows.text(1);
  out.endpoint = rows.text(2);
  out.input_file_id = rows.text(3);
  out.input_hash = rows.text(4);
  out.completion_window = rows.text(5);
  out.metadata = rows.text(6);
  if (!rows.is_null(7)) out.output_expires_after_s = rows.integer(7);
  out.status = status_of(rows.text(8));
  out.errors = rows.text(9);
  out.model = rows.text(10);
  out.output_file_id = rows.text(11);
  out.error_file_id = rows.text(12);
  out.created_ms = rows.integer(13);
  out.expires_ms = rows.integer(14);
  out.since_ms[0] = out.created_ms;
  for (std::size_t i = 1; i < kBatchStatusCount; ++i) {
    out.since_ms[i] = rows.integer(14 + static_cast<int>(i));
  }
  out.total = static_cast<std::uint64_t>(rows.integer(22));
  out.completed = static_cast<std::uint64_t>(rows.integer(23));
  out.failed = static_cast<std::uint64_t>(rows.integer(24));
  out.usage.input_tokens = static_cast<std::uint64_t>(rows.integer(25));
  out.usage.cached_tokens = static_cast<std::uint64_t>(rows.integer(26));
  out.usage.output_tokens = static_cast<std::uint64_t>(rows.integer(27));
  out.usage.reasoning_tokens = static_cast<std::uint64_t>(rows.integer(28));
  return out;
}

Error no_such_batch(const std::string& id) {
  return {Code::kNotFound, "there is no batch '" + utf8_prefix(id, 100) + "'", "batch_id"};
}

}  // namespace

std::string_view batch_status_name(BatchStatus status) {
  return row_of(status).name;
}

bool is_ended(BatchStatus status) {
  return status == kFailed || status == kCompleted || status == kExpired || status == kCancelled;
}

std::vector<Migration> batches_schema() {
  return {
      {"batches.1",
       "CREATE TABLE batches (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
       "  tenant TEXT NOT NULL, endpoint TEXT NOT NULL, input_file_id TEXT NOT NULL,"
       "  input_hash TEXT NOT NULL, completion_window TEXT NOT NULL, metadata TEXT NOT NULL,"
       "  output_expires_after_s INTEGER, status TEXT NOT NULL, errors TEXT NOT NULL DEFAULT '',"
       "  model TEXT NOT NULL DEFAULT '', output_file_id TEXT NOT NULL DEFAULT '',"
       "  error_file_id TEXT NOT NULL DEFAULT '', created_ms INTEGER NOT NULL,"
       "  expires_ms INTEGER NOT NULL, failed_ms INTEGER NOT NULL DEFAULT 0,"
       "  in_progress_ms INTEGER NOT NULL DEFAULT 0, finalizing_ms INTEGER NOT NULL DEFAULT 0,"
       "  completed_ms INTEGER NOT NULL DEFAULT 0, expired_ms INTEGER NOT NULL DEFAULT 0,"
       "  cancelling_ms INTEGER NOT NULL DEFAULT 0, cancelled_ms INTEGER NOT NULL DEFAULT 0,"
       "  total INTEGER NOT NULL DEFAULT 0, completed INTEGER NOT NULL DEFAULT 0,"
       "  failed INTEGER NOT NULL DEFAULT 0, input_tokens INTEGER NOT NULL DEFAULT 0,"
       "  cached_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,"
       "  reasoning_tokens INTEGER NOT NULL DEFAULT 0);"
       "CREATE INDEX batches_tenant ON batches (tenant, seq);"
       "CREATE INDEX batches_live ON batches (seq) WHERE status IN"
       "  ('validating', 'in_progress', 'finalizing', 'cancelling');"
       "CREATE TABLE batch_lines (batch TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,"
       "  line INTEGER NOT NULL, request_id TEXT NOT NULL, http_status INTEGER NOT NULL,"
       "  body TEXT NOT NULL, PRIMARY KEY (batch, line));"}};
}

Status insert_batch(Sql& sql, const Files& files, const BatchRow& row, std::size_t live_max) {
  auto rows = sql.query(
      "SELECT count(*) FROM batches WHERE tenant = ?"
      " AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling')",
      row.tenant);
  if (!rows) return rows.error();
  if (rows->next() && static_cast<std::size_t>(rows->integer(0)) >= live_max) {
    return Error{Code::kQueueFull,
                 "there are " + std::to_string(live_max) +
                     " batches that haven't ended, which is the most; wait for some, or cancel one",
                 "", 60'000};
  }
  if (Status s = files.add_reference(sql, row.input_hash); !s) return s;
  return sql.run(
      "INSERT INTO batches (id, tenant, endpoint, input_file_id, input_hash, completion_window,"
      " metadata, output_expires_after_s, status, created_ms, expires_ms)"
      " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      row.id, row.tenant, row.endpoint, row.input_file_id, row.input_hash, row.completion_window,
      row.metadata, row.output_expires_after_s, batch_status_name(row.status), row.created_ms,
      row.expires_ms);
}

Result<BatchRow> find_batch(Sql& sql, const std::string* tenant, const std::string& id) {
  auto rows = sql.query("SELECT " + std::string(kColumns) + " FROM batches WHERE id = ?", id);
  if (!rows) return rows.error();
  if (rows->next()) {
    BatchRow row = batch_of(*rows);
    if (tenant == nullptr || row.tenant == *tenant) return row;
  }
  if (!rows->status()) return rows->status().error();
  return no_such_batch(id);
}

Result<BatchPage> list_batches(Sql& sql, const std::string& tenant, const PageQuery& query) {
  std::int64_t after = std::numeric_limits<std::int64_t>::max();
  if (!query.after.empty()) {
    auto rows =
        sql.query("SELECT seq FROM batches WHERE id = ? AND tenant = ?", query.after, tenant);
    if (!rows) return rows.error();
    if (!rows->next()) {
      return Error{Code::kInvalidArgument,
                   "'after' names no batch: '" + utf8_prefix(query.after, 100) + "'", "after"};
    }
    after = rows->integer(0);
  }
  auto rows = sql.query("SELECT " + std::string(kColumns) +
                            " FROM batches WHERE tenant = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
                        tenant, after, query.limit + 1);
  if (!rows) return rows.error();
  BatchPage page;
  while (rows->next()) {
    if (page.batches.size() == query.limit) {
      page.has_more = true;
      break;
    }
    page.batches.push_back(batch_of(*rows));
  }
  if (!rows->status()) return rows->status().error();
  return page;
}

Result<std::vector<std::string>> unended_batches(Sql& sql) {
  auto rows = sql.query(
      "SELECT id FROM batches WHERE status IN"
      " ('validating', 'in_progress', 'finalizing', 'cancelling') ORDER BY seq");
  if (!rows) return rows.error();
  std::vector<std::string> out;
  while (rows->next()) out.push_back(rows->text(0));
  if (!rows->status()) return rows->status().error();
  return out;
}

Result<bool> set_batch_status(Sql& sql, const std::string& id, BatchStatus status, TimeMs now_ms) {
  const StatusRow& row = row_of(status);
  CHECK(row.after.size() > 0);
  std::string text = "UPDATE batches SET status = ?, " + std::string(row.name) +
                     "_ms = ? WHERE id = ? AND status IN (";
  for (const BatchStatus& before : row.after) {
    text += (&before == row.after.begin() ? "'" : ", '") + std::string(row_of(before).name) + "'";
  }
  if (Status s = sql.run(text + ")", row.name, now_ms, id); !s) return s.error();
  return sql.changes() > 0;
}

Status set_batch_lines(Sql& sql, const std::string& id, std::uint64_t total,
                       const std::string& model) {
  return sql.run("UPDATE batches SET total = ?, model = ? WHERE id = ?", total, model, id);
}

Status set_batch_errors(Sql& sql, const std::string& id, const std::string& errors) {
  return sql.run("UPDATE batches SET errors = ? WHERE id = ?", errors, id);
}

Status end_batch(Sql& sql, const std::string& id, const std::string& output_file_id,
                 const std::string& error_file_id, std::uint64_t completed, std::uint64_t failed) {
  if (Status s = sql.run(
          "UPDATE batches SET output_file_id = ?, error_file_id = ?, completed = ?, failed = ?"
          " WHERE id = ?",
          output_file_id, error_file_id, completed, failed, id);
      !s) {
    return s;
  }
  return sql.run("DELETE FROM batch_lines WHERE batch = ?", id);
}

// ---- lines --------------------------------------------------------------------------------------

Status note_batch_line(Sql& sql, const std::string& id, std::uint64_t line,
                       std::string_view request_id) {
  return sql.run(
      "INSERT INTO batch_lines (batch, line, request_id, http_status, body) VALUES (?, ?, ?, 0, '')"
      " ON CONFLICT (batch, line) DO NOTHING",
      id, line, request_id);
}

Result<bool> set_batch_line(Sql& sql, const std::string& id, const LineResult& result) {
  CHECK(result.http_status > 0);
  if (Status s = sql.run("INSERT INTO batch_lines (batch, line, request_id, http_status, body)"
                         " VALUES (?, ?, ?, ?, ?) ON CONFLICT (batch, line) DO UPDATE SET"
                         " request_id = excluded.request_id, http_status = excluded.http_status,"
                         " body = excluded.body WHERE http_status = 0",
                         id, result.line, result.request_id, result.http_status, result.body);
      !s) {
    return s.error();
  }
  if (sql.changes() == 0) return false;
  const bool is_good = result.http_status == 200;
  if (Status s = sql.run("UPDATE batches SET completed = completed + ?, failed = failed + ?,"
                         " input_tokens = input_tokens + ?, cached_tokens = cached_tokens + ?,"
                         " output_tokens = output_tokens + ?, reasoning_tokens = reasoning_tokens "
                         "+ ? WHERE id = ?",
                         is_good ? 1 : 0, is_good ? 0 : 1, result.usage.input_tokens,
                         result.usage.cached_tokens, result.usage.output_tokens,
                         result.usage.reasoning_tokens, id);
      !s) {
    return s.error();
  }
  return true;
}

Result<std::vector<LineResult>> batch_results(Sql& sql, const std::string& id, std::uint64_t after,
                                              std::size_t bytes_max) {
  auto rows = sql.query(
      "SELECT line, request_id, http_status, body FROM batch_lines"
      " WHERE batch = ? AND line > ? AND http_status > 0 ORDER BY line",
      id, after);
  if (!rows) return rows.error();
  std::vector<LineResult> out;
  for (std::size_t bytes = 0; bytes < bytes_max && rows->next();) {
    LineResult& result = out.emplace_back();
    result.line = static_cast<std::uint64_t>(rows->integer(0));
    result.request_id = rows->text(1);
    result.http_status = static_cast<int>(rows->integer(2));
    result.body = rows->text(3);
    bytes += result.body.size() + 200;
  }
  if (!rows->status()) return rows->status().error();
  return out;
}

Result<std::vector<LineResult>> batch_lines(Sql& sql, const std::string& id) {
  auto rows = sql.query(
      "SELECT line, request_id, http_status FROM batch_lines WHERE batch = ? ORDER BY line", id);
  if (!rows) return rows.error();
  std::vector<LineResult> out;
  while (rows->next()) {
    LineResult& result = out.emplace_back();
    result.line = static_cast<std::uint64_t>(rows->integer(0));
    result.request_id = rows->text(1);
    result.http_status = static_cast<int>(rows->integer(2));
  }
  if (!rows->status()) return rows->status().error();
  return out;
}

}  // namespace waystation::store
