#include "upstream/answer_parts.h"

#include <array>
#include <bit>
#include <boost/json.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "upstream/fields.h"

namespace waystation::upstream {
namespace {

namespace json = boost::json;

constexpr std::uint32_t kTokensMax = 1'000'000'000;  // no answer has more
constexpr std::size_t kReasonShownMax = 100;

constexpr std::int8_t kNoDigit = -1;

constexpr std::array<std::int8_t, 256> make_digits() {
  std::array<std::int8_t, 256> digits{};
  digits.fill(kNoDigit);
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (std::size_t i = 0; i < kAlphabet.size(); ++i) {
    digits[static_cast<unsigned char>(kAlphabet[i])] = static_cast<std::int8_t>(i);
  }
  return digits;
}

constexpr std::array<std::int8_t, 256> kDigits = make_digits();

bool decode_base64(std::string_view text, std::string& out) {
  while (text.ends_with('=')) text.remove_suffix(1);
  out.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const std::int8_t digit = kDigits[static_cast<unsigned char>(c)];
    if (digit == kNoDigit) return false;
    bits = (bits << 6) | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>((bits >> count) & 0xff));
    }
  }
  return true;
}

// An infinite one where it is beyond a float's range, which is shown as "impossible".
float float_of(double number) {
  using Limits = std::numeric_limits<float>;
  if (std::abs(number) <= Limits::max()) return static_cast<float>(number);
  return number < 0 ? -Limits::infinity() : Limits::infinity();
}

float logprob_at(const json::object& from) {
  return float_of(number_at(from, "logprob"));
}

// A token of a logprobs entry: its "bytes" where it has them, else its text.
std::string token_bytes(const json::object& from) {
  const json::array* bytes = array_at(from, "bytes");
  if (bytes == nullptr) return std::string(string_at(from, "token"));
  std::string out;
  out.reserve(bytes->size());
  for (const json::value& byte : *bytes) {
    out.push_back(static_cast<char>(count_of(byte, 255).value_or('?')));
  }
  return out;
}

Error bad(std::string what) {
  return Error{Code::kUnavailable, std::move(what)};
}

Result<std::string> read_vector(const json::object& item) {
  static_assert(std::endian::native == std::endian::little);
  std::string out;
  const json::value* vector = item.if_contains("embedding");
  if (vector == nullptr) return bad("embedding is missing");
  if (const json::string* text = vector->if_string()) {
    if (!decode_base64(*text, out) || out.size() % sizeof(float) != 0) {
      return bad("embedding is no base64 of 32-bit numbers");
    }
  } else if (const json::array* numbers = vector->if_array()) {
    out.resize(numbers->size() * sizeof(float));
    for (std::size_t i = 0; i < numbers->size(); ++i) {
      if (!(*numbers)[i].is_number()) return bad("embedding holds something that is no number");
      const float value = float_of(number_of((*numbers)[i]));
      std::memcpy(out.data() + i * sizeof(float), &value, sizeof(float));
    }
  }
  if (out.empty()) return bad("embedding has no numbers");
  for (std::size_t at = 0; at < out.size(); at += sizeof(float)) {
    float value = 0;
    std::memcpy(&value, out.data() + at, sizeof(float));
    if (!std::isfinite(value)) return bad("embedding holds a number that no 32-bit one can hold");
  }
  return out;
}

}  // namespace

Result<std::string_view> finish_reason_of(std::string_view theirs) {
  using Named = std::pair<std::string_view, std::string_view>;
  constexpr std::array kReasons{
      Named{"stop", "stop"},
      Named{"length", "length"},
      Named{"tool_calls", "tool_calls"},
      Named{"content_filter", "content_filter"},
      Named{"function_call", "function_call"},
      Named{"eos", "stop"},
      Named{"eos_token", "stop"},
      Named{"end_turn", "stop"},
      Named{"stop_sequence", "stop"},
      Named{"max_tokens", "length"},
      Named{"model_length", "length"},
      Named{"tool_use", "tool_calls"},
  };
  for (const auto& [name, ours] : kReasons) {
    if (name == theirs) return ours;
  }
  return Error{Code::kUnavailable, "finish_reason is '" + cut(theirs, kReasonShownMax) +
                                       "': the answer was broken off"};
}

