// Rows in and out of the paged latent cache: a block of threads is a token.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/latent_rows.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 128;

struct Write {
  DeviceRows<const float> latent, rope;
  const int64_t* slots = nullptr;
  DeviceColumns columns;
  DeviceCache cache;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) write_rows(const Write p) {
  wait_for_kernel_before();
  const int64_t t = blockIdx.x;
  const int64_t slot = p.slots[t];
  if (slot < 0) {
    return;
  }
  T* row = reinterpret_cast<T*>(p.cache.row_of_slot(slot));
  const float* latent = p.latent.row(t);
  const float* rope = p.rope.row(t);
  const int width = p.cache.latent_width;
  for (int c = static_cast<int>(threadIdx.x); c < width + p.cache.rope_width; c += kThreads) {
    row[c] = from_float<T>(c < width ? latent[p.columns.latent_column(c)] : rope[c - width]);
  }
}

/// The largest of the block's values, none of them NaN, on every thread.
__device__ float block_max(float value) {
  __shared__ float shared[kThreads / kWarp];
  value = warp_max(value);
  if (threadIdx.x % kWarp == 0) {
    shared[threadIdx.x / kWarp] = value;
  }
  __syncthreads();
  for (const float other : shared) {
    value = fmaxf(value, other);
  }
  return value;
}

__global__ void __launch_bounds__(kThreads) write_float8_rows(const Write p) {
  wait_for_kernel_before();
  const int64_t t = blockIdx.x;
  const int64_t slot = p.slots[t];
  if (slot < 0) {
    return;
  }
  auto* row = reinterpret_cast<uint8_t*>(p.cache.row_of_slot(slot));
  const float* latent = p.latent.row(t);
  const float* rope = p.rope.row(t);
  const int width = p.cache.latent_width;
  float largest = 0.0F;
  for (int c = static_cast<int>(threadIdx.x); c < width; c += kThreads) {
    const float magnitude = fabsf(latent[p.columns.latent_column(c)]);
    largest = magnitude > largest ? magnitude : largest;  // not NaN
  }
  const int exponent = float8_scale_exponent(block_max(largest));
  const uint32_t scale = __float_as_uint(float8_scale(exponent));
  const float inverse = float8_scale(-exponent);
  const int rope_end = p.cache.rope_offset + 2 * p.cache.rope_width;
  for (int i = static_cast<int>(threadIdx.x); i < p.cache.row_bytes; i += kThreads) {
    unsigned byte = 0;
    if (i < width) {
      byte = code_of_latent(latent[p.columns.latent_column(i)], inverse);
    } else if (i >= p.cache.scale_offset && i < p.cache.scale_offset + 4) {
      byte = scale >> (8 * (i - p.cache.scale_offset));
    } else if (i >= p.cache.rope_offset && i < rope_end) {
      const int at = i - p.cache.rope_offset;
      byte = static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(rope[at / 2]))) >>
             (8 * (at % 2));
    }
    row[i] = static_cast<uint8_t>(byte);
  }
}

/// T stands for the cache's rows.
template <typename T>
constexpr auto write_kernel() {
  if constexpr (std::is_same_v<T, Float8>) {
    return write_float8_rows;
  } else {
    return write_rows<T>;
  }
}

template <typename T>
struct Gather {
  DeviceCache cache;
  const int32_t* block_table = nullptr;
  int64_t begin = 0;
  DeviceColumns columns;
  DeviceRows<T> latent, rope;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) gather_latents(const Gather<T> p) {
  const int64_t position = p.begin + blockIdx.x;
  const int64_t block = p.block_table[position / kBlockTokens];
  const T* row = reinterpret_cast<const T*>(p.cache.row(block, position % kBlockTokens));
  T* latent = p.latent.row(blockIdx.x);
  T* rope = p.rope.row(blockIdx.x);
  const int width = p.cache.latent_width;
  for (int c = static_cast<int>(threadIdx.x); c < width + p.cache.rope_width; c += kThreads) {
    (c < width ? latent[p.columns.latent_column(c)] : rope[c - width]) = row[c];
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) gather_float8_latents(const Gather<T> p) {
  const int64_t position = p.begin + blockIdx.x;
  const int64_t block = p.block_table[position / kBlockTokens];
  const Float8Row row(p.cache, p.cache.row(block, position % kBlockTokens));
  T* latent = p.latent.row(blockIdx.x);
  T* rope = p.rope.row(blockIdx.x);
  const int width = p.cache.latent_width;
  for (int c = static_cast<int>(threadIdx.x); c < width + p.cache.rope_width; c += kThreads) {
    (c < width ? latent[p.columns.latent_column(c)] : rope[c - width]) = from_float<T>(row[c]);
  }
}

}  // namespace

void CudaOps::do_latent_write(const LatentWriteParams& params, StreamView stream) {
  visit_rows(params.cache.dtype, [&](auto tag) {
    launch_early("latent_write",
                 write_kernel<decltype(tag)>(),
                 {to_grid(params.slots.dim(0)), kThreads},
                 device_.enter(stream),
                 Write{rows_of<float>(params.latent),
                       rows_of<float>(params.rope),
                       params.slots.as<int64_t>(),
                       device_columns(params.columns),
                       device_cache(params.cache)});
  });
}

void CudaOps::do_latent_gather(const LatentGatherParams& params, StreamView stream) {
  visit_dtype(params.latent.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch("latent_gather",
           params.cache.is_float8() ? gather_float8_latents<T> : gather_latents<T>,
           {to_grid(params.latent.dim(0)), kThreads},
           device_.enter(stream),
           Gather<T>{device_cache(params.cache),
                     params.block_table.as<int32_t>(),
                     params.begin,
                     device_columns(params.columns),
                     rows_of<T>(params.latent),
                     rows_of<T>(params.rope)});
  });
}

}  // namespace tessera::kernels::cuda
