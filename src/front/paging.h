// Lists that are fetched page by page, as files and batches are.
#pragma once

#include <charconv>
#include <string>

#include "base/result.h"
#include "front/exchange.h"
#include "message/json.h"
#include "store/files.h"

namespace waystation::front {

// `limit`, `order` and `after` of the query string. kInvalidArgument with `param`.
inline Result<store::PageQuery> page_query(const Request& request, std::size_t limit_default,
                                           std::size_t limit_max) {
  store::PageQuery page;
  page.limit = limit_default;
  if (const auto text = request.query_value("limit")) {
    const char* const end = text->data() + text->size();
    const auto [stop, ec] = std::from_chars(text->data(), end, page.limit);
    if (ec != std::errc() || stop != end || page.limit < 1 || page.limit > limit_max) {
      return Error{Code::kInvalidArgument,
                   "limit must be a whole number from 1 to " + std::to_string(limit_max), "limit"};
    }
  }
  if (const auto order = request.query_value("order")) {
    if (*order != "asc" && *order != "desc") {
      return Error{Code::kInvalidArgument, "order must be 'asc' or 'desc'", "order"};
    }
    page.ascending = *order == "asc";
  }
  page.after = request.query_value("after").value_or("");
  return page;
}

// {"object":"list",…}. `append` writes one row, which has an `id`.
template <typename Rows, typename Append>
Response page_response(const Rows& rows, bool has_more, Append append) {
  Response response;
  std::string& out = response.body;
  out = "{\"object\":\"list\",\"data\":[";
  for (const auto& row : rows) {
    if (&row != &rows.front()) out += ",";
    append(out, row);
  }
  out += "],\"first_id\":" + (rows.empty() ? "null" : message::json_string(rows.front().id)) +
         ",\"last_id\":" + (rows.empty() ? "null" : message::json_string(rows.back().id)) +
         ",\"has_more\":" + (has_more ? "true" : "false") + "}";
  return response;
}

}  // namespace waystation::front
