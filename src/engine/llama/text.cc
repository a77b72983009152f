#include "engine/llama/text.h"

#include <algorithm>

#include "base/check.h"

namespace waystation::engine {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What a second byte may be after `lead`; the other bytes of a character are always 80..BF.
struct SecondByte {
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
};

SecondByte second_byte(unsigned char lead) {
  switch (lead) {
    case 0xE0:
      return {0xA0, 0xBF};  // no overlong forms
    case 0xED:
      return {0x80, 0x9F};  // no surrogates
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};  // nothing past U+10FFFF
    default:
      return {};
  }
}

// Bytes of the character that `lead` begins; 0 when it begins none.
std::size_t length_of(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// Of `text` from `at`: how many bytes form a valid (beginning of a) character there; 0 if none.
std::size_t valid_prefix(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t want = length_of(lead);
  if (want < 2) return want;
  const SecondByte second = second_byte(lead);
  std::size_t have = 1;
  while (have < want && at + have < text.size()) {
    const auto byte = static_cast<unsigned char>(text[at + have]);
    const bool good =
        have == 1 ? byte >= second.low && byte <= second.high : byte >= 0x80 && byte <= 0xBF;
    if (!good) break;
    ++have;
  }
  return have;
}

}  // namespace

void Utf8Decoder::push(std::string_view bytes, std::string& out) {
  std::string joined;
  std::string_view text = bytes;
  if (!partial_.empty()) {
    joined = std::move(partial_);
    joined += bytes;
    text = joined;
    partial_.clear();
  }
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t have = valid_prefix(text, at);
    if (have == 0) {
      out += kReplacement;
      ++at;
    } else if (have == length_of(static_cast<unsigned char>(text[at]))) {
      out += text.substr(at, have);
      at += have;
    } else if (at + have == text.size()) {
      partial_ = text.substr(at);
      return;
    } else {
      out += kReplacement;
      at += have;
    }
  }
}

void Utf8Decoder::finish(std::string& out) {
  if (!partial_.empty()) out += kReplacement;
  partial_.clear();
}

std::string TextAssembler::push(std::string_view piece) {
  CHECK(!stopped_);
  decoder_.push(piece, held_);
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  if (first != std::string::npos) {
    stopped_ = true;
    std::string text = release(first);
    held_.clear();
    return text;
  }
  // The longest tail that could still become a stop string stays back.
  std::size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
  }
  return release(held_.size() - keep);
}

std::string TextAssembler::finish() {
  if (stopped_) return {};
  decoder_.finish(held_);
  return release(held_.size());
}

std::string TextAssembler::release(std::size_t bytes) {
  std::string text = held_.substr(0, bytes);
  held_.erase(0, bytes);
  return text;
}

}  // namespace waystation::engine
