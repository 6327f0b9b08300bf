// The fixed signs +-1 of the probes of the latent cache: one a layer, position in the sequence and
// column, 64 columns to a word. Who writes a latent and who receives it each sum sign * value over
// what they believe it is: a wrong slice, layer or position makes independent signs of equal ones.
// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014
// (SplitMix64's increment and its finaliser, mix 13 of Stafford).
#pragma once

#include <cstdint>

namespace tessera::kernels {

struct ProbeSum {
  double sum = 0.0;        ///< of sign * value
  double magnitude = 0.0;  ///< of |value|: what a tolerance is a part of
};

inline constexpr int64_t kProbeWordColumns = 64;
/// Word of rope columns 0 to 63. Words below it are of latent columns, counted over all slices.
inline constexpr int64_t kProbeRopeWord = 1 << 15;

/// Bit c is set where column 64 * word + c of the token counts negatively. Layers and words below
/// 2^16 and positions below 2^32 have words of their own: the finaliser is a bijection.
[[nodiscard]] constexpr uint64_t probe_sign_word(int64_t layer,
                                                 int64_t position,
                                                 int64_t word) noexcept {
  uint64_t x = (static_cast<uint64_t>(layer) << 48U) ^ (static_cast<uint64_t>(word) << 32U) ^
               static_cast<uint64_t>(position);
  x = (x + 1) * 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31U);
}

}  // namespace tessera::kernels
