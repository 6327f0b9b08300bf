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

}  // namespace

void CudaOps::do_latent_write(const LatentWriteParams& params, StreamView stream) {
  visit_dtype(params.cache.dtype, [&](auto tag) {
    launch_early("latent_write",
                 write_rows<decltype(tag)>,
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
  visit_dtype(params.cache.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch("latent_gather",
           gather_latents<T>,
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
