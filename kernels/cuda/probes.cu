// Probes of the latent cache: signed sums of what was computed (a warp is a token) and of what lies
// in a cache (a block of threads is a cache block, a warp a row at a time). Sums are added up in a
// fixed order.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/latent_rows.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/ops/probe_signs.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;
/// Few cache blocks at a time: their rows have to fill the GPU.
constexpr int kCacheThreads = 1024;

/// The signs of one token's row, column after column: a word of them is made once.
class RowSigns {
 public:
  __device__ RowSigns(int64_t layer, int64_t position) : layer_(layer), position_(position) {}
  __device__ double apply(int64_t column, double value) {
    const int64_t index = column / kProbeWordColumns;
    if (index != index_) {
      index_ = index;
      word_ = probe_sign_word(layer_, position_, index);
    }
    return ((word_ >> (column % kProbeWordColumns)) & 1U) != 0 ? -value : value;
  }

 private:
  int64_t layer_;
  int64_t position_;
  int64_t index_ = -1;
  uint64_t word_ = 0;
};

/// The column, as signs count them, of column `c` of a row.
__device__ int64_t sign_column(const DeviceColumns& columns, int width, int c) {
  return c < width ? columns.latent_column(c) : kProbeRopeWord * kProbeWordColumns + (c - width);
}

struct OfLatents {
  DeviceRows<const float> latent, rope;
  const int32_t* positions = nullptr;
  const int64_t* slots = nullptr;
  int64_t num_tokens = 0;
  int64_t layer = 0;
  DeviceColumns columns;
  int32_t width = 0;
  int32_t rope_width = 0;
  double* sums = nullptr;
  int64_t sum_stride = 1;
};

/// What the rows that T stands for make of a token's latents. A warp is the token.
template <typename T>
struct Rounding {
  __device__ Rounding(const OfLatents&, const float*) {}
  __device__ float latent(float value) const { return to_float(from_float<T>(value)); }
  __device__ float rope(float value) const { return latent(value); }
};
template <>
struct Rounding<Float8> {
  float scale, inverse;

  __device__ Rounding(const OfLatents& p, const float* latent) {
    float largest = 0.0F;
    for (int c = static_cast<int>(threadIdx.x) % kWarp; c < p.width; c += kWarp) {
      const float magnitude = fabsf(latent[p.columns.latent_column(c)]);
      largest = magnitude > largest ? magnitude : largest;  // not NaN
    }
    const int exponent = float8_scale_exponent(warp_max(largest));
    scale = float8_scale(exponent);
    inverse = float8_scale(-exponent);
  }
  __device__ float latent(float value) const {
    return latent_of_code(code_of_latent(value, inverse)) * scale;
  }
  __device__ float rope(float value) const { return to_float(from_float<Bf16>(value)); }
};

template <typename T>
__global__ void __launch_bounds__(kThreads) probe_latents(const OfLatents p) {
  const int64_t t = blockIdx.x * int64_t{kThreads / kWarp} + threadIdx.x / kWarp;
  if (t >= p.num_tokens || p.slots[t] < 0) {
    return;
  }
  const float* latent = p.latent.row(t);
  const float* rope = p.rope.row(t);
  double sum = 0.0;
  RowSigns signs(p.layer, p.positions[t]);
  const Rounding<T> rounding(p, latent);
  for (int c = static_cast<int>(threadIdx.x) % kWarp; c < p.width + p.rope_width; c += kWarp) {
    const float value = c < p.width ? rounding.latent(latent[p.columns.latent_column(c)])
                                    : rounding.rope(rope[c - p.width]);
    sum += signs.apply(sign_column(p.columns, p.width, c), value);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) {
    double& kept = p.sums[p.slots[t] * p.sum_stride];
    kept = p.layer == 0 ? sum : kept + sum;
  }
}

struct OfCache {
  DeviceCache cache;
  const int32_t* blocks = nullptr;
  int64_t layer = 0;
  DeviceColumns columns;
  int64_t first_index = 0;
  int64_t index_step = 1;
  int64_t end = 0;
  ProbeSum* sums = nullptr;
};

template <typename T>
__global__ void __launch_bounds__(kCacheThreads) probe_cache(const OfCache p) {
  __shared__ double shared[kCacheThreads / kWarp];
  const int64_t first = (p.first_index + blockIdx.x * p.index_step) * kBlockTokens;
  const int64_t num_tokens = min(max(p.end - first, int64_t{0}), kBlockTokens);
  const int width = p.cache.latent_width + p.cache.rope_width;
  ProbeSum own;
  for (int64_t t = threadIdx.x / kWarp; t < num_tokens; t += kCacheThreads / kWarp) {
    const RowOf<T> row(p.cache, p.cache.row(p.blocks[blockIdx.x], t));
    RowSigns signs(p.layer, first + t);
    for (int c = static_cast<int>(threadIdx.x) % kWarp; c < width; c += kWarp) {
      const double value = row[c];
      own.sum += signs.apply(sign_column(p.columns, p.cache.latent_width, c), value);
      own.magnitude += fabs(value);
    }
  }
  own.sum = block_sum<kCacheThreads>(own.sum, shared);
  own.magnitude = block_sum<kCacheThreads>(own.magnitude, shared);
  if (threadIdx.x == 0) {
    ProbeSum& kept = p.sums[blockIdx.x];
    kept.sum = p.layer == 0 ? own.sum : kept.sum + own.sum;
    kept.magnitude = p.layer == 0 ? own.magnitude : kept.magnitude + own.magnitude;
  }
}

}  // namespace

void CudaOps::do_latent_probe(const LatentProbeParams& params, StreamView stream) {
  const int64_t num_tokens = params.slots.dim(0);
  visit_rows(params.dtype, [&](auto tag) {
    launch("latent_probe",
           probe_latents<decltype(tag)>,
           {to_grid(ceil_div(num_tokens, kThreads / kWarp)), kThreads},
           device_.enter(stream),
           OfLatents{rows_of<float>(params.latent),
                     rows_of<float>(params.rope),
                     params.positions.as<int32_t>(),
                     params.slots.as<int64_t>(),
                     num_tokens,
                     params.layer,
                     device_columns(params.columns),
                     static_cast<int32_t>(params.columns.width()),
                     static_cast<int32_t>(params.rope.dim(1)),
                     params.sums,
                     params.sum_stride});
  });
}

void CudaOps::do_cache_probe(const CacheProbeParams& params, StreamView stream) {
  visit_rows(params.cache.dtype, [&](auto tag) {
    launch("cache_probe",
           probe_cache<decltype(tag)>,
           {to_grid(params.blocks.dim(0)), kCacheThreads},
           device_.enter(stream),
           OfCache{device_cache(params.cache),
                   params.blocks.as<int32_t>(),
                   params.layer,
                   device_columns(params.columns),
                   params.first_index,
                   params.index_step,
                   params.end,
                   params.sums});
  });
}

}  // namespace tessera::kernels::cuda
