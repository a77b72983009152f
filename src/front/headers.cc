#include "front/headers.h"

#include <algorithm>
#include <charconv>

#include "base/sha256.h"
#include "front/deps.h"
#include "message/json.h"

namespace waystation::front {
namespace {

constexpr std::size_t kKeyBytesMax = 255;
constexpr std::size_t kConversationBytesMax = 256;
constexpr std::size_t kTraceparentBytesMax = 128;
constexpr std::size_t kTracestateBytesMax = 512;
constexpr const char* kHops = "X-Waystation-Hops";
constexpr std::size_t kHopsBytesMax = 1024;
constexpr std::int64_t kDeadlineMsMax = 7LL * 24 * 3600 * 1000;
constexpr std::int64_t kCacheTtlSecondsMax = 30LL * 24 * 3600;

Error bad_header(const char* name, const std::string& what) {
  return {Code::kInvalidArgument, std::string("the header ") + name + " " + what, name};
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  });
  return out;
}

// A whole number from 1 to `most`; 0 when the header is absent.
Result<std::int64_t> number_header(const Request& request, const char* name, std::int64_t most,
                                   const char* unit) {
  if (!request.has_header(name)) return std::int64_t{0};
  const std::string_view text = request.header(name);
  std::int64_t number = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || ec != std::errc() || end != text.data() + text.size() || number < 1 ||
      number > most) {
    return bad_header(name, std::string("must be a whole number of ") + unit + " from 1 to " +
                                std::to_string(most));
  }
  return number;
}

// The directives that say something about answers kept for others; the rest is for caches between.
broker::CacheUse cache_use(std::string_view cache_control) {
  broker::CacheUse use = broker::CacheUse::kFull;
  const std::string directives = lower(cache_control);
  for (std::string_view rest = directives; !rest.empty();) {
    std::string_view directive = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(directive.size() + 1, rest.size()));
    directive.remove_prefix(std::min(directive.find_first_not_of(" \t"), directive.size()));
    directive = directive.substr(0, directive.find_first_of(" \t=;"));
    if (directive == "no-store") return broker::CacheUse::kNone;
    if (directive == "no-cache") use = broker::CacheUse::kRefresh;
  }
  return use;
}

Status read_cache(const Deps& deps, const Request& request, broker::PrepareOptions& out) {
  auto ttl_seconds = number_header(request, "X-Cache-TTL", kCacheTtlSecondsMax, "seconds");
  if (!ttl_seconds) return ttl_seconds.error();
  if (!deps.options.cache) return {};
  out.cache = cache_use(request.header("Cache-Control"));
  out.cache_ttl_ms = *ttl_seconds > 0 ? *ttl_seconds * 1000 : deps.options.cache_ttl_ms;
  return {};
}

Status read_on_dead(const Request& request, broker::PrepareOptions& out) {
  if (!request.has_header("X-On-Dead")) return {};
  const std::string value = lower(request.header("X-On-Dead"));
  if (value != "skip" && value != "block") {
    return bad_header("X-On-Dead", "must be skip or block");
  }
  out.block_on_dead = value == "block";
  return {};
}

// Whether the id is one of "ID, ID".
bool passed(std::string_view hops, std::string_view id) {
  while (!hops.empty()) {
    std::string_view hop = hops.substr(0, hops.find(','));
    hops.remove_prefix(std::min(hop.size() + 1, hops.size()));
    hop.remove_prefix(std::min(hop.find_first_not_of(' '), hop.size()));
    if (!id.empty() && hop.substr(0, hop.find(' ')) == id) return true;
  }
  return false;
}

Error came_back(const std::string& hops) {
  return {
      Code::kLoop,
      "the request has come back to this server (it passed " + hops +
          "): a server that answers it by its upstream is that upstream's upstream, or its own; "
          "change the url of one of them",
      kHops};
}

}  // namespace

Result<std::string> text_header(const Request& request, const char* name, std::size_t bytes_max) {
  if (!request.has_header(name)) return std::string();
  const std::string_view value = request.header(name);
  if (value.empty()) return bad_header(name, "must not be empty");
  if (value.size() > bytes_max) {
    return bad_header(name, "is longer than " + std::to_string(bytes_max) + " bytes");
  }
  const bool printable = std::all_of(value.begin(), value.end(),
                                     [](unsigned char c) { return c >= 0x20 && c < 0x7f; });
  if (!printable) return bad_header(name, "may hold printable ASCII characters only");
  return std::string(value);
}

Result<bool> flag_header(const Request& request, const char* name) {
  if (!request.has_header(name)) return false;
  const std::string value = lower(request.header(name));
  if (value == "true" || value == "1") return true;
  if (value == "false" || value == "0") return false;
  return bad_header(name, "must be true or false");
}

Result<store::KeyUse> read_key_use(const Request& request, std::string_view route) {
  auto key = text_header(request, "Idempotency-Key", kKeyBytesMax);
  if (!key) return key.error();
  if (key->empty()) return store::KeyUse{};
  auto canonical = message::canonical_json(request.body.empty() ? "{}" : request.body);
  if (!canonical) return canonical.error();
  return store::KeyUse{std::move(*key), sha256("POST " + std::string(route) + "\n" + *canonical)};
}

Result<broker::PrepareOptions> read_prepare_options(const Deps& deps, const Request& request) {
  broker::PrepareOptions out;
  out.tenant = request.tenant;
  out.now_ms = deps.clock.wall_ms();
  auto key = text_header(request, "Idempotency-Key", kKeyBytesMax);
  if (!key) return key.error();
  out.idempotency_key = std::move(*key);
  auto conversation = text_header(request, "X-Conversation-Id", kConversationBytesMax);
  if (!conversation) return conversation.error();
  out.conversation = std::move(*conversation);
  auto resumable = flag_header(request, "X-Resumable");
  if (!resumable) return resumable.error();
  if (request.has_header("X-Resumable")) out.resumable = *resumable;
  auto wait_ms = number_header(request, "X-Deadline-Ms", kDeadlineMsMax, "milliseconds");
  if (!wait_ms) return wait_ms.error();
  if (*wait_ms > 0) out.expiry_ms = out.now_ms + *wait_ms;
  if (auto status = read_on_dead(request, out); !status) return status.error();
  if (auto status = read_cache(deps, request, out); !status) return status.error();
  auto hops = text_header(request, kHops, kHopsBytesMax);
  if (!hops) return hops.error();
  out.hops = std::move(*hops);
  if (passed(out.hops, deps.options.instance)) return came_back(out.hops);
  // Trace context is passed on, never a reason to refuse.
  if (auto parent = text_header(request, "traceparent", kTraceparentBytesMax)) {
    out.traceparent = std::move(*parent);
    if (auto state = text_header(request, "tracestate", kTracestateBytesMax)) {
      out.tracestate = std::move(*state);
    }
  }
  return out;
}

}  // namespace waystation::front
