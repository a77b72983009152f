// What the fuzz targets share: a promise that ends the program, an input taken apart, and cutting
// bytes into pieces. A target is one file with LLVMFuzzerTestOneInput; libFuzzer calls it with what
// it makes up, replay.cc with what was kept. docs/testing.md tells what each target asserts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace waystation::fuzz {

// Says what was broken and aborts.
[[noreturn]] void broken(const char* file, int line, const char* promise, std::string_view detail);

// No log lines, ours or protobuf's: most inputs are wrong, and that is as it should be.
void be_quiet();

// Of a refusal that people and clients see: a closed set of codes, and texts that can be shown.
void require_sayable(const Error& error);

// An input, taken from its front. What isn't there reads as nothing.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : rest_(reinterpret_cast<const char*>(data), size) {}
  explicit Input(std::string_view bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  std::uint8_t u8();
  std::uint16_t u16();  // little-endian
  // A u16 and so many bytes, or what is left of them.
  std::string_view block();
  // Up to the next '\n', which is taken and not given.
  std::string_view line();
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

// What Input::block reads; for those who make inputs.
void append_block(std::string& out, std::string_view bytes);

// Cuts `bytes` into pieces, most of them small, as `seed` says, and gives each to `take` until it
// gives false.
template <typename Take>
void in_pieces(std::string_view bytes, std::uint64_t seed, Take take) {
  for (std::uint64_t state = seed; !bytes.empty();) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const std::uint64_t dice = state >> 33;
    const std::size_t most = dice % 4 == 0 ? 64 : 4;
    const std::size_t size = 1 + (dice >> 2) % most;
    if (!take(bytes.substr(0, size))) return;
    bytes.remove_prefix(size < bytes.size() ? size : bytes.size());
  }
}

}  // namespace waystation::fuzz

// A promise of the code under test. The detail is made only when it is broken.
#define REQUIRE(condition, detail)                                                          \
  do {                                                                                      \
    if (!(condition)) [[unlikely]]                                                          \
      ::waystation::fuzz::broken(__FILE__, __LINE__, #condition, std::string_view(detail)); \
  } while (false)
