// /v1/conversations and their items.
#include "front/deps.h"
#include "front/handlers.h"
#include "front/headers.h"
#include "front/on_loop.h"
#include "front/stored.h"
#include "message/json.h"
#include "message/responses.h"

namespace waystation::front {
namespace {

using memory::Memory;
using message::Item;
using store::ConversationRow;

std::string conversation_json(const ConversationRow& row) {
  return "{\"id\":" + message::json_string(row.id) +
         ",\"object\":\"conversation\",\"created_at\":" + std::to_string(row.created_ms / 1000) +
         ",\"metadata\":" + row.metadata + "}";
}

broker::Callback<ConversationRow> answer_with(ExchangePtr exchange) {
  return value_on_loop<ConversationRow>(exchange, [exchange](const ConversationRow& row) {
    exchange->reply(Response{.body = conversation_json(row)});
  });
}

// Calls `call(memory, tenant)`, whose error is the answer.
template <typename Call>
void with_memory(const Deps& deps, const ExchangePtr& exchange, Call call) {
  const auto memory = memory_of(deps);
  if (!memory) return exchange->reply(memory.error());
  const Status status = call(**memory, exchange->request().tenant);
  if (!status) exchange->reply(status.error());
}

// New items of a body, none of which may stand for another.
Result<std::vector<Item>> new_items(const Memory& memory, const std::string& body) {
  auto items = message::parse_items_member(body, "items", memory.new_id());
  if (!items) return items;
  for (std::size_t i = 0; i < items->size(); ++i) {
    if ((*items)[i].type != "item_reference") continue;
    const std::string param = "items[" + std::to_string(i) + "].type";
    return Error{Code::kInvalidArgument, param + " must not be a reference; send the item", param};
  }
  return items;
}

// Nothing at all is an empty object here.
std::string body_of(const ExchangePtr& exchange) {
  const std::string& body = exchange->request().body;
  return body.empty() ? "{}" : body;
}

}  // namespace

void handle_conversations_create(const Deps& deps, ExchangePtr exchange) {
  with_memory(deps, exchange, [&](Memory& memory, const std::string& tenant) -> Status {
    const std::string body = body_of(exchange);
    auto metadata = message::parse_metadata(body);
    if (!metadata) return metadata.error();
    auto items = new_items(memory, body);
    if (!items) return items.error();
    auto use = read_key_use(exchange->request(), "/v1/conversations");
    if (!use) return use.error();
    return memory.create_conversation(tenant, std::move(*metadata), std::move(*items),
                                      std::move(*use), answer_with(exchange));
  });
}

void handle_conversation(const Deps& deps, ExchangePtr exchange) {
  with_memory(deps, exchange, [&](Memory& memory, const std::string& tenant) {
    return memory.get_conversation(tenant, exchange->request().params[0], answer_with(exchange));
  });
}

void handle_conversation_update(const Deps& deps, ExchangePtr exchange) {
  with_memory(deps, exchange, [&](Memory& memory, const std::string& tenant) -> Status {
    auto metadata = message::parse_metadata(body_of(exchange));
    if (!metadata) return metadata.error();
    return memory.update_conversation(tenant, exchange->request().params[0], std::move(*metadata),
                                      answer_with(exchange));
  });
}

void handle_conversation_delete(const Deps& deps, ExchangePtr exchange) {
  with_memory(deps, exchange, [&](Memory& memory, const std::string& tenant) {
    const std::string id = exchange->request().params[0];
    return memory.remove_conversation(
        tenant, id, value_on_loop<void>(exchange, [exchange, id] {
          exchange->reply(Response{.body = "{\"id\":" + message::json_string(id) +
                                           ",\"object\":\"conversation.deleted\","
                                           "\"deleted\":true}"});
        }));
  });
}

void handle_conversation_items(const Deps& deps, ExchangePtr exchange) {
  with_memory(deps, exchange, [&](Memory& memory, const std::string& tenant) -> Status {
    const auto wanted = item_page_query(exchange->request());
    if (!wanted) return wanted.error();
    return memory.list_items(
        tenant, exchange->request().params[0], *wanted,
        value_on_loop<store::ItemPage>(
            exchange, [exchange](store::ItemPage page) { exchange->reply(item_page(page)); }));
  });
}

void handle_conversation_items_create(const Deps& deps, ExchangePtr exchange) {
  with_memory(deps, exchange, [&](Memory& memory, const std::string& tenant) -> Status {
    auto items = new_items(memory, exchange->request().body);
    if (!items) return items.error();
    if (items->empty()) {
      return Error{Code::kInvalidArgument, "items must have at least one item", "items"};
    }
    return memory.add_items(
        tenant, exchange->request().params[0], std::move(*items),
        value_on_loop<std::vector<Item>>(exchange, [exchange](std::vector<Item> added) {
          exchange->reply(item_page({std::move(added), false}));
        }));
  });
}

void handle_conversation_item(const Deps& deps, ExchangePtr exchange) {
  with_memory(deps, exchange, [&](Memory& memory, const std::string& tenant) {
    const auto& params = exchange->request().params;
    return memory.get_item(tenant, params[0], params[1],
                           value_on_loop<Item>(exchange, [exchange](const Item& item) {
                             exchange->reply(Response{.body = item.json});
                           }));
  });
}

void handle_conversation_item_delete(const Deps& deps, ExchangePtr exchange) {
  with_memory(deps, exchange, [&](Memory& memory, const std::string& tenant) {
    const auto& params = exchange->request().params;
    return memory.remove_item(tenant, params[0], params[1], answer_with(exchange));
  });
}

}  // namespace waystation::front
