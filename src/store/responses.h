// Rows of requests whose outcome is to outlive the journal: responses that are stored, and turns of
// conversations that the server keeps. Functions on the database's thread (database.h); each
// belongs to whatever transaction its caller is in.
//
//   insert_response ─▶ (submitted to the broker) ─▶ set_outcome      a stored response, until it is
//          │                                  └────▶ remove_response  expired or deleted
//          └─ refused: remove_response
//
// Everything is the tenant's: another one's rows don't exist.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "store/database.h"

namespace waystation::store {

std::vector<Migration> responses_schema();

struct ResponseRow {
  RequestId id;
  std::string tenant;
  TimeMs created_ms = 0;
  std::string api;  // "responses", or "chat.completions" for a turn that is kept
  std::string model;
  std::string conversation;           // whose turn it is; empty: none
  std::optional<RequestId> previous;  // the response that it goes on from
  bool visible = false;  // a client may fetch it; else it goes when its outcome is there
  bool background = false;
  std::string parameters;  // members of the response object, see message/responses.h
  std::string instructions;
  std::string input;     // its own items, a JSON array
  std::string composed;  // the data that was put together for it; empty: not yet, or not needed
  bool ended = false;    // the two below are there
  std::string state;     // the ledger's name of it: "completed", "failed", …
  std::string answer;    // the response object
};

// kBusy when the id is taken.
Status insert_response(Sql& sql, const ResponseRow& row);
Result<std::optional<ResponseRow>> find_response(Sql& sql, std::string_view tenant, RequestId id);
Status set_composed(Sql& sql, std::string_view tenant, RequestId id, std::string_view data);
// Forgets what was composed, which nobody needs any more.
Status set_outcome(Sql& sql, std::string_view tenant, RequestId id, std::string_view state,
                   std::string_view answer);
Status remove_response(Sql& sql, std::string_view tenant, RequestId id);

struct PendingResponse {
  std::string tenant;
  RequestId id;
};
// Rows without an outcome: all of them, or a conversation's, oldest first.
Result<std::vector<PendingResponse>> pending_responses(Sql& sql);
Result<std::vector<PendingResponse>> pending_responses(Sql& sql, std::string_view tenant,
                                                       std::string_view conversation);

// Removes at most `most` ended rows made before `before_ms`; gives how many there were.
Result<std::int64_t> expire_responses(Sql& sql, TimeMs before_ms, std::int64_t most);

}  // namespace waystation::store
