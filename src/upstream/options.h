// What an upstream is: an OpenAI-compatible server that answers instead of a worker of ours. Plain
// values, made by `app` from flags and the configuration file.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace waystation::upstream {

// One model: as our clients name it, and as the upstream does.
struct ModelRoute {
  std::string name;
  std::string theirs;  // empty: the same
  std::vector<std::string> tasks =
      {};                            // "chat", "completion", "embedding"; empty: chat, completion
  std::uint32_t context_length = 0;  // tokens, for show; 0: not known
  std::uint32_t embedding_length = 0;
};

// How it goes on from an answer that another one began.
enum class Continuation {
  kNone,     // not at all
  kPrefill,  // it takes an assistant's message as the beginning of its own answer
};

// Whether a continued answer begins with the prefilled text again.
enum class Echo {
  kAuto,   // found out; a beginning of less than kEchoBytesMin bytes is never taken for an echo
  kStrip,  // yes
  kKeep,   // no
};

struct Options {
  std::string name;  // 1 to 128 bytes; for logs, metrics and /v1/requests
  std::string url;   // "https://api.example.com/v1": calls go to URL/chat/completions and so on
  std::string key;   // sent as "Authorization: Bearer KEY"; empty: none
  std::vector<ModelRoute> models;
  std::uint32_t weight = 1;
  std::uint32_t rank = 0;
  std::uint32_t concurrency = 64;  // calls at once, so connections at most

  TimeMs connect_timeout_ms = 5'000;       // name, TCP and TLS together
  TimeMs first_byte_timeout_ms = 120'000;  // from the call to the first byte of a streamed answer
  TimeMs idle_timeout_ms = 60'000;         // between two pieces of an answer
  TimeMs answer_timeout_ms = 600'000;      // to the first byte of an answer that isn't streamed
  TimeMs total_timeout_ms = 3'600'000;     // for the whole of any answer

  std::string ca_file;  // certificates to trust instead of the system's (PEM)
  std::vector<std::pair<std::string, std::string>> headers;  // sent with every call
  std::vector<std::string> drop;  // members of the request's body that are not passed on
  bool always_stream = false;     // stream from it even when the client doesn't: survives more

  Continuation continuation = Continuation::kNone;
  // Members added to a body that continues an answer: name and JSON value.
  std::vector<std::pair<std::string, std::string>> continue_flags;
  Echo echo = Echo::kAuto;

  std::uint32_t breaker_failures = 5;  // in a row, then the circuit opens
  TimeMs probe_min_ms = 1'000;         // between two probes of an open circuit, doubling
  TimeMs probe_max_ms = 30'000;

  std::size_t answer_bytes_max = 64u << 20;  // of an answer that isn't streamed
  std::size_t event_bytes_max = 4u << 20;    // of one event of a stream
};

inline constexpr std::size_t kEchoBytesMin = 16;
inline constexpr std::size_t kBytesPerToken = 4;  // taken where the tokens of a text aren't known

// The parts of an upstream's address.
struct Url {
  bool tls = false;
  std::string host;  // without brackets
  std::string port;
  std::string path;       // no slash at the end; may be empty
  std::string authority;  // for the Host header
};

// kInvalidArgument unless it is http:// or https:// with a host, without user, query or fragment.
Result<Url> parse_url(const std::string& text);

// kInvalidArgument, with `param` naming the field, for values that can't work.
Status check_options(const Options& options);

}  // namespace waystation::upstream
