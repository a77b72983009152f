#include "base/result.h"

#include <array>

namespace waystation {
namespace {

struct Row {
  Code code;
  std::string_view name;
  int http;
  int exit;
};

constexpr std::array kTable{
    Row{Code::kInvalidArgument, "invalid_argument", 400, 64},
    Row{Code::kUnauthenticated, "unauthenticated", 401, 77},
    Row{Code::kPermissionDenied, "permission_denied", 403, 77},
    Row{Code::kNotFound, "not_found", 404, 66},
    Row{Code::kModelNotFound, "model_not_found", 404, 66},
    Row{Code::kGone, "gone", 410, 66},
    Row{Code::kIdempotencyMismatch, "idempotency_mismatch", 422, 65},
    Row{Code::kContextLengthExceeded, "context_length_exceeded", 400, 65},
    Row{Code::kTooLarge, "too_large", 413, 65},
    Row{Code::kHeadersTooLarge, "headers_too_large", 431, 65},
    Row{Code::kMethodNotAllowed, "method_not_allowed", 405, 64},
    Row{Code::kTimeout, "timeout", 408, 75},
    Row{Code::kQueueFull, "queue_full", 429, 75},
    Row{Code::kUnavailable, "unavailable", 503, 69},
    Row{Code::kBusy, "busy", 409, 75},
    Row{Code::kConversationLocked, "conversation_locked", 400, 75},
    Row{Code::kConflict, "conflict", 409, 65},
    Row{Code::kUpstream, "upstream_error", 502, 69},
    Row{Code::kLoop, "loop_detected", 508, 78},
    Row{Code::kIo, "io", 500, 74},
    Row{Code::kCorruption, "corruption", 500, 65},
    Row{Code::kLostInSalvage, "lost_in_salvage", 500, 65},
    Row{Code::kCancelled, "cancelled", 409, 75},
    Row{Code::kExpired, "expired", 504, 75},
    Row{Code::kDead, "dead", 500, 70},
    Row{Code::kInternal, "internal", 500, 70},
};

const Row& row_of(Code code) {
  for (const Row& row : kTable) {
    if (row.code == code) return row;
  }
  return kTable.back();
}

}  // namespace

std::string_view code_name(Code code) {
  return row_of(code).name;
}

Code code_from_name(std::string_view name) {
  for (const Row& row : kTable) {
    if (row.name == name) return row.code;
  }
  return Code::kInternal;
}

int http_status(Code code) {
  return row_of(code).http;
}

int exit_code(Code code) {
  return row_of(code).exit;
}

}  // namespace waystation