std::optional<v1::Usage> read_usage(const json::object& usage, bool completion_needed) {
  const auto count = [](const json::object& from, const char* name) {
    const json::value* value = from.if_contains(name);
    return value == nullptr ? std::nullopt : count_of(*value, kTokensMax);
  };
  const auto prompt = count(usage, "prompt_tokens");
  const auto completion = count(usage, "completion_tokens");
  if (!prompt || (completion_needed && !completion)) return std::nullopt;
  v1::Usage out;
  out.set_prompt_tokens(*prompt);
  out.set_completion_tokens(completion.value_or(0));
  if (const json::object* details = object_at(usage, "prompt_tokens_details")) {
    out.set_cached_prompt_tokens(count(*details, "cached_tokens").value_or(0));
  }
  if (const json::object* details = object_at(usage, "completion_tokens_details")) {
    out.set_reasoning_tokens(count(*details, "reasoning_tokens").value_or(0));
  }
  return out;
}

void read_chat_logprobs(const json::object& from, v1::Output& out) {
  const json::array* content = array_at(from, "content");
  if (content == nullptr) return;
  for (const json::value& item : *content) {
    const json::object* token = item.if_object();
    if (token == nullptr) continue;
    v1::TokenLogprob& logprob = *out.add_logprobs();
    logprob.set_token(token_bytes(*token));
    logprob.set_logprob(logprob_at(*token));
    const json::array* top = array_at(*token, "top_logprobs");
    if (top == nullptr) continue;
    for (const json::value& other : *top) {
      const json::object* candidate = other.if_object();
      if (candidate == nullptr) continue;
      v1::TokenCandidate& into = *logprob.add_top();
      into.set_token(token_bytes(*candidate));
      into.set_logprob(logprob_at(*candidate));
    }
  }
}

void read_legacy_logprobs(const json::object& from, v1::Output& out) {
  const json::array* tokens = array_at(from, "tokens");
  if (tokens == nullptr) return;
  const json::array* values = array_at(from, "token_logprobs");
  const json::array* tops = array_at(from, "top_logprobs");
  for (std::size_t i = 0; i < tokens->size(); ++i) {
    v1::TokenLogprob& logprob = *out.add_logprobs();
    if (const json::string* text = (*tokens)[i].if_string()) logprob.set_token(std::string(*text));
    if (values != nullptr && i < values->size()) {
      logprob.set_logprob(float_of(number_of((*values)[i])));
    }
    if (tops == nullptr || i >= tops->size()) continue;
    const json::object* top = (*tops)[i].if_object();
    if (top == nullptr) continue;
    for (const auto& [token, value] : *top) {
      v1::TokenCandidate& into = *logprob.add_top();
      into.set_token(std::string(token));
      into.set_logprob(float_of(number_of(value)));
    }
  }
}

Result<std::vector<std::string>> read_embeddings(const json::object& root) {
  auto data = array_in(root, "data");
  if (!data) return data.error();
  if (*data == nullptr || (*data)->empty()) return bad("it has no data");
  std::vector<std::string> vectors((*data)->size());
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    const json::object* item = (**data)[i].if_object();
    if (item == nullptr) return bad("data[" + std::to_string(i) + "] is no object");
    auto index = index_in(*item, "index", i, vectors.size());
    if (!index) return within(place_in("data", i), index.error());
    auto vector = read_vector(*item);
    if (!vector) return within(place_in("data", i), vector.error());
    if (!vectors[*index].empty()) {
      return bad("two embeddings have the index " + std::to_string(*index));
    }
    vectors[*index] = std::move(*vector);
  }
  return vectors;
}

}  // namespace waystation::upstream
