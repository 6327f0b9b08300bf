// Products whose rows are grouped, by offsets on the device; with one group and no offsets a plain
// product, for what cuBLASLt has no algorithm for.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/core/dtype.h"

namespace tessera::kernels::cuda {

/// Rows [offsets[g], offsets[g + 1]) of x times weight group g [N, K], transposed.
struct GroupedProduct {
  const void* x = nullptr;  ///< [rows, K]
  int64_t x_stride = 0;     ///< elements
  const void* weight = nullptr;
  const int32_t* offsets = nullptr;  ///< [num_groups + 1] on the device; null: one group, all rows
  void* out = nullptr;               ///< [rows, N]
  int64_t out_stride = 0;
  int64_t rows = 0;  ///< at most
  int32_t num_groups = 1;
  int32_t out_features = 0;
  int32_t in_features = 0;
  DType dtype = DType::kFloat32;  ///< of x and weight
  DType out_dtype = DType::kFloat32;
  int32_t* next_tile = nullptr;  ///< scratch on the device
};

void grouped_product(const GroupedProduct& product, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
