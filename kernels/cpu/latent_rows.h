// Where a token's row lies in a cache block on the CPU, and what is in float8 rows.
#pragma once

#include "kernels/ops/attention_params.h"

namespace tessera::kernels::cpu {

[[nodiscard]] inline char* latent_row_bytes(const LatentCacheView& cache,
                                            int64_t block,
                                            int64_t token) noexcept {
  return static_cast<char*>(cache.base) + block * cache.block_stride_bytes +
         token * cache.layout().row_bytes;
}

/// A plain row: its latent columns, then its rope part. T is the cache's element type.
template <typename T>
[[nodiscard]] T* latent_row(const LatentCacheView& cache, int64_t block, int64_t token) noexcept {
  return reinterpret_cast<T*>(latent_row_bytes(cache, block, token));
}

/// The exponent of the scale of the row that holds `columns` of `latent`.
[[nodiscard]] int float8_exponent(const LatentColumns& columns, const float* latent);

/// What a row of this scale makes of some latents.
void round_to_float8(const float* latent, int64_t count, int exponent, float* out);

/// Stores `columns` of `latent`, and the rope part, as a float8 row. NaN and infinities become NaN.
void write_float8_row(const LatentCacheView& cache,
                      const LatentColumns& columns,
                      const float* latent,
                      const float* rope,
                      char* row);

/// A float8 row as numbers, exactly: columns [begin, begin + count) of its latents, and its rope
/// part. T is float or BFloat16.
template <typename T>
void read_float8_latents(
    const LatentCacheView& cache, const char* row, int64_t begin, int64_t count, T* out);
template <typename T>
void read_float8_rope(const LatentCacheView& cache, const char* row, T* out);

}  // namespace tessera::kernels::cpu
