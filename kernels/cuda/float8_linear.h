// Products with weights that are held in float8: what decode steps are made of when a checkpoint is
// in FP8. Rows of x stay bfloat16, weights become it in registers; sums are float32, and a block's
// scale multiplies the sum over the block's columns, so that no weight is rounded.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/cuda/grouped_linear.h"
#include "kernels/cuda/linear_weight.h"

namespace tessera::kernels::cuda {

/// GroupedProduct with `weight` in float8_e4m3; its dtype is that of x, bfloat16.
struct Float8Product {
  GroupedProduct product;
  const float* scales = nullptr;  ///< of the first group
  int64_t group_scales = 0;       ///< numbers of a group
  int32_t scale_stride = 0;       ///< numbers between rows of scales
  int32_t scale_shift = 0;        ///< feature n has row n >> scale_shift
  int32_t first_column = 0;       ///< column k has scale (first_column + k) / kScaleBlock
};

/// Groups of `weight` from `group` on; x, offsets, out, rows and types of `product`.
[[nodiscard]] Float8Product float8_product(const CudaLinearWeight& weight,
                                           int64_t group,
                                           const GroupedProduct& product);

/// Whether the two below can: everything is read in pieces of 16 bytes.
[[nodiscard]] bool can_use_float8_tiles(const Float8Product& product);
/// Few rows a group: weights go from memory to registers, and are read before the kernel before it
/// has ended where there are no offsets.
void launch_float8_few_rows(const Float8Product& product, cudaStream_t stream);
/// Up to 64 rows a group at a time, or 128 where there are many.
void launch_float8_tiles(const Float8Product& product, cudaStream_t stream);
/// Any sizes and strides, slowly.
void launch_float8_simt(const Float8Product& product, cudaStream_t stream);

/// The fastest of the three.
void multiply_float8(const Float8Product& product, cudaStream_t stream);

/// Features [begin, begin + count) of the product's first group in bfloat16, rows of in_features.
void dequantize_float8(
    const Float8Product& product, int64_t begin, int64_t count, void* to, cudaStream_t stream);

/// Rows of x in float8 with a scale for each row and kScaleBlock columns.
struct Float8Rows {
  void* values = nullptr;   ///< [rows, in_features] float8_e4m3
  float* scales = nullptr;  ///< [blocks of columns, rows]
};
/// The scale of a part is its largest magnitude over float8's. x is bfloat16, in_features a
/// multiple of 4, rows of x aligned to 8 bytes.
void quantize_rows(const GroupedProduct& product, const Float8Rows& to, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
