// Random numbers by position, so that the same ones can be had again from any point on.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace waystation::engine {

// The SplitMix64 generator at position `index`.
inline std::uint64_t random_at(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// In [0, 1).
inline double uniform(std::uint64_t random) {
  return static_cast<double>(random >> 11) * 0x1.0p-53;
}

// Of Gumbel's distribution. With one added to each logit, the largest sum is that of token i as
// often as the softmax says (Gumbel, Statistical Theory of Extreme Values, 1954), also among any of
// the tokens alone.
inline float gumbel(std::uint64_t random) {
  // Neither 0 nor 1: those have no finite logarithm.
  const auto between = static_cast<float>(uniform(random) + 0x1.0p-54);
  return -std::log(-std::log1p(-std::min(between, 0x1.fffffep-1F)));
}

}  // namespace waystation::engine
