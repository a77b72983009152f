// What makes an envelope one that this version may act on. See docs/formats/envelope.md. Pure.
#pragma once

#include <string_view>

#include "base/result.h"
#include "message/proto/envelope.pb.h"

namespace waystation::message {

inline constexpr std::string_view kSpecVersion = "1.0";

// Refuses an envelope without its required attributes (`param` names the attribute), of another
// major specversion, or of a type whose major version isn't known here. `id` is looked at only when
// it is set, since the broker gives it.
Status check_envelope(const v1::Envelope& envelope);

// "waystation.chat.request.v1" → 1. kInvalidArgument when the type doesn't end in ".v<number>".
Result<int> type_major_version(std::string_view type);

}  // namespace waystation::message
