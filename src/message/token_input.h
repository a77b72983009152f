// Text or token ids, as completions and embeddings take them. For this folder's sources only. Pure.
#pragma once

#include <string>
#include <vector>

#include "message/completion.h"
#include "message/fields.h"

namespace waystation::message {

// A string, an array of strings, an array of token ids, or an array of such arrays: one input for
// each string and each list of ids. None may be empty, unless `empty_text` allows empty strings.
Result<std::vector<TokenInput>> parse_inputs(const fields::Object& body, const std::string& param,
                                             std::size_t inputs_max, bool empty_text);

}  // namespace waystation::message
