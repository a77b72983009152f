// The error shape that OpenAI's clients understand. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::message {

// "invalid_request_error", "authentication_error", "rate_limit_error", "server_error", …
std::string_view openai_error_type(Code code);

// The "code" member: base/result.h's name, but for codes that clients know by another.
std::string_view openai_error_code(Code code);

// {"message":…,"type":…,"param":…|null,"code":…}
std::string openai_error_object(const Error& error);

// {"error":{…}}: a response's body, or the data of a frame in mid-stream.
std::string openai_error_body(const Error& error);

}  // namespace waystation::message
