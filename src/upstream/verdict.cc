#include "upstream/verdict.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <ctime>

#include "upstream/fields.h"

namespace waystation::upstream {
namespace {

namespace json = boost::json;

constexpr std::size_t kMessageBytesMax = 2000;

// What {"error":{…}} says, in any of the forms that are about.
struct Said {
  std::string message;
  std::string param;
  std::string code;
  std::string type;
  int number = 0;  // of a numeric code
};

Said read_error(const json::value& error) {
  Said said;
  if (const json::string* text = error.if_string()) {
    said.message = cut(*text, kMessageBytesMax);
    return said;
  }
  const json::object* object = error.if_object();
  if (object == nullptr) return said;
  said.message = cut(string_at(*object, "message"), kMessageBytesMax);
  said.param = cut(string_at(*object, "param"), kMessageBytesMax);
  said.code = string_at(*object, "code");
  said.type = string_at(*object, "type");
  said.number = static_cast<int>(std::clamp(number_at(*object, "code"), 0.0, 999.0));
  return said;
}

Said read_body(std::string_view body) {
  json::error_code ec;
  json::parse_options options;
  options.max_depth = 32;
  const json::value value = json::parse(body, ec, {}, options);
  const json::object* root = ec ? nullptr : value.if_object();
  if (root == nullptr) return {};
  if (const json::value* error = root->if_contains("error")) return read_error(*error);
  return read_error(value);  // {"message":…} without a frame around it
}

bool says_too_long(const Said& said) {
  return said.code == "context_length_exceeded" || said.type == "exceed_context_size_error" ||
         said.type == "context_length_exceeded" ||
         said.message.find("maximum context length") != std::string::npos;
}

Error final_error(Code code, Said& said, const std::string& otherwise) {
  return Error{code, said.message.empty() ? otherwise : std::move(said.message),
               std::move(said.param)};
}

TimeMs pause_of(const Refusal& refusal, TimeMs wall_ms) {
  TimeMs ms = 0;
  const std::string_view text = refusal.retry_after_ms;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), ms);
  if (ec == std::errc() && ms > 0) return std::min(ms, kPauseMaxMs);
  return parse_retry_after(refusal.retry_after, wall_ms);
}

}  // namespace

TimeMs parse_retry_after(std::string_view value, TimeMs wall_ms) {
  double seconds = 0;
  const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  if (ec == std::errc() && end == value.data() + value.size()) {
    return seconds > 0
               ? static_cast<TimeMs>(std::min(seconds * 1000, static_cast<double>(kPauseMaxMs)))
               : 0;
  }
  std::tm parts{};
  if (::strptime(std::string(value).c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts) == nullptr) {
    return 0;
  }
  const TimeMs until_ms = static_cast<TimeMs>(::timegm(&parts)) * 1000;
  return std::clamp<TimeMs>(until_ms - wall_ms, 0, kPauseMaxMs);
}

Error error_sent(const json::value& error) {
  Said said = read_error(error);
  Code code = Code::kUnavailable;
  if (says_too_long(said)) {
    code = Code::kContextLengthExceeded;
  } else if (said.code == code_name(Code::kLoop)) {
    code = Code::kLoop;
  } else if (said.number == 400 || said.number == 422 || said.type == "invalid_request_error") {
    code = Code::kInvalidArgument;
  }
  if (said.message.empty()) return Error{code, "reported an error", std::move(said.param)};
  const bool names_itself = code == Code::kUnavailable;
  return Error{code, (names_itself ? "reported an error: " : "") + said.message,
               std::move(said.param)};
}

Verdict judge(const std::string& name, const Refusal& refusal, TimeMs wall_ms) {
  Said said = read_body(refusal.body);
  const int status = refusal.status;
  const std::string answered = name + " answered with status " + std::to_string(status);
  Verdict verdict;
  const bool out_of_money =
      status == 402 ||
      (status == 429 && (said.code == "insufficient_quota" || said.type == "insufficient_quota"));
  if (status == 401 || status == 403) {
    // Its own message may show a part of the key.
    verdict.error = {Code::kUpstream, name + " refused our key (status " + std::to_string(status) +
                                          "): check the key and what it may be used for"};
    verdict.opens = true;
  } else if (out_of_money) {
    verdict.error = {Code::kUpstream, name + " says that its account has no credit left"};
    verdict.opens = true;
  } else if (status == 429) {
    verdict.pause_ms = std::max<TimeMs>(pause_of(refusal, wall_ms), 0);
    if (verdict.pause_ms == 0) verdict.pause_ms = kPauseDefaultMs;
  } else if (status == 503 && pause_of(refusal, wall_ms) > 0) {
    verdict.pause_ms = pause_of(refusal, wall_ms);
  } else if (status == 413) {
    verdict.error = final_error(Code::kTooLarge, said, answered + ": the request is too large");
  } else if (status == 404) {
    const bool knows_api = !said.message.empty();
    verdict.error = knows_api ? final_error(Code::kModelNotFound, said, "")
                              : Error{Code::kUpstream, answered + ": check its url"};
  } else if (status == 400 || status == 422) {
    const Code code = says_too_long(said) ? Code::kContextLengthExceeded : Code::kInvalidArgument;
    verdict.error = final_error(code, said, answered + " and said nothing more");
  } else if (status == 508) {
    // Of a chain of servers each puts its upstream's name before it: the way of the request.
    verdict.error = {Code::kLoop, name + ": " + (said.message.empty() ? answered : said.message)};
  } else if (status >= 500 || status == 408 || status == 409) {
    verdict.error = {Code::kUnavailable,
                     answered + (said.message.empty() ? "" : ": " + said.message)};
    verdict.counts = true;
  } else {
    verdict.error = {Code::kUpstream, answered + (said.message.empty() ? "" : ": " + said.message)};
    verdict.counts = true;
  }
  return verdict;
}

}  // namespace waystation::upstream
