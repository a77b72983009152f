// What the vocabulary's tokens begin with. Immutable.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include <llama.h>

namespace waystation::engine {

struct FirstBytes {
  // Ends of the answer, and tokens that are no text.
  static constexpr std::uint16_t kNone = 256;

  std::vector<std::uint16_t> of_token;
  // The token that is this byte and nothing else, or LLAMA_TOKEN_NULL.
  std::array<llama_token, 256> alone;

  explicit FirstBytes(const llama_vocab* vocab);
};

}  // namespace waystation::engine
