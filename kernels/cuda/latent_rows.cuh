// Where a token's row lies in a cache block on a GPU: the plain row form, as on the CPU. The only
// device code that knows this; a block image in panels would change it here and in LatentLayout.
#pragma once

#include "kernels/ops/attention_params.h"

namespace tessera::kernels::cuda {

/// Rows of `cache`, addressed by slot (block * kBlockTokens + offset).
struct DeviceCache {
  char* base = nullptr;
  int64_t block_stride_bytes = 0;
  int64_t row_bytes = 0;
  int32_t latent_width = 0;
  int32_t rope_width = 0;

  __device__ char* row(int64_t block, int64_t offset) const {
    return base + block * block_stride_bytes + offset * row_bytes;
  }
  __device__ char* row_of_slot(int64_t slot) const {
    return row(slot / kBlockTokens, slot % kBlockTokens);
  }
};

[[nodiscard]] inline DeviceCache device_cache(const LatentCacheView& cache) {
  return {static_cast<char*>(cache.base),
          cache.block_stride_bytes,
          (cache.latent_width + cache.rope_width) * dtype_bytes(cache.dtype),
          static_cast<int32_t>(cache.latent_width),
          static_cast<int32_t>(cache.rope_width)};
}

/// LatentColumns for kernels.
struct DeviceColumns {
  int32_t begin[LatentColumns::kMaxRanges] = {};
  int32_t count[LatentColumns::kMaxRanges] = {};

  /// The latent's column that column `c` of a row holds.
  __host__ __device__ int32_t latent_column(int32_t c) const {
    return c < count[0] ? begin[0] + c : begin[1] + c - count[0];
  }
};
static_assert(LatentColumns::kMaxRanges == 2);

[[nodiscard]] inline DeviceColumns device_columns(const LatentColumns& columns) {
  DeviceColumns result;
  for (size_t i = 0; i < LatentColumns::kMaxRanges; ++i) {
    result.begin[i] = static_cast<int32_t>(columns.ranges[i].begin);
    result.count[i] = static_cast<int32_t>(columns.ranges[i].count);
  }
  return result;
}

}  // namespace tessera::kernels::cuda
