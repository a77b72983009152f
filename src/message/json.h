// The little JSON that is needed without a JSON library: writing strings fast, and the one form of
// a document that is hashed. Pure.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::message {

// Objects and arrays inside one another; deeper input is refused, since parsing recurses.
inline constexpr std::size_t kJsonDepthMax = 32;

// Appends `text` as a JSON string with its quotes. UTF-8 goes through as it is.
void append_json_string(std::string& out, std::string_view text);

// `text` as a JSON string.
std::string json_string(std::string_view text);

// The document with the members of every object sorted by name and no white space, so that two
// spellings of the same document give the same bytes. `without`: members of the document itself that
// are left out. kInvalidArgument when it isn't JSON.
Result<std::string> canonical_json(std::string_view document,
                                   std::initializer_list<std::string_view> without = {});

}  // namespace waystation::message
