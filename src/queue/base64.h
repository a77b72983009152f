// Base64 (RFC 4648, section 4) for payloads that aren't text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace waystation::queue {

std::string base64_encode(std::string_view bytes);
// Nothing when it isn't padded base64.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace waystation::queue
