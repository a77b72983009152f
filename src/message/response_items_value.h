// Parsing items out of a document, for this folder's sources only (see fields.h).
#pragma once

#include <vector>

#include "message/fields.h"
#include "message/response_items.h"

namespace waystation::message {

// An array of items as a client sends it; `param` names it in refusals.
Result<std::vector<Item>> parse_items(const fields::Value& array, const std::string& param,
                                      RequestId id);

// A message of the user with this text.
Item user_message(std::string_view text, RequestId id);

}  // namespace waystation::message
