#include "store/responses.h"

namespace waystation::store {
namespace {

constexpr std::string_view kColumns =
    "SELECT id, tenant, created_ms, api, model, conversation, previous, visible, background, "
    "parameters, instructions, input, composed, ended, state, answer FROM responses ";

Result<ResponseRow> row_of(const Rows& rows) {
  ResponseRow row;
  const auto id = RequestId::from_bytes(rows.text(0));
  if (!id) return Error{Code::kCorruption, "a stored response has a malformed id"};
  row.id = *id;
  row.tenant = rows.text(1);
  row.created_ms = rows.integer(2);
  row.api = rows.text(3);
  row.model = rows.text(4);
  row.conversation = rows.text(5);
  if (!rows.is_null(6)) row.previous = RequestId::from_bytes(rows.text(6));
  row.visible = rows.integer(7) != 0;
  row.background = rows.integer(8) != 0;
  row.parameters = rows.text(9);
  row.instructions = rows.text(10);
  row.input = rows.text(11);
  row.composed = rows.text(12);
  row.ended = rows.integer(13) != 0;
  row.state = rows.text(14);
  row.answer = rows.text(15);
  return row;
}

Result<std::vector<PendingResponse>> pending_of(Result<Rows> rows) {
  if (!rows) return rows.error();
  std::vector<PendingResponse> out;
  while (rows->next()) {
    if (const auto id = RequestId::from_bytes(rows->text(1))) out.push_back({rows->text(0), *id});
  }
  if (!rows->status()) return rows->status().error();
  return out;
}

}  // namespace

std::vector<Migration> responses_schema() {
  return {{"responses.1",
           "CREATE TABLE responses ("
           "  id BLOB PRIMARY KEY,"
           "  tenant TEXT NOT NULL,"
           "  created_ms INTEGER NOT NULL,"
           "  api TEXT NOT NULL,"
           "  model TEXT NOT NULL,"
           "  conversation TEXT NOT NULL,"
           "  previous BLOB,"
           "  visible INTEGER NOT NULL,"
           "  background INTEGER NOT NULL,"
           "  parameters TEXT NOT NULL,"
           "  instructions TEXT NOT NULL,"
           "  input TEXT NOT NULL,"
           "  composed TEXT NOT NULL,"
           "  ended INTEGER NOT NULL DEFAULT 0,"
           "  state TEXT NOT NULL DEFAULT '',"
           "  answer TEXT NOT NULL DEFAULT ''"
           ");"
           "CREATE INDEX responses_pending ON responses (tenant, conversation) WHERE ended = 0;"
           "CREATE INDEX responses_created ON responses (created_ms) WHERE ended = 1;"}};
}

Status insert_response(Sql& sql, const ResponseRow& row) {
  const std::string id = row.id.to_bytes();
  const std::string previous = row.previous ? row.previous->to_bytes() : std::string();
  const std::optional<Bytes> previous_bytes =
      row.previous ? std::optional(Bytes{previous}) : std::nullopt;
  return sql.run(
      "INSERT INTO responses (id, tenant, created_ms, api, model, conversation, previous, visible, "
      "background, parameters, instructions, input, composed) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      Bytes{id}, row.tenant, row.created_ms, row.api, row.model, row.conversation, previous_bytes,
      row.visible, row.background, row.parameters, row.instructions, row.input, row.composed);
}

Result<std::optional<ResponseRow>> find_response(Sql& sql, std::string_view tenant, RequestId id) {
  static const std::string kSelect = std::string(kColumns) + "WHERE id = ? AND tenant = ?";
  const std::string key = id.to_bytes();
  auto rows = sql.query(kSelect, Bytes{key}, tenant);
  if (!rows) return rows.error();
  if (!rows->next()) {
    if (!rows->status()) return rows->status().error();
    return std::optional<ResponseRow>();
  }
  auto row = row_of(*rows);
  if (!row) return row.error();
  return std::optional(std::move(*row));
}

Status set_composed(Sql& sql, std::string_view tenant, RequestId id, std::string_view data) {
  const std::string key = id.to_bytes();
  return sql.run("UPDATE responses SET composed = ? WHERE id = ? AND tenant = ?", data, Bytes{key},
                 tenant);
}

Status set_outcome(Sql& sql, std::string_view tenant, RequestId id, std::string_view state,
                   std::string_view answer) {
  const std::string key = id.to_bytes();
  return sql.run(
      "UPDATE responses SET ended = 1, state = ?, answer = ?, composed = '' "
      "WHERE id = ? AND tenant = ?",
      state, answer, Bytes{key}, tenant);
}

Status remove_response(Sql& sql, std::string_view tenant, RequestId id) {
  const std::string key = id.to_bytes();
  return sql.run("DELETE FROM responses WHERE id = ? AND tenant = ?", Bytes{key}, tenant);
}

Result<std::vector<PendingResponse>> pending_responses(Sql& sql) {
  return pending_of(sql.query("SELECT tenant, id FROM responses WHERE ended = 0 ORDER BY id"));
}

Result<std::vector<PendingResponse>> pending_responses(Sql& sql, std::string_view tenant,
                                                       std::string_view conversation) {
  return pending_of(
      sql.query("SELECT tenant, id FROM responses WHERE ended = 0 AND tenant = ? AND "
                "conversation = ? ORDER BY id",
                tenant, conversation));
}

Result<std::int64_t> expire_responses(Sql& sql, TimeMs before_ms, std::int64_t most) {
  auto status = sql.run(
      "DELETE FROM responses WHERE id IN (SELECT id FROM responses WHERE ended = 1 AND "
      "created_ms < ? LIMIT ?)",
      before_ms, most);
  if (!status) return status.error();
  return sql.changes();
}

}  // namespace waystation::store
