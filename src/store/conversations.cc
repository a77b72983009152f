#include "store/conversations.h"

#include <algorithm>

#include "base/utf8.h"

namespace waystation::store {
namespace {

using message::Item;

Item item_of(const Rows& rows, int column) {
  return {rows.text(column), rows.text(column + 1), rows.text(column + 2)};
}

Result<std::vector<Item>> items_of(Result<Rows> rows) {
  if (!rows) return rows.error();
  std::vector<Item> out;
  while (rows->next()) out.push_back(item_of(*rows, 0));
  if (!rows->status()) return rows->status().error();
  return out;
}

Error no_such_place(const std::string& after) {
  return {Code::kInvalidArgument, "after: there is no item '" + utf8_prefix(after, 100) + "' here",
          "after"};
}

// Where items may be put: after the last, or before the first.
Result<std::int64_t> edge(Sql& sql, std::string_view tenant, std::string_view id, bool last) {
  auto rows = last ? sql.query(
                         "SELECT max(position) FROM conversation_items WHERE tenant = ? AND "
                         "conversation = ?",
                         tenant, id)
                   : sql.query(
                         "SELECT min(position) FROM conversation_items WHERE tenant = ? AND "
                         "conversation = ?",
                         tenant, id);
  if (!rows) return rows.error();
  if (!rows->next())
    return rows->status() ? Error{Code::kInternal, "no edge"} : rows->status().error();
  if (rows->is_null(0)) return 0;
  return last ? rows->integer(0) + 1 : rows->integer(0) - 1;
}

Status insert(Sql& sql, std::string_view tenant, std::string_view id, std::int64_t position,
              const Item& item) {
  return sql.run(
      "INSERT INTO conversation_items (tenant, conversation, position, id, type, body) "
      "VALUES (?, ?, ?, ?, ?, ?)",
      tenant, id, position, item.id, item.type, item.json);
}

std::string prefix_of(std::string_view item_id) {
  return std::string(item_id.substr(0, std::min(item_id.find('_'), std::size_t{8})));
}

}  // namespace

std::vector<Migration> conversations_schema() {
  return {{"conversations.1",
           "CREATE TABLE conversations ("
           "  tenant TEXT NOT NULL,"
           "  id TEXT NOT NULL,"
           "  created_ms INTEGER NOT NULL,"
           "  metadata TEXT NOT NULL,"
           "  PRIMARY KEY (tenant, id)"
           ") WITHOUT ROWID;"
           "CREATE TABLE conversation_items ("
           "  tenant TEXT NOT NULL,"
           "  conversation TEXT NOT NULL,"
           "  position INTEGER NOT NULL,"
           "  id TEXT NOT NULL,"
           "  type TEXT NOT NULL,"
           "  body TEXT NOT NULL,"
           "  PRIMARY KEY (tenant, conversation, position)"
           ");"
           "CREATE UNIQUE INDEX conversation_items_id ON conversation_items "
           "(tenant, conversation, id);"}};
}

Status make_conversation(Sql& sql, std::string_view tenant, const ConversationRow& row) {
  return sql.run(
      "INSERT INTO conversations (tenant, id, created_ms, metadata) VALUES (?, ?, ?, ?) "
      "ON CONFLICT DO NOTHING",
      tenant, row.id, row.created_ms, row.metadata);
}

Result<std::optional<ConversationRow>> find_conversation(Sql& sql, std::string_view tenant,
                                                         std::string_view id) {
  auto rows = sql.query(
      "SELECT created_ms, metadata FROM conversations WHERE tenant = ? AND id = ?", tenant, id);
  if (!rows) return rows.error();
  if (!rows->next()) {
    if (!rows->status()) return rows->status().error();
    return std::optional<ConversationRow>();
  }
  return std::optional(ConversationRow{std::string(id), rows->integer(0), rows->text(1)});
}

Status set_conversation_metadata(Sql& sql, std::string_view tenant, std::string_view id,
                                 std::string_view metadata) {
  return sql.run("UPDATE conversations SET metadata = ? WHERE tenant = ? AND id = ?", metadata,
                 tenant, id);
}

Status remove_conversation(Sql& sql, std::string_view tenant, std::string_view id) {
  auto items =
      sql.run("DELETE FROM conversation_items WHERE tenant = ? AND conversation = ?", tenant, id);
  if (!items) return items;
  return sql.run("DELETE FROM conversations WHERE tenant = ? AND id = ?", tenant, id);
}

Result<std::vector<Item>> append_items(Sql& sql, std::string_view tenant, std::string_view id,
                                       RequestId request, std::vector<Item> items) {
  auto position = edge(sql, tenant, id, true);
  if (!position) return position.error();
  for (Item& item : items) {
    auto taken = find_item(sql, tenant, id, item.id);
    if (!taken) return taken.error();
    if (*taken) {
      auto renamed = message::with_id(
          item, message::item_id(prefix_of(item.id), request, "c" + std::to_string(*position)));
      if (!renamed) return renamed.error();
      item = std::move(*renamed);
    }
    if (auto status = insert(sql, tenant, id, (*position)++, item); !status) return status.error();
  }
  return items;
}

Status set_system_item(Sql& sql, std::string_view tenant, std::string_view id, const Item& item) {
  auto first = items_of(sql.query(
      "SELECT id, type, body FROM conversation_items WHERE tenant = ? AND conversation = ? "
      "ORDER BY position LIMIT 1",
      tenant, id));
  if (!first) return first.error();
  if (!first->empty() && message::is_system(first->front())) {
    if (auto status = remove_item(sql, tenant, id, first->front().id); !status) return status;
  }
  auto position = edge(sql, tenant, id, false);
  if (!position) return position.error();
  return insert(sql, tenant, id, *position, item);
}

Result<std::vector<Item>> all_items(Sql& sql, std::string_view tenant, std::string_view id) {
  return items_of(sql.query(
      "SELECT id, type, body FROM conversation_items WHERE tenant = ? AND conversation = ? "
      "ORDER BY position",
      tenant, id));
}

Result<ItemPage> page_of_items(Sql& sql, std::string_view tenant, std::string_view id,
                               const PageQuery& wanted) {
  // Positions are small numbers, so these are beyond all of them.
  constexpr std::int64_t kEnd = std::int64_t{1} << 62;
  std::int64_t from = wanted.ascending ? -kEnd : kEnd;
  if (!wanted.after.empty()) {
    auto rows = sql.query(
        "SELECT position FROM conversation_items WHERE tenant = ? AND conversation = ? AND id = ?",
        tenant, id, wanted.after);
    if (!rows) return rows.error();
    if (!rows->next()) return rows->status() ? no_such_place(wanted.after) : rows->status().error();
    from = rows->integer(0);
  }
  auto items =
      wanted.ascending
          ? items_of(sql.query("SELECT id, type, body FROM conversation_items WHERE tenant = ? AND "
                               "conversation = ? AND position > ? ORDER BY position LIMIT ?",
                               tenant, id, from, wanted.limit + 1))
          : items_of(sql.query("SELECT id, type, body FROM conversation_items WHERE tenant = ? AND "
                               "conversation = ? AND position < ? ORDER BY position DESC LIMIT ?",
                               tenant, id, from, wanted.limit + 1));
  if (!items) return items.error();
  ItemPage page{std::move(*items), false};
  if (page.items.size() > wanted.limit) {
    page.has_more = true;
    page.items.pop_back();
  }
  return page;
}

Result<std::optional<Item>> find_item(Sql& sql, std::string_view tenant, std::string_view id,
                                      std::string_view item) {
  auto items = items_of(sql.query(
      "SELECT id, type, body FROM conversation_items WHERE tenant = ? AND conversation = ? AND "
      "id = ?",
      tenant, id, item));
  if (!items) return items.error();
  if (items->empty()) return std::optional<Item>();
  return std::optional(std::move(items->front()));
}

Status remove_item(Sql& sql, std::string_view tenant, std::string_view id, std::string_view item) {
  return sql.run("DELETE FROM conversation_items WHERE tenant = ? AND conversation = ? AND id = ?",
                 tenant, id, item);
}

Result<ItemPage> page_of(const std::vector<Item>& items, const PageQuery& wanted) {
  std::vector<Item> all = items;
  if (!wanted.ascending) std::reverse(all.begin(), all.end());
  auto at = all.begin();
  if (!wanted.after.empty()) {
    at = std::find_if(all.begin(), all.end(),
                      [&](const Item& item) { return item.id == wanted.after; });
    if (at == all.end()) return no_such_place(wanted.after);
    ++at;
  }
  const auto left = all.end() - at;
  const auto count = std::min(left, static_cast<std::ptrdiff_t>(wanted.limit));
  return ItemPage{{at, at + count}, left > count};
}

}  // namespace waystation::store
