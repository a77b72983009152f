#include "message/openai.h"

#include "base/utf8.h"
#include "message/json.h"

namespace waystation::message {

std::string_view openai_error_type(Code code) {
  switch (code) {
    case Code::kUnauthenticated:
      return "authentication_error";
    case Code::kPermissionDenied:
      return "permission_error";
    case Code::kQueueFull:
      return "rate_limit_error";
    case Code::kTimeout:
    case Code::kExpired:
      return "timeout_error";
    case Code::kUnavailable:
    case Code::kUpstream:
    case Code::kLoop:
    case Code::kIo:
    case Code::kCorruption:
    case Code::kLostInSalvage:
    case Code::kDead:
    case Code::kInternal:
      return "server_error";
    default:
      return "invalid_request_error";
  }
}

std::string_view openai_error_code(Code code) {
  return code == Code::kUnauthenticated ? "invalid_api_key" : code_name(code);
}

namespace {

// A message may name what the client sent, which needn't be text.
void append_shown(std::string& out, std::string text) {
  if (!is_utf8(text)) {
    for (char& byte : text) {
      if (static_cast<unsigned char>(byte) >= 0x80) byte = '?';
    }
  }
  append_json_string(out, text);
}

}  // namespace

std::string openai_error_object(const Error& error) {
  std::string out = "{\"message\":";
  append_shown(out, error.message);
  out += ",\"type\":";
  append_json_string(out, openai_error_type(error.code));
  out += ",\"param\":";
  if (error.param.empty()) {
    out += "null";
  } else {
    append_shown(out, error.param);
  }
  out += ",\"code\":";
  append_json_string(out, openai_error_code(error.code));
  out += "}";
  return out;
}

std::string openai_error_body(const Error& error) {
  return "{\"error\":" + openai_error_object(error) + "}";
}

}  // namespace waystation::message
