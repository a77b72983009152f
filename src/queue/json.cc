#include "queue/json.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <initializer_list>

#include "base/nearest.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "message/json.h"
#include "queue/base64.h"

namespace waystation::queue {
namespace {

using boost::json::object;
using boost::json::value;
using message::append_json_string;

constexpr std::size_t kLaneBytesMax = 256;
constexpr std::size_t kReasonBytesMax = 1024;
constexpr std::size_t kIdsMax = 10'000;
constexpr TimeMs kTimeMsMax = 365ll * 24 * 3600 * 1000;
constexpr TimeMs kLeaseMsMax = 12ll * 3600 * 1000;
constexpr TimeMs kWaitMsMax = 60'000;
constexpr std::int64_t kLeaseMessagesMax = 1'000;
constexpr std::int64_t kAttemptsMost = 200;
constexpr std::size_t kLeaseBytes = 4u << 20;

Error invalid(const std::string& param, const std::string& what) {
  return Error{Code::kInvalidArgument, param + " " + what, param};
}

// A body's members, with refusals that name them.
class Members {
 public:
  Members(const object& from, std::string prefix) : from_(from), prefix_(std::move(prefix)) {}

  std::string param(std::string_view name) const { return prefix_ + std::string(name); }
  const value* find(std::string_view name) const {
    const value* found = from_.if_contains(name);
    return found == nullptr || found->is_null() ? nullptr : found;
  }

  // kInvalidArgument for a member that isn't one of these.
  Status only(std::initializer_list<const char*> known) const {
    for (const auto& member : from_) {
      const std::string name(member.key());
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      const std::vector<std::string> names(known.begin(), known.end());
      return invalid(param(utf8_prefix(name, 64)),
                     "is not known here; did you mean '" + nearest_name(name, names) + "'?");
    }
    return {};
  }
  Result<std::int64_t> integer(std::string_view name, std::int64_t low, std::int64_t high,
                               std::int64_t otherwise) const {
    const value* found = find(name);
    if (found == nullptr) return otherwise;
    if (found->is_int64() && found->get_int64() >= low && found->get_int64() <= high) {
      return found->get_int64();
    }
    return invalid(param(name), "must be a whole number from " + std::to_string(low) + " to " +
                                    std::to_string(high));
  }
  Result<std::string> text(std::string_view name, std::size_t bytes_max) const {
    const value* found = find(name);
    if (found == nullptr) return std::string();
    if (found->is_string() && found->get_string().size() <= bytes_max) {
      return std::string(found->get_string());
    }
    return invalid(param(name),
                   "must be a string of at most " + std::to_string(bytes_max) + " bytes");
  }
  // A number, as JavaScript can't hold all of them also as a string of digits.
  Result<std::uint64_t> number(std::string_view name) const {
    const value* found = find(name);
    if (found == nullptr) return invalid(param(name), "is missing");
    return number_of(*found, param(name));
  }
  static Result<std::uint64_t> number_of(const value& from, const std::string& param) {
    if (from.is_int64() && from.get_int64() > 0) {
      return static_cast<std::uint64_t>(from.get_int64());
    }
    if (from.is_string()) {
      const std::string_view digits = from.get_string();
      std::uint64_t number = 0;
      const auto [end, ec] = std::from_chars(digits.begin(), digits.end(), number);
      if (ec == std::errc() && end == digits.end() && number > 0) return number;
    }
    return invalid(param, "must be a whole number above 0, or a string of its digits");
  }
  Result<std::vector<MessageId>> ids() const {
    std::vector<MessageId> ids;
    const value* found = find("ids");
    if (found == nullptr) return ids;
    if (!found->is_array() || found->get_array().empty() || found->get_array().size() > kIdsMax) {
      return invalid(param("ids"), "must be an array of 1 to 10000 message ids");
    }
    for (const value& each : found->get_array()) {
      const auto id = number_of(each, param("ids"));
      if (!id) return id.error();
      ids.push_back(*id);
    }
    return ids;
  }

