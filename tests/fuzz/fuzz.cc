#include "fuzz/fuzz.h"

#include <google/protobuf/stubs/logging.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/utf8.h"

namespace waystation::fuzz {

void broken(const char* file, int line, const char* promise, std::string_view detail) {
  std::fprintf(stderr, "%s:%d: broken promise: %s\n%.*s\n", file, line, promise,
               static_cast<int>(std::min<std::size_t>(detail.size(), 4096)), detail.data());
  std::abort();
}

void be_quiet() {
  static const bool quiet = [] {
    spdlog::set_level(spdlog::level::off);
    google::protobuf::SetLogHandler(nullptr);
    return true;
  }();
  (void)quiet;
}

void require_sayable(const Error& error) {
  REQUIRE(!code_name(error.code).empty(), error.message);
  REQUIRE(error.code != Code::kInternal, error.message);
  REQUIRE(!error.message.empty(), code_name(error.code));
  REQUIRE(is_utf8(error.message), error.message);
  REQUIRE(is_utf8(error.param), error.param);
}

std::uint8_t Input::u8() {
  if (rest_.empty()) return 0;
  const auto value = static_cast<std::uint8_t>(rest_.front());
  rest_.remove_prefix(1);
  return value;
}

std::uint16_t Input::u16() {
  const std::uint16_t low = u8();
  return static_cast<std::uint16_t>(low | u8() << 8);
}

std::string_view Input::block() {
  const std::size_t asked = u16();  // before what is left is looked at
  const std::size_t size = std::min(asked, rest_.size());
  const std::string_view bytes = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return bytes;
}

std::string_view Input::line() {
  const std::string_view line = rest_.substr(0, rest_.find('\n'));
  rest_.remove_prefix(std::min(line.size() + 1, rest_.size()));
  return line;
}

void append_block(std::string& out, std::string_view bytes) {
  const std::size_t size = std::min<std::size_t>(bytes.size(), 0xffff);
  out.push_back(static_cast<char>(size));
  out.push_back(static_cast<char>(size >> 8));
  out += bytes.substr(0, size);
}

}  // namespace waystation::fuzz
