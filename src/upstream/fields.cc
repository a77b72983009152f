#include "upstream/fields.h"

#include <array>
#include <bit>
#include <boost/json.hpp>
#include <cstdint>
#include <cstring>

namespace waystation::upstream {
namespace {

namespace json = boost::json;

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

}  // namespace

const json::object* object_at(const json::object& from, std::string_view name) {
  const json::value* value = from.if_contains(name);
  return value == nullptr ? nullptr : value->if_object();
}

const json::array* array_at(const json::object& from, std::string_view name) {
  const json::value* value = from.if_contains(name);
  return value == nullptr ? nullptr : value->if_array();
}

std::string_view string_at(const json::object& from, std::string_view name) {
  const json::value* value = from.if_contains(name);
  const json::string* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::string_view() : std::string_view(*text);
}

double number_of(const json::value& value, double otherwise) {
  if (const auto* number = value.if_int64()) return static_cast<double>(*number);
  if (const auto* number = value.if_uint64()) return static_cast<double>(*number);
  if (const auto* number = value.if_double()) return *number;
  return otherwise;
}

double number_at(const json::object& from, std::string_view name, double otherwise) {
  const json::value* value = from.if_contains(name);
  return value == nullptr ? otherwise : number_of(*value, otherwise);
}

std::string token_bytes(const json::object& from) {
  const json::array* bytes = array_at(from, "bytes");
  if (bytes == nullptr) return std::string(string_at(from, "token"));
  std::string out;
  out.reserve(bytes->size());
  for (const json::value& byte : *bytes) {
    out.push_back(static_cast<char>(static_cast<int>(number_of(byte)) & 0xff));
  }
  return out;
}

Result<std::string> read_vector(const json::object& item) {
  static_assert(std::endian::native == std::endian::little);
  const auto bad = [](const char* what) { return Error{Code::kInvalidArgument, what}; };
  std::string out;
  const json::value* vector = item.if_contains("embedding");
  if (vector == nullptr) return bad("an item without an embedding");
  if (const json::string* text = vector->if_string()) {
    if (!decode_base64(*text, out) || out.size() % sizeof(float) != 0) {
      return bad("an embedding that is no base64 of 32-bit numbers");
    }
  } else if (const json::array* numbers = vector->if_array()) {
    out.resize(numbers->size() * sizeof(float));
    for (std::size_t i = 0; i < numbers->size(); ++i) {
      if (!(*numbers)[i].is_number()) return bad("an embedding with something that is no number");
      const auto value = static_cast<float>(number_of((*numbers)[i]));
      std::memcpy(out.data() + i * sizeof(float), &value, sizeof(float));
    }
  }
  if (out.empty()) return bad("an embedding without numbers");
  return out;
}

}  // namespace waystation::upstream
