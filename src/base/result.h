// Errors as values. Every fallible function of Waystation returns a Result<T> (or Status when there
// is no value): a closed set of codes for programs to switch on, and a message that tells a person
// what to do. One table (result.cc) maps a code to its HTTP status and process exit code.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace waystation {

enum class Code {
  kInvalidArgument,        // the caller's input is wrong; `param` names the field
  kUnauthenticated,        // no or wrong credentials
  kPermissionDenied,       // right credentials, not allowed
  kNotFound,               // no such thing, or another tenant's
  kModelNotFound,          // no worker serves the model
  kGone,                   // existed, but is past its retention
  kIdempotencyMismatch,    // same Idempotency-Key, other body
  kContextLengthExceeded,  // the prompt doesn't fit the model's context
  kTooLarge,               // a body or a file over its limit
  kHeadersTooLarge,        // a header block over its limit
  kMethodNotAllowed,       // the path exists, not with this method
  kTimeout,                // the peer was too slow
  kQueueFull,              // a bound was reached; try again later
  kUnavailable,            // the server can't do it now (journal failed, draining, no worker)
  kBusy,                   // the resource is in use by another process
  kConversationLocked,     // the conversation has a turn in flight, and turns don't queue here
  kConflict,               // the thing's state doesn't allow it; trying again changes nothing
  kUpstream,       // another server that was to answer failed, and nobody can go on from there
  kLoop,           // the request came back to a server that it had passed
  kIo,             // the operating system refused
  kCorruption,     // stored bytes are not what was written
  kLostInSalvage,  // damage of the journal took a part of the request
  kCancelled,      // the request was cancelled
  kExpired,        // the request's deadline passed
  kDead,           // the request used up its attempts
  kInternal,       // a fault of ours
};

struct Error {
  Code code = Code::kInternal;
  std::string message;     // one sentence: what happened, and what to do about it
  std::string param = {};  // the offending field, for kInvalidArgument
  int retry_after_ms = 0;  // for kQueueFull and kUnavailable: when to try again
};

template <typename T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
  Result(Error error) : std::expected<T, Error>(std::unexpected(std::move(error))) {}  // NOLINT
};

template <>
class [[nodiscard]] Result<void> : public std::expected<void, Error> {
 public:
  using std::expected<void, Error>::expected;
  Result(Error error) : std::expected<void, Error>(std::unexpected(std::move(error))) {}  // NOLINT
};

using Status = Result<void>;

// The stable lower-case name of a code ("queue_full"), as it appears in logs and records.
std::string_view code_name(Code code);
// The reverse; kInternal for a name that is not known.
Code code_from_name(std::string_view name);
// The HTTP status that answers a request refused with this code.
int http_status(Code code);
// The process exit code (sysexits.h values) of a command that failed with this code.
int exit_code(Code code);

}  // namespace waystation