 private:
  const object& from_;
  const std::string prefix_;
};

// The object that a body is; nothing at all is an empty one.
Result<value> parse_object(std::string_view body, const std::string& what) {
  if (body.empty()) return value(object());
  boost::json::parse_options options;
  options.max_depth = message::kJsonDepthMax;
  boost::system::error_code bad;
  value parsed = boost::json::parse({body.data(), body.size()}, bad, {}, options);
  if (bad) return Error{Code::kInvalidArgument, what + " is no JSON: " + bad.message()};
  if (!parsed.is_object()) return Error{Code::kInvalidArgument, what + " must be a JSON object"};
  return parsed;
}

// The text of a JSON object's member as it was sent: to parse it and write it again would change
// numbers that no double holds, and drop members of the same name. `object` is valid JSON. Of
// several the last counts, as for the parser.
std::string_view member_text(std::string_view object, std::string_view name) {
  constexpr std::string_view kSpace = " \t\r\n";
  std::string_view found;
  std::string key;
  std::size_t begin = 0;  // of what stands before the next ':' or ',' of the object itself
  int depth = 0;
  for (std::size_t at = 0; at < object.size(); ++at) {
    const char c = object[at];
    if (c == '"') {
      while (object[++at] != '"') at += object[at] == '\\' ? 1 : 0;
    } else if (c == '{' || c == '[') {
      if (++depth == 1) begin = at + 1;
    }
    const bool ends = (c == '}' || c == ']') && --depth == 0;
    if (depth > 1 || (!ends && (depth != 1 || (c != ':' && c != ',')))) continue;
    std::string_view text = object.substr(begin, at - begin);
    text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    text = text.substr(0, text.find_last_not_of(kSpace) + 1);
    if (c == ':') {
      key = boost::json::value_to<std::string>(boost::json::parse({text.data(), text.size()}));
    } else if (key == name && !text.empty()) {
      found = text;
    }
    begin = at + 1;
  }
  return found;
}

// `text`: of the whole object.
Result<std::string> payload_of(const Members& body, std::string_view text) {
  const value* payload = body.find("payload");
  const value* base64 = body.find("payload_base64");
  if ((payload == nullptr) == (base64 == nullptr)) {
    return invalid(body.param("payload"), "must be there, or payload_base64 instead, but not both");
  }
  if (payload != nullptr && payload->is_string()) return std::string(payload->get_string());
  if (payload != nullptr) return std::string(member_text(text, "payload"));
  auto bytes = base64->is_string() ? base64_decode(base64->get_string()) : std::nullopt;
  if (bytes) return std::move(*bytes);
  return invalid(body.param("payload_base64"), "must be a string in base64");
}

Result<MessageOptions> options_of(const Members& body, TimeMs now_ms) {
  MessageOptions options;
  auto lane = body.text("lane", kLaneBytesMax);
  if (!lane) return lane.error();
  options.lane = std::move(*lane);
  auto priority = body.text("priority", 16);
  if (!priority) return priority.error();
  if (*priority == "low") {
    options.priority = Priority::kLow;
  } else if (*priority == "high") {
    options.priority = Priority::kHigh;
  } else if (body.find("priority") != nullptr && *priority != "normal") {
    return invalid(body.param("priority"), "must be 'low', 'normal' or 'high'");
  }
  const auto delay = body.integer("delay_ms", 0, kTimeMsMax, 0);
  if (!delay) return delay.error();
  if (*delay > 0) options.not_before_ms = now_ms + *delay;
  const auto ttl = body.integer("ttl_ms", 1, kTimeMsMax, 0);
  if (!ttl) return ttl.error();
  const auto deadline = body.integer("deadline_ms", 1, 1ll << 50, 0);
  if (!deadline) return deadline.error();
  if (*ttl > 0 && *deadline > 0) {
    return invalid(body.param("ttl_ms"), "and deadline_ms say the same; send one of them");
  }
  if (*deadline > 0 && *deadline <= now_ms) {
    return invalid(body.param("deadline_ms"), "is past; it is a time in milliseconds since 1970");
  }
  options.deadline_ms = *ttl > 0 ? now_ms + *ttl : *deadline;
  return options;
}

Status add_message(std::string_view text, const std::string& prefix, TimeMs now_ms,
                   std::string& payloads, std::vector<MessageOptions>& options) {
  const std::string what = prefix.substr(0, prefix.find('.'));  // "lines[3]"
  auto parsed = parse_object(text, what.empty() ? "the body" : what);
  if (!parsed) return parsed.error();
  const Members body(parsed->get_object(), prefix);
  if (auto known = body.only(
          {"payload", "payload_base64", "lane", "priority", "delay_ms", "ttl_ms", "deadline_ms"});
      !known) {
    return known;
  }
  auto payload = payload_of(body, text);
  if (!payload) return payload.error();
  auto given = options_of(body, now_ms);
  if (!given) return given.error();
  append_payload(payloads, *payload);
  options.push_back(std::move(*given));
  return {};
}

Result<Publication> publication(std::string_view body, std::string payloads,
                                std::vector<MessageOptions> options) {
  auto payload = Payload::parse(std::move(payloads));
  if (!payload) return payload.error();
  const bool alike = std::all_of(options.begin(), options.end(),
                                 [&](const auto& each) { return each == options.front(); });
  if (alike) options.resize(options.front() == MessageOptions{} ? 0 : 1);
  return Publication{std::move(*payload), std::move(options), {}, sha256(body)};
}

void append_payload_json(std::string& out, std::string_view payload) {
  if (is_utf8(payload)) {
    out += "\"payload\":";
    append_json_string(out, payload);
  } else {
    out += "\"payload_base64\":\"" + base64_encode(payload) + "\"";
  }
}

std::string text_or_null(std::string_view text) {
  return text.empty() ? "null" : message::json_string(text);
}

}  // namespace

Result<Publication> parse_message(std::string_view body, TimeMs now_ms) {
  std::string payloads;
  std::vector<MessageOptions> options;
  if (auto added = add_message(body, "", now_ms, payloads, options); !added) return added.error();
  return publication(body, std::move(payloads), std::move(options));
}

Result<Publication> parse_messages(std::string_view lines, TimeMs now_ms) {
  std::string payloads;
  std::vector<MessageOptions> options;
  std::size_t number = 0;
  for (std::string_view rest = lines; !rest.empty();) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const std::string prefix = "lines[" + std::to_string(number++) + "].";
    if (line.empty()) continue;
    if (options.size() == kFrameMessagesMax) {
      return Error{Code::kInvalidArgument, "one call may publish at most 16384 messages"};
    }
    if (auto added = add_message(line, prefix, now_ms, payloads, options); !added) {
      return added.error();
    }
  }
  if (options.empty()) {
    return Error{Code::kInvalidArgument, "the body has no line with a message", "payload"};
  }
  return publication(lines, std::move(payloads), std::move(options));
}

