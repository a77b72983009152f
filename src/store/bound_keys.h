// Idempotency keys of what the store makes by itself (batches, conversations): the same key and the
// same body give the same object. Requests have theirs in the ledger. Functions on the database's
// thread; each belongs to whatever transaction its caller is in.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "store/database.h"

namespace waystation::store {

std::vector<Migration> bound_keys_schema();

inline constexpr TimeMs kKeyBindsMs = 24LL * 3600 * 1000;

// A key as a caller gave it.
struct KeyUse {
  std::string key = {};          // empty: none; nothing is bound then
  std::string fingerprint = {};  // of the route and the body
};

// The id of what was made with the key. kIdempotencyMismatch: with another body.
Result<std::optional<std::string>> find_bound(Sql& sql, const std::string& tenant,
                                              const KeyUse& use, TimeMs now_ms);
// Binds the key to `object`; in the transaction that makes it.
Status bind_key(Sql& sql, const std::string& tenant, const KeyUse& use, const std::string& object,
                TimeMs now_ms);

}  // namespace waystation::store
