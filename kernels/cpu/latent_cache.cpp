// Rows in and out of the paged latent cache.

#include <algorithm>
#include <cstring>

#include "kernels/core/check.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/latent_rows.h"

namespace tessera::kernels::cpu {
namespace {

void store(const VectorMath&, const float* from, int64_t count, float* to) {
  std::copy_n(from, count, to);
}
void store(const VectorMath& math, const float* from, int64_t count, BFloat16* to) {
  math.to_bf16(from, count, to);
}

/// Writes token t's row, unless another rank does. T is the cache's element type.
template <typename T>
void write_row(const VectorMath& math, const LatentWriteParams& params, int64_t t) {
  const LatentCacheView& cache = params.cache;
  const int64_t slot = params.slots.as<int64_t>()[t];
  if (slot < 0) {
    return;
  }
  TESSERA_DCHECK(slot < cache.num_blocks * kBlockTokens, "slot outside the cache");
  const float* latent = params.latent.as<float>() + t * params.latent.stride[0];
  const float* rope = params.rope.as<float>() + t * params.rope.stride[0];
  T* row = latent_row<T>(cache, slot / kBlockTokens, slot % kBlockTokens);
  params.columns.for_each_range([&](const ColumnRange& range, int64_t row_begin) {
    store(math, latent + range.begin, range.count, row + row_begin);
  });
  store(math, rope, cache.rope_width, row + cache.latent_width);
}

void write_float8(const VectorMath&, const LatentWriteParams& params, int64_t t) {
  const int64_t slot = params.slots.as<int64_t>()[t];
  if (slot < 0) {
    return;
  }
  TESSERA_DCHECK(slot < params.cache.num_blocks * kBlockTokens, "slot outside the cache");
  write_float8_row(params.cache,
                   params.columns,
                   params.latent.as<float>() + t * params.latent.stride[0],
                   params.rope.as<float>() + t * params.rope.stride[0],
                   latent_row_bytes(params.cache, slot / kBlockTokens, slot % kBlockTokens));
}

auto write_function(DType dtype) {
  if (dtype == DType::kFloat8E4M3) {
    return write_float8;
  }
  return dtype == DType::kFloat32 ? write_row<float> : write_row<BFloat16>;
}

/// The row of the i-th position that is gathered.
const char* gathered_row(const LatentGatherParams& params, int64_t i) {
  const int64_t position = params.begin + i;
  const int64_t block = params.block_table.as<int32_t>()[position / kBlockTokens];
  return latent_row_bytes(params.cache, block, position % kBlockTokens);
}

void gather_plain(const LatentGatherParams& params, int64_t i) {
  const LatentCacheView& cache = params.cache;
  const int64_t element = dtype_bytes(cache.dtype);
  const char* row = gathered_row(params, i);
  char* latent = params.latent.as<char>() + i * params.latent.stride[0] * element;
  params.columns.for_each_range([&](const ColumnRange& range, int64_t row_begin) {
    std::memcpy(latent + range.begin * element,
                row + row_begin * element,
                static_cast<size_t>(range.count * element));
  });
  std::memcpy(params.rope.as<char>() + i * params.rope.stride[0] * element,
              row + cache.latent_width * element,
              static_cast<size_t>(cache.rope_width * element));
}

/// T is the element type that is wanted.
template <typename T>
void gather_float8(const LatentGatherParams& params, int64_t i) {
  const char* row = gathered_row(params, i);
  T* latent = params.latent.as<T>() + i * params.latent.stride[0];
  params.columns.for_each_range([&](const ColumnRange& range, int64_t row_begin) {
    read_float8_latents(params.cache, row, row_begin, range.count, latent + range.begin);
  });
  read_float8_rope(params.cache, row, params.rope.as<T>() + i * params.rope.stride[0]);
}

auto gather_function(const LatentGatherParams& params) {
  if (!params.cache.is_float8()) {
    return gather_plain;
  }
  return params.latent.dtype == DType::kFloat32 ? gather_float8<float> : gather_float8<BFloat16>;
}

}  // namespace

void CpuOps::do_latent_write(const LatentWriteParams& params, StreamView) {
  const LatentCacheView& cache = params.cache;
  const int64_t row_width = cache.latent_width + cache.rope_width;
  const auto write = write_function(cache.dtype);
  for_row_ranges(params.slots.dim(0), row_width, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      write(math_, params, t);
    }
  });
}

void CpuOps::do_latent_gather(const LatentGatherParams& params, StreamView) {
  const auto gather = gather_function(params);
  for_row_ranges(
      params.latent.dim(0), params.cache.latent_width, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          gather(params, i);
        }
      });
}

}  // namespace tessera::kernels::cpu
