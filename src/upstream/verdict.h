// What an upstream's refusal means for the request, and for the upstream. Pure.
#pragma once

#include <boost/json/fwd.hpp>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"

namespace waystation::upstream {

struct Refusal {
  int status = 0;
  std::string_view retry_after;     // the header's value; empty when it isn't there
  std::string_view retry_after_ms;  // likewise
  std::string_view body;
};

struct Verdict {
  // Above 0: nothing is wrong with the request; the upstream wants to be left alone so long.
  TimeMs pause_ms = 0;
  Error error;             // unless pause_ms: how the attempt ends
  bool counts = false;     // one more failure of the upstream
  bool opens = false;      // no other call can go better: the circuit opens at once
  bool unreached = false;  // the upstream never saw the request, which goes back as it was
};

// `name` is the upstream's; `wall_ms` now.
Verdict judge(const std::string& name, const Refusal& refusal, TimeMs wall_ms);

// An error object in the midst of a stream, or in an answer with status 200: the upstream's
// message, with kInvalidArgument, kContextLengthExceeded or kLoop when it says that the request is
// at fault; else kUnavailable, as the rest of a sentence that begins with the upstream's name.
Error error_sent(const boost::json::value& error);

// Seconds, or an HTTP date; 0 when it is neither, or in the past. At most kPauseMaxMs.
TimeMs parse_retry_after(std::string_view value, TimeMs wall_ms);

inline constexpr TimeMs kPauseMaxMs = 600'000;
inline constexpr TimeMs kPauseDefaultMs = 1'000;  // "too many requests", without a time

}  // namespace waystation::upstream
