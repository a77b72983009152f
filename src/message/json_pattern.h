// Regular expressions of JSON schemas, for this folder's sources only. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::message {

// The same expression, or one that matches less, made of character classes of \u escapes, groups,
// '|' and the repetitions ? * + {m,n} alone, anchored at both ends. Nothing that it matches needs
// an escape inside a JSON string. kInvalidArgument (no `param`): what it can't say.
Result<std::string> plain_pattern(std::string_view pattern);

}  // namespace waystation::message
