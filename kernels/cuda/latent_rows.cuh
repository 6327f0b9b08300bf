// Where a token's row lies in a cache block on a GPU, and what is in it: the rows of the CPU
// (kernels/ops/latent_row.h). The only device code that knows this; a block image in panels would
// change it here and in LatentLayout.
#pragma once

#include <type_traits>

#include <cuda_fp8.h>

#include "kernels/cuda/device_math.cuh"
#include "kernels/ops/attention_params.h"

namespace tessera::kernels::cuda {

/// Rows of `cache`, addressed by slot (block * kBlockTokens + offset).
struct DeviceCache {
  char* base = nullptr;
  int64_t block_stride_bytes = 0;
  int64_t row_bytes = 0;
  int32_t latent_width = 0;
  int32_t rope_width = 0;
  bool is_float8 = false;
  int32_t scale_offset = 0;  ///< in bytes, of float8 rows
  int32_t rope_offset = 0;

  __device__ char* row(int64_t block, int64_t offset) const {
    return base + block * block_stride_bytes + offset * row_bytes;
  }
  __device__ char* row_of_slot(int64_t slot) const {
    return row(slot / kBlockTokens, slot % kBlockTokens);
  }
};

[[nodiscard]] inline DeviceCache device_cache(const LatentCacheView& cache) {
  const LatentRowLayout layout = cache.layout();
  return {static_cast<char*>(cache.base),
          cache.block_stride_bytes,
          layout.row_bytes,
          static_cast<int32_t>(cache.latent_width),
          static_cast<int32_t>(cache.rope_width),
          cache.is_float8(),
          static_cast<int32_t>(layout.scale),
          static_cast<int32_t>(layout.rope)};
}

/// The numbers of a row: its latent columns, then its rope part.
template <typename T>
struct PlainRow {
  const T* data;

  __device__ PlainRow(const DeviceCache& /*cache*/, const char* row)
      : data(reinterpret_cast<const T*>(row)) {}
  __device__ float operator[](int c) const { return to_float(data[c]); }
};

__device__ inline float latent_of_code(uint8_t code) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}
/// The code of a latent in a row whose scale has this inverse; NaN for what is not finite.
__device__ inline uint8_t code_of_latent(float latent, float inverse_scale) {
  return isfinite(latent) ? __nv_cvt_float_to_fp8(latent * inverse_scale, __NV_SATFINITE, __NV_E4M3)
                          : uint8_t{0x7f};
}

struct Float8Row {
  const uint8_t* codes;
  const Bf16* rope;
  float scale;
  int width;

  __device__ Float8Row(const DeviceCache& cache, const char* row)
      : codes(reinterpret_cast<const uint8_t*>(row)),
        rope(reinterpret_cast<const Bf16*>(row + cache.rope_offset)),
        scale(*reinterpret_cast<const float*>(row + cache.scale_offset)),
        width(cache.latent_width) {}
  __device__ float operator[](int c) const {
    return c < width ? latent_of_code(codes[c]) * scale : to_float(rope[c - width]);
  }
};

/// Stands for the element type of float8 rows.
struct Float8 {};
template <typename T>
using RowOf = std::conditional_t<std::is_same_v<T, Float8>, Float8Row, PlainRow<T>>;

/// Calls visit(T{}) with what stands for the rows of `dtype`.
template <typename Visit>
void visit_rows(DType dtype, Visit&& visit) {
  if (dtype == DType::kFloat8E4M3) {
    visit(Float8{});
  } else {
    visit_dtype(dtype, visit);
  }
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
