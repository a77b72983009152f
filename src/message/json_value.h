// Parsing with Boost.JSON, for this folder's sources only (its headers are slow to compile).
#pragma once

#include <boost/json/value.hpp>
#include <string_view>

#include "base/result.h"

namespace waystation::message {

// kInvalidArgument when `document` isn't UTF-8 JSON or is nested deeper than kJsonDepthMax.
Result<boost::json::value> parse_json(std::string_view document);

}  // namespace waystation::message