Result<LeaseRequest> parse_lease(std::string_view text) {
  auto parsed = parse_object(text, "the body");
  if (!parsed) return parsed.error();
  const Members body(parsed->get_object(), "");
  if (auto known = body.only({"max", "lease_ms", "wait_ms"}); !known) return known.error();
  const auto max = body.integer("max", 1, kLeaseMessagesMax, 1);
  if (!max) return max.error();
  const auto lease = body.integer("lease_ms", 1, kLeaseMsMax, 0);
  if (!lease) return lease.error();
  const auto wait = body.integer("wait_ms", 0, kWaitMsMax, 0);
  if (!wait) return wait.error();
  LeaseRequest request;
  request.how.window = request.how.batch_messages_max = static_cast<std::uint64_t>(*max);
  request.how.batch_bytes_max = kLeaseBytes;
  request.how.lease_ms = *lease;
  request.wait_ms = *wait;
  return request;
}

Result<Settle> parse_settle(Action action, std::string_view text) {
  auto parsed = parse_object(text, "the body");
  if (!parsed) return parsed.error();
  const Members body(parsed->get_object(), "");
  Settle settle{action, 0, {}, 0, {}};
  Status known;
  if (action == Action::kAck) known = body.only({"lease", "ids"});
  if (action == Action::kNack) known = body.only({"lease", "ids", "delay_ms", "reason"});
  if (action == Action::kExtend) known = body.only({"lease", "lease_ms"});
  if (action == Action::kTerminate) known = body.only({"lease", "ids", "reason"});
  if (!known) return known.error();
  const auto lease = body.number("lease");
  if (!lease) return lease.error();
  settle.lease = *lease;
  auto ids = body.ids();
  if (!ids) return ids.error();
  std::sort(ids->begin(), ids->end());
  for (const MessageId id : *ids) {
    if (!settle.ranges.empty() && settle.ranges.back().end() == id) {
      ++settle.ranges.back().count;
    } else {
      settle.ranges.push_back({id, 1});
    }
  }
  const bool extends = action == Action::kExtend;
  const auto ms = extends ? body.integer("lease_ms", 1, kLeaseMsMax, 30'000)
                          : body.integer("delay_ms", 0, kTimeMsMax, 0);
  if (!ms) return ms.error();
  settle.ms = *ms;
  auto reason = body.text("reason", kReasonBytesMax);
  if (!reason) return reason.error();
  settle.reason = std::move(*reason);
  return settle;
}

Result<std::vector<MessageId>> parse_ids(std::string_view text) {
  auto parsed = parse_object(text, "the body");
  if (!parsed) return parsed.error();
  const Members body(parsed->get_object(), "");
  if (auto known = body.only({"ids", "all"}); !known) return known.error();
  auto ids = body.ids();
  if (!ids) return ids;
  const value* all = body.find("all");
  const bool is_all = all != nullptr && all->is_bool() && all->get_bool();
  if (ids->empty() != is_all) {
    return invalid("ids", "must name the dead letters; for all of them send {\"all\":true}");
  }
  return ids;
}

Status parse_settings(std::string_view text, Settings& settings) {
  auto parsed = parse_object(text, "the body");
  if (!parsed) return parsed.error();
  const Members body(parsed->get_object(), "");
  if (auto known = body.only({"max_attempts", "lease_ms", "on_dead"}); !known) return known;
  const auto attempts = body.integer("max_attempts", 1, kAttemptsMost, settings.attempts_max);
  if (!attempts) return attempts.error();
  const auto lease = body.integer("lease_ms", 1, kLeaseMsMax, settings.lease_ms);
  if (!lease) return lease.error();
  const auto on_dead = body.text("on_dead", 16);
  if (!on_dead) return on_dead.error();
  if (!on_dead->empty() && *on_dead != "skip" && *on_dead != "block") {
    return invalid("on_dead", "must be 'skip' or 'block'");
  }
  settings.attempts_max = static_cast<std::uint32_t>(*attempts);
  settings.lease_ms = *lease;
  if (!on_dead->empty()) settings.dead_blocks = *on_dead == "block";
  return {};
}

std::string receipt_json(const Receipt& receipt) {
  return "{\"object\":\"queue.receipt\",\"id\":" + std::to_string(receipt.first) +
         ",\"count\":" + std::to_string(receipt.count) +
         ",\"duplicate\":" + (receipt.duplicate ? "true" : "false") + "}";
}

std::string taken_json(const Taken& taken) {
  std::string out = "{\"object\":\"queue.lease\",\"lease\":";
  if (taken.lease == 0) return out + "null,\"until_ms\":null,\"messages\":[]}";
  out += "\"" + std::to_string(taken.lease) + "\",\"until_ms\":" + std::to_string(taken.until_ms) +
         ",\"messages\":[";
  bool first = true;
  for (const Piece& piece : taken.pieces) {
    for (std::uint32_t i = 0; i < piece.count; ++i) {
      if (!first) out += ",";
      first = false;
      out += "{\"id\":" + std::to_string(piece.first + i) +
             ",\"attempt\":" + std::to_string(piece.attempt) +
             ",\"published_ms\":" + std::to_string(piece.published_ms) + ",";
      append_payload_json(out, piece.payload->message(piece.at + i));
      out += "}";
    }
  }
  return out + "]}";
}

std::string settled_json(std::uint64_t lease, TimeMs until_ms) {
  return "{\"object\":\"queue.settled\",\"lease\":\"" + std::to_string(lease) +
         "\",\"until_ms\":" + (until_ms == 0 ? "null" : std::to_string(until_ms)) + "}";
}

std::string info_json(const QueueInfo& info, TimeMs now_ms) {
  return "{\"object\":\"queue\",\"name\":" + message::json_string(info.name) +
         ",\"waiting\":" + std::to_string(info.waiting) +
         ",\"leased\":" + std::to_string(info.leased) + ",\"dead\":" + std::to_string(info.dead) +
         ",\"bytes\":" + std::to_string(info.bytes) +
         ",\"published\":" + std::to_string(info.published) + ",\"oldest_age_ms\":" +
         (info.oldest_ms == 0 ? "null"
                              : std::to_string(std::max<TimeMs>(0, now_ms - info.oldest_ms))) +
         ",\"max_attempts\":" + std::to_string(info.settings.attempts_max) +
         ",\"lease_ms\":" + std::to_string(info.settings.lease_ms) + ",\"on_dead\":\"" +
         (info.settings.dead_blocks ? "block" : "skip") + "\"}";
}

std::string letters_json(const std::vector<DeadMessage>& letters, bool has_more) {
  std::string out = "{\"object\":\"list\",\"data\":[";
  for (const DeadMessage& letter : letters) {
    if (&letter != &letters.front()) out += ",";
    const DeadEntry& entry = letter.entry;
    out += "{\"id\":" + std::to_string(entry.id) + ",\"reason\":" + text_or_null(entry.reason) +
           ",\"lane\":" + text_or_null(entry.lane) +
           ",\"attempts\":" + std::to_string(entry.attempts) +
           ",\"published_ms\":" + std::to_string(entry.published_ms) +
           ",\"died_ms\":" + std::to_string(entry.died_ms) + ",";
    if (letter.payload) {
      append_payload_json(out, *letter.payload);
    } else {
      out += "\"payload\":null";
    }
    out += "}";
  }
  return out + "],\"has_more\":" + (has_more ? "true" : "false") + "}";
}

}  // namespace waystation::queue
