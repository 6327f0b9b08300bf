// Decode attention on the float32 units: a warp is one head of one split. A lane computes the logit
// of one key; then all lanes add up the 32 weighted values.

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/cuda/attention/decode_pass.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

/// Queries and results are of T; Row is how the keys' rows are read.
template <typename T, typename Row>
__global__ void __launch_bounds__(kSimtHeads* kWarp)
    attend_simt(const __grid_constant__ DecodePass p) {
  extern __shared__ float shared[];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int head = static_cast<int>(blockIdx.x) * kSimtHeads + warp;
  const int split = static_cast<int>(blockIdx.y);
  const int row = static_cast<int>(blockIdx.z);
  if (head >= p.num_heads) {
    return;
  }
  const int key_width = p.cache.latent_width;
  const int width = key_width + p.cache.rope_width;
  float* query = shared + warp * (width + p.value_width);
  float* values = query + width;
  const T* q_latent =
      static_cast<const T*>(p.q_latent) + row * p.q_latent_stride + head * p.q_latent_head_stride;
  const T* q_rope =
      static_cast<const T*>(p.q_rope) + row * p.q_rope_stride + head * p.q_rope_head_stride;
  for (int c = lane; c < width; c += kWarp) {
    query[c] = to_float(c < key_width ? q_latent[c] : q_rope[c - key_width]);
  }
  for (int c = lane; c < p.value_width; c += kWarp) {
    values[c] = 0.0F;
  }
  __syncwarp();
  const DecodeRow sequence(p, row);
  const int num_tokens = sequence.num_tokens;
  const int begin = static_cast<int>(int64_t{num_tokens} * split / p.num_splits);
  const int end = static_cast<int>(int64_t{num_tokens} * (split + 1) / p.num_splits);
  float max_logit = -INFINITY;  // times log2(e), as all logits here
  float sum = 0.0F;
  for (int first = begin; first < end; first += kWarp) {
    const int token = first + lane;
    const Row key(p.cache, sequence.key(p, min(token, end - 1)));
    float logit = 0.0F;
    for (int c = 0; c < width; ++c) {
      logit += query[c] * key[c];
    }
    logit = token < end ? logit * (p.scale * kLog2E) : -INFINITY;
    const float new_max = fmaxf(max_logit, warp_max(logit));
    const float correction = exp2f(max_logit - new_max);
    const float weight = exp2f(logit - new_max);
    sum = sum * correction + warp_sum(weight);
    max_logit = new_max;
    const int count = min(kWarp, end - first);
    for (int c = lane; c < p.value_width; c += kWarp) {
      values[c] *= correction;
    }
    for (int i = 0; i < count; ++i) {
      const float share = __shfl_sync(kAllLanes, weight, i);
      const Row value(p.cache, sequence.key(p, first + i));
      for (int c = lane; c < p.value_width; c += kWarp) {
        values[c] += share * value[p.value_columns.latent_column(c)];
      }
    }
  }
  const float factor = sum > 0.0F ? 1.0F / sum : 0.0F;
  const float lse = log_sum_exp_of(max_logit, sum);
  if (p.out == nullptr) {
    const int64_t at = p.partial(row, split, head);
    for (int c = lane; c < p.value_width; c += kWarp) {
      p.partial_values[at * p.value_width + c] = values[c] * factor;
    }
    if (lane == 0) {
      p.partial_sums[at] = lse;
    }
    return;
  }
  T* out = static_cast<T*>(p.out) + row * p.out_stride + head * p.out_head_stride;
  for (int c = lane; c < p.value_width; c += kWarp) {
    out[c] = from_float<T>(values[c] * factor);
  }
  if (lane == 0) {
    p.log_sum_exp[row * p.log_sum_exp_stride + head] = lse;
  }
}

}  // namespace

template <typename T>
void launch_decode_simt(const DecodePass& pass, int64_t num_rows, cudaStream_t stream) {
  const int64_t width = pass.cache.latent_width + pass.cache.rope_width + pass.value_width;
  const int64_t shared_bytes = kSimtHeads * width * int64_t{sizeof(float)};
  TESSERA_CHECK(shared_bytes <= kMaxSharedBytes, "mla_decode: the latent is too wide");
  launch(
      "mla_decode (float32 units)",
      pass.cache.is_float8 ? attend_simt<T, Float8Row> : attend_simt<T, PlainRow<T>>,
      {{to_grid(ceil_div(pass.num_heads, kSimtHeads)), to_grid(pass.num_splits), to_grid(num_rows)},
       kSimtHeads * kWarp,
       shared_bytes},
      stream,
      pass);
}

template void launch_decode_simt<float>(const DecodePass&, int64_t, cudaStream_t);
template void launch_decode_simt<Bf16>(const DecodePass&, int64_t, cudaStream_t);

}  // namespace tessera::kernels::cuda
