#include "stream/render/logprobs.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "base/utf8.h"
#include "message/json.h"

namespace waystation::stream {
namespace {

using message::append_json_string;

// A token's text; the bytes of one that is a part of a character only are spelled out: "\xe4\xbd".
std::string shown(std::string_view token, std::string_view prefix) {
  if (is_utf8(token)) return std::string(token);
  constexpr char kHex[] = "0123456789abcdef";
  std::string out(prefix);
  for (const char c : token) {
    out += "\\x";
    out.push_back(kHex[static_cast<unsigned char>(c) >> 4]);
    out.push_back(kHex[static_cast<unsigned char>(c) & 15]);
  }
  return out;
}

void append_token(std::string& out, const std::string& token, float logprob) {
  out += "\"token\":";
  append_json_string(out, shown(token, ""));
  out += ",\"logprob\":";
  append_float(out, logprob);
  out += ",\"bytes\":[";
  for (const char& c : token) {
    if (&c != token.data()) out += ",";
    out += std::to_string(static_cast<unsigned char>(c));
  }
  out += "]";
}

void append_item(std::string& list, std::string_view item) {
  if (!list.empty()) list += ",";
  list += item;
}

// Characters that begin in the token; one that is a part of a character may have none.
std::size_t characters(std::string_view token) {
  return static_cast<std::size_t>(std::count_if(token.begin(), token.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

}  // namespace

void append_float(std::string& out, float value) {
  if (!std::isfinite(value)) {
    out += "-9999.0";
    return;
  }
  char digits[32];
  const auto [end, ec] = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, end);
}

void append_chat_logprob(std::string& out, const v1::TokenLogprob& token) {
  out += "{";
  append_token(out, token.token(), token.logprob());
  out += ",\"top_logprobs\":[";
  for (int i = 0; i < token.top_size(); ++i) {
    out += i == 0 ? "{" : ",{";
    append_token(out, token.top(i).token(), token.top(i).logprob());
    out += "}";
  }
  out += "]}";
}

void append_chat_logprobs(std::string& out, const v1::Event& event) {
  for (int i = 0; i < event.logprobs_size(); ++i) {
    if (i > 0) out += ",";
    append_chat_logprob(out, event.logprobs(i));
  }
}

void LegacyLogprobs::add(const v1::TokenLogprob& token, std::size_t& offset) {
  append_item(tokens_, message::json_string(shown(token.token(), "bytes:")));
  std::string number;
  append_float(number, token.logprob());
  append_item(logprobs_, number);
  append_item(offsets_, std::to_string(offset));
  offset += characters(token.token());

  // An object has each name once, and the token that was taken is always in it.
  std::vector<std::string> names;
  std::string top = "{";
  const auto add_candidate = [&](const std::string& bytes, float logprob) {
    std::string name = shown(bytes, "bytes:");
    if (std::find(names.begin(), names.end(), name) != names.end()) return;
    if (!names.empty()) top += ",";
    append_json_string(top, name);
    top += ":";
    append_float(top, logprob);
    names.push_back(std::move(name));
  };
  for (const v1::TokenCandidate& candidate : token.top()) {
    add_candidate(candidate.token(), candidate.logprob());
  }
  add_candidate(token.token(), token.logprob());
  append_item(top_, top + "}");
}

void LegacyLogprobs::append_json(std::string& out) const {
  out += "{\"tokens\":[" + tokens_ + "],\"token_logprobs\":[" + logprobs_ + "],\"top_logprobs\":[" +
         top_ + "],\"text_offset\":[" + offsets_ + "]}";
}

}  // namespace waystation::stream
