// Prefill attention on the float32 units: a warp is one query of one head. A lane computes the
// logit of one key; then all lanes add up the 32 weighted values.

#include "kernels/core/check.h"
#include "kernels/cuda/attention/prefill_pass.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kQueries = 8;  ///< of a block

template <typename T>
__global__ void __launch_bounds__(kQueries* kWarp)
    prefill_simt(const __grid_constant__ PrefillPass p) {
  extern __shared__ float shared[];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int query = static_cast<int>(blockIdx.x) * kQueries + warp;
  const int head = static_cast<int>(blockIdx.y);
  if (query >= p.num_queries) {
    return;
  }
  const int width = p.nope_width + p.rope_width;
  float* q = shared + warp * (width + p.value_width);
  float* values = q + width;
  const T* from = static_cast<const T*>(p.q) + query * p.q_stride + head * p.q_head_stride;
  float* accumulator = p.accumulator.row(query, head);
  for (int c = lane; c < width; c += kWarp) {
    q[c] = to_float(from[c]);
  }
  for (int c = lane; c < p.value_width; c += kWarp) {
    values[c] = p.is_first_tile ? 0.0F : accumulator[c];
  }
  float max_logit = p.is_first_tile ? -INFINITY : p.max_logit.row(query)[head];
  float sum = p.is_first_tile ? 0.0F : p.sum.row(query)[head];
  __syncwarp();
  const T* keys = static_cast<const T*>(p.kv) + head * p.kv_head_stride;
  const T* ropes = static_cast<const T*>(p.k_rope);
  const int end = p.num_visible(query);
  for (int first = 0; first < end; first += kWarp) {
    const int64_t token = min(first + lane, end - 1);
    float logit = 0.0F;
    for (int c = 0; c < p.nope_width; ++c) {
      logit += q[c] * to_float(keys[token * p.kv_stride + c]);
    }
    for (int c = 0; c < p.rope_width; ++c) {
      logit += q[p.nope_width + c] * to_float(ropes[token * p.k_rope_stride + c]);
    }
    logit = first + lane < end ? logit * p.scale : -INFINITY;
    const float new_max = fmaxf(max_logit, warp_max(logit));
    const float correction = expf(max_logit - new_max);
    const float weight = expf(logit - new_max);
    sum = sum * correction + warp_sum(weight);
    max_logit = new_max;
    for (int c = lane; c < p.value_width; c += kWarp) {
      values[c] *= correction;
    }
    for (int i = 0; i < min(kWarp, end - first); ++i) {
      const float share = __shfl_sync(kAllLanes, weight, i);
      const T* value = keys + int64_t{first + i} * p.kv_stride + p.nope_width;
      for (int c = lane; c < p.value_width; c += kWarp) {
        values[c] += share * to_float(value[c]);
      }
    }
  }
  T* out = static_cast<T*>(p.out) + query * p.out_stride + head * p.out_head_stride;
  for (int c = lane; c < p.value_width; c += kWarp) {
    if (p.is_last_tile) {
      out[c] = from_float<T>(values[c] / sum);
    } else {
      accumulator[c] = values[c];
    }
  }
  if (lane == 0 && !p.is_last_tile) {
    p.max_logit.row(query)[head] = max_logit;
    p.sum.row(query)[head] = sum;
  }
}

}  // namespace

template <typename T>
void launch_prefill_simt(const PrefillPass& pass, cudaStream_t stream) {
  const int64_t width = pass.nope_width + pass.rope_width + pass.value_width;
  const int64_t shared_bytes = kQueries * width * int64_t{sizeof(float)};
  TESSERA_CHECK(shared_bytes <= kMaxSharedBytes, "mla_prefill: the heads are too wide");
  launch("mla_prefill (float32 units)",
         prefill_simt<T>,
         {{to_grid(ceil_div(pass.num_queries, kQueries)), to_grid(pass.num_heads)},
          kQueries * kWarp,
          shared_bytes},
         stream,
         pass);
}

template void launch_prefill_simt<float>(const PrefillPass&, cudaStream_t);
template void launch_prefill_simt<Bf16>(const PrefillPass&, cudaStream_t);

}  // namespace tessera::kernels::cuda
