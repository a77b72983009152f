// Conversations: what clients ask for directly.
#include "base/utf8.h"
#include "memory/memory.h"

namespace waystation::memory {
namespace {

using message::Item;
using store::ConversationRow;
using store::Sql;

Result<ConversationRow> existing(Sql& sql, const std::string& tenant, const std::string& id) {
  auto row = store::find_conversation(sql, tenant, id);
  if (!row) return row.error();
  if (!*row) {
    return Error{Code::kNotFound, "there is no conversation '" + utf8_prefix(id, 100) + "'"};
  }
  return std::move(**row);
}

// Of a key that was used before.
Result<ConversationRow> earlier(Sql& sql, const std::string& tenant, const std::string& id) {
  auto row = existing(sql, tenant, id);
  if (row || row.error().code != Code::kNotFound) return row;
  return Error{Code::kGone,
               "the conversation of this Idempotency-Key was deleted; use a new key for a new one",
               "Idempotency-Key"};
}

Error no_such_item(const std::string& item) {
  return {Code::kNotFound,
          "there is no item '" + utf8_prefix(item, 100) + "' in this conversation"};
}

// A Done that hands on to a callback.
template <typename T>
store::Done<T> hand_on(Callback<T> done) {
  return [done = std::move(done)](Result<T> result) { done(std::move(result)); };
}

std::string conversation_id(RequestId id) {
  std::string text = id.to_string();
  std::erase(text, '-');
  return "conv_" + text;
}

}  // namespace

Status Memory::create_conversation(std::string tenant, std::string metadata,
                                   std::vector<Item> items, store::KeyUse use,
                                   Callback<ConversationRow> done) {
  const RequestId id = new_id();
  ConversationRow row{conversation_id(id), deps_.clock.wall_ms(), std::move(metadata)};
  return deps_.database.post<ConversationRow>(
      [tenant, row, items = std::move(items), use = std::move(use),
       id](Sql& sql) mutable -> Result<ConversationRow> {
        auto bound = store::find_bound(sql, tenant, use, row.created_ms);
        if (!bound) return bound.error();
        if (*bound) return earlier(sql, tenant, **bound);
        if (auto made = store::make_conversation(sql, tenant, row); !made) return made.error();
        auto added = store::append_items(sql, tenant, row.id, id, std::move(items));
        if (!added) return added.error();
        auto is_bound = store::bind_key(sql, tenant, use, row.id, row.created_ms);
        if (!is_bound) return is_bound.error();
        return row;
      },
      hand_on(std::move(done)));
}

Status Memory::get_conversation(std::string tenant, std::string id,
                                Callback<ConversationRow> done) {
  return deps_.database.post<ConversationRow>(
      [tenant, id](Sql& sql) { return existing(sql, tenant, id); }, hand_on(std::move(done)));
}

Status Memory::update_conversation(std::string tenant, std::string id, std::string metadata,
                                   Callback<ConversationRow> done) {
  return deps_.database.post<ConversationRow>(
      [tenant, id, metadata](Sql& sql) -> Result<ConversationRow> {
        auto row = existing(sql, tenant, id);
        if (!row) return row;
        auto status = store::set_conversation_metadata(sql, tenant, id, metadata);
        if (!status) return status.error();
        row->metadata = metadata;
        return row;
      },
      hand_on(std::move(done)));
}

Status Memory::remove_conversation(std::string tenant, std::string id, Callback<void> done) {
  return deps_.database.post<void>(
      [tenant, id](Sql& sql) -> Result<void> {
        auto row = existing(sql, tenant, id);
        if (!row) return row.error();
        return store::remove_conversation(sql, tenant, id);
      },
      hand_on(std::move(done)));
}

Status Memory::add_items(std::string tenant, std::string id, std::vector<Item> items,
                         Callback<std::vector<Item>> done) {
  const RequestId fresh = new_id();
  settle_turns(tenant, id, std::nullopt,
               [this, tenant, id, items = std::move(items), fresh, done](Result<void> settled) {
                 if (!settled) return done(settled.error());
                 auto status = deps_.database.post<std::vector<Item>>(
                     [tenant, id, items, fresh](Sql& sql) -> Result<std::vector<Item>> {
                       auto row = existing(sql, tenant, id);
                       if (!row) return row.error();
                       return store::append_items(sql, tenant, id, fresh, items);
                     },
                     hand_on(done));
                 if (!status) done(status.error());
               });
  return {};
}

Status Memory::list_items(std::string tenant, std::string id, store::PageQuery wanted,
                          Callback<store::ItemPage> done) {
  settle_turns(tenant, id, std::nullopt, [this, tenant, id, wanted, done](Result<void> settled) {
    if (!settled) return done(settled.error());
    auto status = deps_.database.post<store::ItemPage>(
        [tenant, id, wanted](Sql& sql) -> Result<store::ItemPage> {
          auto row = existing(sql, tenant, id);
          if (!row) return row.error();
          return store::page_of_items(sql, tenant, id, wanted);
        },
        hand_on(done));
    if (!status) done(status.error());
  });
  return {};
}

Status Memory::get_item(std::string tenant, std::string id, std::string item, Callback<Item> done) {
  settle_turns(tenant, id, std::nullopt, [this, tenant, id, item, done](Result<void> settled) {
    if (!settled) return done(settled.error());
    auto status = deps_.database.post<Item>(
        [tenant, id, item](Sql& sql) -> Result<Item> {
          auto row = existing(sql, tenant, id);
          if (!row) return row.error();
          auto found = store::find_item(sql, tenant, id, item);
          if (!found) return found.error();
          if (!*found) return no_such_item(item);
          return std::move(**found);
        },
        hand_on(done));
    if (!status) done(status.error());
  });
  return {};
}

Status Memory::remove_item(std::string tenant, std::string id, std::string item,
                           Callback<ConversationRow> done) {
  settle_turns(tenant, id, std::nullopt, [this, tenant, id, item, done](Result<void> settled) {
    if (!settled) return done(settled.error());
    auto status = deps_.database.post<ConversationRow>(
        [tenant, id, item](Sql& sql) -> Result<ConversationRow> {
          auto row = existing(sql, tenant, id);
          if (!row) return row;
          auto found = store::find_item(sql, tenant, id, item);
          if (!found) return found.error();
          if (!*found) return no_such_item(item);
          auto removed = store::remove_item(sql, tenant, id, item);
          if (!removed) return removed.error();
          return row;
        },
        hand_on(done));
    if (!status) done(status.error());
  });
  return {};
}

}  // namespace waystation::memory
