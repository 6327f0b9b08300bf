// float8_e4m3 on its way into the tensor cores, and the scales of a product's weights.
#pragma once

#include <cstdint>

#include "kernels/cuda/float8_linear.h"
#include "kernels/cuda/tensor_core.cuh"

namespace tessera::kernels::cuda {

/// Four numbers of float8_e4m3 as two pairs of bfloat16, exactly. Sign, exponent and mantissa move
/// to their places; 2^120 is what the biases of the exponents, 127 and 7, differ by, also for
/// subnormal numbers. NaN becomes 480.
struct Bf16Quad {
  unsigned low;   ///< columns 0 and 1
  unsigned high;  ///< columns 2 and 3
};
inline constexpr unsigned kTwoTo120 = 0x7b807b80U;  ///< two of bfloat16
__device__ __forceinline__ unsigned place_float8(unsigned bytes_8_and_24,
                                                 unsigned factors = kTwoTo120) {
  const unsigned magnitude = (bytes_8_and_24 >> 4) & 0x07f007f0U;
  const unsigned biased = magnitude | (bytes_8_and_24 & 0x80008000U);
  unsigned result;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(biased), "r"(factors));
  return result;
}
/// With other factors than 2^120 the numbers are scaled as well.
__device__ __forceinline__ Bf16Quad to_bf16(unsigned four, unsigned factors = kTwoTo120) {
  return {place_float8(__byte_perm(four, 0, 0x1404), factors),
          place_float8(__byte_perm(four, 0, 0x3424), factors)};
}

/// One number, by the same steps.
__device__ __forceinline__ float float8_to_float(uint8_t value) {
  const unsigned bits = (value & 0x80U) << 24 | (value & 0x7fU) << 20;
  return __uint_as_float(bits) * 0x1p120F;
}

/// Row of scales of feature `feature`, a number for each block of columns.
__device__ __forceinline__ const float* scales_of(const Float8Product& p,
                                                  int group,
                                                  int64_t feature) {
  return p.scales + group * p.group_scales + (feature >> p.scale_shift) * p.scale_stride;
}

/// Weights of a feature.
__device__ __forceinline__ const uint8_t* weights_of(const Float8Product& p,
                                                     int group,
                                                     int64_t feature) {
  return static_cast<const uint8_t*>(p.product.weight) +
         (static_cast<int64_t>(group) * p.product.out_features + feature) * p.product.in_features;
}

/// Blocks of columns.
__device__ __forceinline__ int num_scale_blocks(const Float8Product& p) {
  constexpr int kBlock = static_cast<int>(kScaleBlock);
  return (p.first_column + p.product.in_features + kBlock - 1) / kBlock;
}

}  // namespace tessera::kernels::cuda
