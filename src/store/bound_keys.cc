#include "store/bound_keys.h"

namespace waystation::store {

std::vector<Migration> bound_keys_schema() {
  return {{"bound_keys.1",
           "CREATE TABLE bound_keys (tenant TEXT NOT NULL, key TEXT NOT NULL,"
           "  fingerprint BLOB NOT NULL, object TEXT NOT NULL, made_ms INTEGER NOT NULL,"
           "  PRIMARY KEY (tenant, key)) WITHOUT ROWID;"
           "CREATE INDEX bound_keys_made ON bound_keys (made_ms);"}};
}

Result<std::optional<std::string>> find_bound(Sql& sql, const std::string& tenant,
                                              const KeyUse& use, TimeMs now_ms) {
  if (use.key.empty()) return std::optional<std::string>();
  auto rows = sql.query(
      "SELECT fingerprint, object FROM bound_keys WHERE tenant = ? AND key = ? AND made_ms > ?",
      tenant, use.key, now_ms - kKeyBindsMs);
  if (!rows) return rows.error();
  if (rows->next()) {
    if (rows->text(0) == use.fingerprint) return std::optional(rows->text(1));
    return Error{Code::kIdempotencyMismatch,
                 "this Idempotency-Key was used with another body; use a new key for a new request",
                 "Idempotency-Key"};
  }
  if (!rows->status()) return rows->status().error();
  return std::optional<std::string>();
}

Status bind_key(Sql& sql, const std::string& tenant, const KeyUse& use, const std::string& object,
                TimeMs now_ms) {
  if (use.key.empty()) return {};
  if (Status s = sql.run("DELETE FROM bound_keys WHERE made_ms <= ?", now_ms - kKeyBindsMs); !s) {
    return s;
  }
  return sql.run(
      "INSERT INTO bound_keys (tenant, key, fingerprint, object, made_ms) VALUES (?, ?, ?, ?, ?)",
      tenant, use.key, Bytes{use.fingerprint}, object, now_ms);
}

}  // namespace waystation::store
