// The items that OpenAI's Responses and Conversations APIs speak in: what goes into a response,
// what comes out of it, and what a conversation consists of. A model hears them as chat messages.
// Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace waystation::message {

// One item as clients see it. `json` is a whole object on one line and has the id.
struct Item {
  std::string id;
  std::string type;  // "message", "function_call", "function_call_output", "reasoning", or
                     // "item_reference", which stands for another item and has no `json`
  std::string json;
};

// "resp_<uuid>": the response's id is its request's.
std::string response_id(RequestId id);
std::optional<RequestId> parse_response_id(std::string_view text);

// "msg_<32 hex digits of the request>_<place>". Deterministic, and tells whose item it is. `place`
// is a number for what the request brought out, 'i' and a number for what went in.
std::string item_id(std::string_view prefix, RequestId id, std::string_view place);
std::optional<RequestId> request_of_item(std::string_view item_id);

// The array member `name` of the body {"items": […]}; empty when it is absent. New items get ids
// made from `id`. Errors: kInvalidArgument with `param` as in "items[0].content[1].type".
Result<std::vector<Item>> parse_items_member(std::string_view body, std::string_view name,
                                             RequestId id);

// The new messages of a chat body as items.
Result<std::vector<Item>> items_of_chat(std::string_view chat_body, RequestId id);

// Items as one JSON array, and back. The second is for what the first wrote.
std::string items_json(const std::vector<Item>& items);
Result<std::vector<Item>> parse_stored_items(std::string_view array);
// The `output` of a response object.
Result<std::vector<Item>> output_of_response(std::string_view response);

// The same item under another id.
Result<Item> with_id(const Item& item, std::string id);

// Whether it is a message from the system or the developer, which stands first if anywhere.
bool is_system(const Item& item);

// What the model hears: a chat body's `messages`, beginning with the instructions if there are any.
// Reasoning is left out. kInvalidArgument when an answer to a call comes without its call, unless
// `is_part`: more items will stand before these.
Result<std::string> chat_messages(const std::vector<Item>& items, std::string_view instructions,
                                  bool is_part = false);

// A chat body with its messages replaced by `messages`, or with `messages` put before them. A
// system message that leads the body's own takes the place of the one that leads `messages`.
Result<std::string> with_messages(std::string_view chat_body, std::string_view messages);
Result<std::string> with_earlier_messages(std::string_view chat_body, std::string_view messages);

}  // namespace waystation::message
