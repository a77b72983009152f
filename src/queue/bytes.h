// Numbers and texts in records and checkpoints of queues: single bytes, little-endian fixed
// numbers, and LEB128 varints as protobuf has them; a text is its length as a varint and its bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace waystation::queue {

class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}

  void u8(std::uint8_t value) { out_.push_back(static_cast<char>(value)); }
  void u64(std::uint64_t value) {
    const std::size_t at = out_.size();
    out_.resize(at + 8);
    put_u64(out_, at, value);
  }
  void varint(std::uint64_t value) {
    while (value >= 0x80) {
      u8(static_cast<std::uint8_t>(value | 0x80));
      value >>= 7;
    }
    u8(static_cast<std::uint8_t>(value));
  }
  void text(std::string_view text) {
    varint(text.size());
    out_ += text;
  }

  void raw(std::string_view bytes) { out_ += bytes; }

  static void put_u64(std::string& out, std::size_t at, std::uint64_t value) {
    for (std::size_t i = 0; i < 8; ++i) out[at + i] = static_cast<char>(value >> (8 * i));
  }

 private:
  std::string& out_;
};

// After the first thing that isn't there, good() is false and everything reads as nothing.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  bool good() const { return good_; }
  bool at_end() const { return !good_ || at_ == bytes_.size(); }
  std::size_t offset() const { return at_; }
  void fail() { good_ = false; }

  std::uint8_t u8() {
    if (!has(1)) return 0;
    return static_cast<std::uint8_t>(bytes_[at_++]);
  }
  std::uint64_t u64() {
    if (!has(8)) return 0;
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < 8; ++i) value |= std::uint64_t{u8()} << (8 * i);
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = u8();
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) return value;
    }
    fail();
    return 0;
  }
  // Milliseconds that can be added to without harm.
  std::int64_t time() { return time(varint()); }
  std::int64_t time(std::uint64_t value) {
    if (value >= std::uint64_t{1} << 62) fail();
    return good_ ? static_cast<std::int64_t>(value) : 0;
  }
  std::string_view text() {
    const std::uint64_t size = varint();
    if (!has(size)) return {};
    const std::string_view text = bytes_.substr(at_, size);
    at_ += size;
    return text;
  }
  std::string_view rest() {
    if (!good_) return {};
    return bytes_.substr(std::exchange(at_, bytes_.size()));
  }

 private:
  bool has(std::uint64_t size) {
    good_ = good_ && size <= bytes_.size() - at_;
    return good_;
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
  bool good_ = true;
};

}  // namespace waystation::queue
