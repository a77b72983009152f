// Conversations and their items, in order. Functions on the database's thread (database.h); each
// belongs to whatever transaction its caller is in. Everything is the tenant's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "message/response_items.h"
#include "store/database.h"
#include "store/files.h"

namespace waystation::store {

std::vector<Migration> conversations_schema();

struct ConversationRow {
  std::string id;
  TimeMs created_ms = 0;
  std::string metadata = "{}";  // JSON
};

struct ItemPage {
  std::vector<message::Item> items;
  bool has_more = false;
};

// Does nothing when it exists.
Status make_conversation(Sql& sql, std::string_view tenant, const ConversationRow& row);
Result<std::optional<ConversationRow>> find_conversation(Sql& sql, std::string_view tenant,
                                                         std::string_view id);
Status set_conversation_metadata(Sql& sql, std::string_view tenant, std::string_view id,
                                 std::string_view metadata);
// With its items.
Status remove_conversation(Sql& sql, std::string_view tenant, std::string_view id);

// Puts items at the end; one whose id is taken here gets another, made from `request`. Gives them
// as they stand. The conversation must exist.
Result<std::vector<message::Item>> append_items(Sql& sql, std::string_view tenant,
                                                std::string_view id, RequestId request,
                                                std::vector<message::Item> items);
// Makes `item` the first one, in place of a system message that is first.
Status set_system_item(Sql& sql, std::string_view tenant, std::string_view id,
                       const message::Item& item);

Result<std::vector<message::Item>> all_items(Sql& sql, std::string_view tenant,
                                             std::string_view id);
// kInvalidArgument (param "after") when there is no item of that id.
Result<ItemPage> page_of_items(Sql& sql, std::string_view tenant, std::string_view id,
                               const PageQuery& wanted);
Result<std::optional<message::Item>> find_item(Sql& sql, std::string_view tenant,
                                               std::string_view id, std::string_view item);
Status remove_item(Sql& sql, std::string_view tenant, std::string_view id, std::string_view item);

// The same paging of items that are at hand, oldest first.
Result<ItemPage> page_of(const std::vector<message::Item>& items, const PageQuery& wanted);

}  // namespace waystation::store
