// The bytes of one token's row in the latent cache, for every backend. Plain rows are of one type:
// the latent columns, then the rope part. Float8 rows (kFloat8E4M3) have the latents in e4m3:
//
//   [0, w)              the latent columns: latent = e4m3 * scale
//   [scale, scale + 4)  the scale, float32, at the next multiple of 4
//   [rope, rope + 2 dr) the rope part, bfloat16, at the next multiple of 16
//
// and zeros between and behind, up to a multiple of 16 bytes. A row's scale is the smallest power
// of two with which its columns stay within e4m3, so that what is stored is exact in bfloat16, too:
// each latent is off by 2^-4 of itself at most, or by half of e4m3's smallest step, 2^-10 * scale,
// where it is below 2^-6 * scale. The scale is of the row: other images of the token have others.
// Source of e4m3: OCP 8-bit Floating Point Specification 1.0, section 5.2.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/core/dtype.h"

namespace tessera::kernels {

/// Where the parts of a row begin, in bytes.
struct LatentRowLayout {
  int64_t scale = 0;  ///< of float8 rows
  int64_t rope = 0;
  int64_t row_bytes = 0;
};

[[nodiscard]] constexpr LatentRowLayout latent_row_layout(DType dtype,
                                                          int64_t latent_width,
                                                          int64_t rope_width) noexcept {
  constexpr int64_t kChunkBytes = 16;
  const auto align = [](int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; };
  if (dtype != DType::kFloat8E4M3) {
    const int64_t element = dtype_bytes(dtype);
    return {0, latent_width * element, (latent_width + rope_width) * element};
  }
  const int64_t scale = align(latent_width, 4);
  const int64_t rope = align(scale + 4, kChunkBytes);
  return {scale, rope, align(rope + 2 * rope_width, kChunkBytes)};
}

/// Exponents of scales: with these the inverse of a scale and all that is stored are float32's and
/// bfloat16's normal numbers. Rows beyond are stored as well as they go: larger numbers as the
/// largest, smaller ones as zeros.
inline constexpr int kMinScaleExponent = -117;
inline constexpr int kMaxScaleExponent = 119;

/// The exponent of the scale for latents whose largest magnitude is `largest`, not NaN.
[[nodiscard]] constexpr int float8_scale_exponent(float largest) noexcept {
  // largest / 2^(e - 8), of largest = 2^e * 1.m, is below 512, and at most 448 up to 1.75: the
  // addition carries into the exponent beyond that.
  constexpr uint32_t kBeyond = 0x1fffff;
  const int exponent = static_cast<int>((std::bit_cast<uint32_t>(largest) + kBeyond) >> 23U) - 127;
  // Not std::clamp: it would refer to constants of the host in a kernel, which nvcc makes a trap
  // of.
  const int wanted = exponent - 8;
  if (wanted < kMinScaleExponent) {
    return kMinScaleExponent;
  }
  return wanted > kMaxScaleExponent ? kMaxScaleExponent : wanted;
}

/// 2^exponent, of a scale or of its inverse.
[[nodiscard]] constexpr float float8_scale(int exponent) noexcept {
  return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23U);
}

}  // namespace tessera::kernels
