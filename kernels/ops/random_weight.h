// Random weights, the same numbers on every backend: each a function of a counter, so that any
// part of a tensor can be made by itself.
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"

namespace tessera::kernels {

/// SplitMix64 (Steele, Lea, Flood 2014): a random word for every value of a counter.
[[nodiscard]] constexpr uint64_t random_word(uint64_t counter) noexcept {
  uint64_t z = counter * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

/// Uniform in [-1, 1) with 24 bits.
[[nodiscard]] constexpr float random_unit(uint64_t counter) noexcept {
  const auto bits = static_cast<int32_t>(random_word(counter) >> 40);
  return static_cast<float>(bits - (1 << 23)) / static_cast<float>(1 << 23);
}

/// The same as a part of a float8_e4m3: times half of the largest, rounded.
inline constexpr float kRandomFloat8 = 224.0F;
[[nodiscard]] inline uint8_t random_float8(uint64_t counter) noexcept {
  return float8_e4m3_from_float(kRandomFloat8 * random_unit(counter));
}
/// What scales these to numbers of `half_width`.
[[nodiscard]] constexpr float random_float8_scale(float half_width) noexcept {
  return half_width / kRandomFloat8;
}

/// Rows of a random matrix, one after another: element i is `half_width` random_unit(counter + i),
/// rounded to bfloat16.
struct RandomRows {
  uint64_t counter = 0;
  int64_t rows = 0;
  float half_width = 0.0F;
};

}  // namespace tessera::kernels
