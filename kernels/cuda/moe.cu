// Mixture of experts: choice of experts (a warp is a token), stable sorting of tokens by expert (a
// block is an expert), weighted sum of the results (a block is a piece of a token).

#include <cfloat>

#include "kernels/core/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kGateWarps = 4;

struct Gate {
  DeviceRows<const float> logits;
  const float* bias = nullptr;
  MoeScoring scoring = MoeScoring::kSoftmax;
  MoeTopk topk = MoeTopk::kGreedy;
  int32_t num_tokens = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int32_t num_groups = 1;
  int32_t num_kept_groups = 1;
  bool normalize = false;
  float scale = 1.0F;
  DeviceRows<int32_t> expert_ids;
  DeviceRows<float> expert_weights;
};

/// Index of the largest of `count` values, on every lane; the lowest index among equals.
__device__ int warp_argmax(const float* values, int count, int lane) {
  float best = -INFINITY;
  int index = count;
  for (int i = lane; i < count; i += kWarp) {
    if (index == count || values[i] > best) {
      best = values[i];
      index = i;
    }
  }
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, best, offset);
    const int other_index = __shfl_xor_sync(kAllLanes, index, offset);
    const bool is_better = other > best || (other == best && other_index < index);
    if (other_index < count && (index == count || is_better)) {
      best = other;
      index = other_index;
    }
  }
  return index;
}

__device__ void score(const Gate& p, const float* logits, float* scores, int lane) {
  if (p.scoring == MoeScoring::kSigmoid) {
    for (int e = lane; e < p.num_experts; e += kWarp) {
      scores[e] = 1.0F / (1.0F + expf(-logits[e]));
    }
    return;
  }
  float max_logit = -INFINITY;
  for (int e = lane; e < p.num_experts; e += kWarp) {
    max_logit = fmaxf(max_logit, logits[e]);
  }
  max_logit = warp_max(max_logit);
  float sum = 0.0F;
  for (int e = lane; e < p.num_experts; e += kWarp) {
    scores[e] = expf(logits[e] - max_logit);
    sum += scores[e];
  }
  sum = warp_sum(sum);
  for (int e = lane; e < p.num_experts; e += kWarp) {
    scores[e] /= sum;
  }
}

__device__ float group_score(MoeTopk topk, const float* choice, int size) {
  float best = -INFINITY;
  float second = -INFINITY;
  for (int i = 0; i < size; ++i) {
    second = fmaxf(second, fminf(best, choice[i]));
    best = fmaxf(best, choice[i]);
  }
  return topk == MoeTopk::kNoauxTc && size > 1 ? best + second : best;
}

/// Removes every group but the best from `choice`. `ranks` holds num_groups floats.
__device__ void keep_best_groups(const Gate& p, float* choice, float* ranks, int lane) {
  const int size = p.num_experts / p.num_groups;
  for (int g = lane; g < p.num_groups; g += kWarp) {
    ranks[g] = group_score(p.topk, choice + g * size, size);
  }
  __syncwarp();
  for (int kept = 0; kept < p.num_kept_groups; ++kept) {
    const int best = warp_argmax(ranks, p.num_groups, lane);
    __syncwarp();
    if (lane == 0) {
      ranks[best] = -INFINITY;
    }
    __syncwarp();
  }
  for (int e = lane; e < p.num_experts; e += kWarp) {
    if (ranks[e / size] != -INFINITY) {
      choice[e] = -INFINITY;
    }
  }
  __syncwarp();
}

__global__ void __launch_bounds__(kGateWarps* kWarp) choose_experts(const Gate p) {
  wait_for_kernel_before();
  extern __shared__ float shared[];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t t = blockIdx.x * int64_t{kGateWarps} + warp;
  if (t >= p.num_tokens) {
    return;
  }
  float* scores = shared + warp * (2 * p.num_experts + p.num_groups);
  float* choice = scores + p.num_experts;
  score(p, p.logits.row(t), scores, lane);
  for (int e = lane; e < p.num_experts; e += kWarp) {
    choice[e] = scores[e] + (p.bias != nullptr ? p.bias[e] : 0.0F);
  }
  __syncwarp();
  if (p.topk != MoeTopk::kGreedy && p.num_kept_groups < p.num_groups) {
    keep_best_groups(p, choice, choice + p.num_experts, lane);
  }
  float sum = 0.0F;
  for (int k = 0; k < p.top_k; ++k) {
    const int best = warp_argmax(choice, p.num_experts, lane);
    sum += scores[best];
    __syncwarp();
    if (lane == 0) {
      p.expert_ids.row(t)[k] = best;
      p.expert_weights.row(t)[k] = scores[best];
      choice[best] = -INFINITY;
    }
    __syncwarp();
  }
  const float factor = p.normalize ? p.scale / (sum + 1e-20F) : p.scale;
  for (int k = lane; k < p.top_k; k += kWarp) {
    p.expert_weights.row(t)[k] *= factor;
  }
}

struct Sort {
  const int32_t* expert_ids = nullptr;
  int32_t* offsets = nullptr;
  int32_t* row_of_pair = nullptr;
  int64_t num_pairs = 0;
};

/// Block e finds where expert e's rows begin, then numbers its pairs in their order: no atomics, so
/// the order is the same every time.
__global__ void __launch_bounds__(kThreads) sort_pairs(const Sort p) {
  wait_for_kernel_before();
  __shared__ int shared[kThreads / kWarp];
  const int expert = static_cast<int>(blockIdx.x);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int before = 0;
  int own = 0;
  for (int64_t i = threadIdx.x; i < p.num_pairs; i += kThreads) {
    before += p.expert_ids[i] < expert ? 1 : 0;
    own += p.expert_ids[i] == expert ? 1 : 0;
  }
  before = block_sum<kThreads>(before, shared);
  own = block_sum<kThreads>(own, shared);
  if (threadIdx.x == 0) {
    p.offsets[expert] = before;
    if (blockIdx.x + 1 == gridDim.x) {
      p.offsets[expert + 1] = before + own;
    }
  }
  int next = before;
  for (int64_t begin = 0; begin < p.num_pairs; begin += kThreads) {
    const int64_t i = begin + threadIdx.x;
    const bool is_own = i < p.num_pairs && p.expert_ids[i] == expert;
    const unsigned votes = __ballot_sync(kAllLanes, is_own);
    if (lane == 0) {
      shared[warp] = __popc(votes);
    }
    __syncthreads();
    int row = next + __popc(votes & ((1U << lane) - 1U));
    for (int w = 0; w < kThreads / kWarp; ++w) {
      row += w < warp ? shared[w] : 0;
      next += shared[w];
    }
    if (is_own) {
      p.row_of_pair[i] = row;
    }
    __syncthreads();
  }
}

template <typename T>
struct Permute {
  DeviceRows<const T> x;
  T* permuted = nullptr;
  const int32_t* row_of_pair = nullptr;
  int64_t top_k = 1;
  int64_t width = 0;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) permute_rows(const Permute<T> p) {
  wait_for_kernel_before();
  const T* from = p.x.row(blockIdx.x / p.top_k);
  T* to = p.permuted + p.row_of_pair[blockIdx.x] * p.width;
  for (int64_t c = threadIdx.x; c < p.width; c += kThreads) {
    to[c] = from[c];
  }
}

struct Combine {
  DeviceRows<const float> expert_out;
  const int32_t* row_of_pair = nullptr;
  const float* expert_weights = nullptr;
  const int32_t* first_offset = nullptr;  ///< null: all rows
  const int32_t* last_offset = nullptr;
  int64_t top_k = 1;
  int64_t width = 0;
  bool accumulate = false;
  DeviceRows<float> out;
};

template <int kColumns>
__global__ void __launch_bounds__(kThreads) combine_rows(const Combine p) {
  wait_for_kernel_before();
  using Columns = Pack<float, kColumns>;
  const int64_t t = blockIdx.x;
  const int begin = p.first_offset != nullptr ? *p.first_offset : 0;
  const int end = p.last_offset != nullptr ? *p.last_offset : INT32_MAX;
  float* out = p.out.row(t);
  if (const int64_t c = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kColumns; c < p.width) {
    Columns sum = p.accumulate ? *reinterpret_cast<const Columns*>(out + c) : Columns{};
#pragma unroll 8
    for (int64_t j = 0; j < p.top_k; ++j) {  // loads of several experts at a time
      const int row = p.row_of_pair[t * p.top_k + j];
      const bool is_here = row >= begin && row < end;
      const float weight = is_here ? p.expert_weights[t * p.top_k + j] : 0.0F;
      const auto add =
          is_here ? *reinterpret_cast<const Columns*>(p.expert_out.row(row) + c) : Columns{};
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        sum.values[i] = is_here ? sum.values[i] + weight * add.values[i] : sum.values[i];
      }
    }
    *reinterpret_cast<Columns*>(out + c) = sum;
  }
}

}  // namespace

void CudaOps::do_moe_gate(const MoeGateParams& params, StreamView stream) {
  const Gate gate{.logits = rows_of<float>(params.logits),
                  .bias = params.bias.as<float>(),
                  .scoring = params.scoring,
                  .topk = params.topk,
                  .num_tokens = static_cast<int32_t>(params.logits.dim(0)),
                  .num_experts = static_cast<int32_t>(params.logits.dim(1)),
                  .top_k = static_cast<int32_t>(params.expert_ids.dim(1)),
                  .num_groups = static_cast<int32_t>(params.num_groups),
                  .num_kept_groups = static_cast<int32_t>(params.num_kept_groups),
                  .normalize = params.normalize,
                  .scale = params.scale,
                  .expert_ids = rows_of<int32_t>(params.expert_ids),
                  .expert_weights = rows_of<float>(params.expert_weights)};
  const int64_t shared_bytes =
      kGateWarps * (2 * gate.num_experts + gate.num_groups) * int64_t{sizeof(float)};
  TESSERA_CHECK(shared_bytes <= kMaxSharedBytes, "moe_gate: too many experts");
  launch_early("moe_gate",
               choose_experts,
               {to_grid(ceil_div(gate.num_tokens, kGateWarps)), kGateWarps * kWarp, shared_bytes},
               device_.enter(stream),
               gate);
}

void CudaOps::do_moe_permute(const MoePermuteParams& params, StreamView stream) {
  const cudaStream_t on = device_.enter(stream);
  const int64_t num_pairs = params.expert_ids.num_elements();
  launch_early("moe_permute (sort)",
               sort_pairs,
               {to_grid(params.offsets.dim(0) - 1), kThreads},
               on,
               Sort{params.expert_ids.as<int32_t>(),
                    params.offsets.as<int32_t>(),
                    params.row_of_pair.as<int32_t>(),
                    num_pairs});
  const auto copy = [&](auto tag, int64_t columns) {  // of elements as wide as `columns` columns
    using T = decltype(tag);
    launch_early("moe_permute (copy)",
                 permute_rows<T>,
                 {to_grid(num_pairs), kThreads},
                 on,
                 Permute<T>{{static_cast<const T*>(params.x.data), params.x.stride[0] / columns},
                            static_cast<T*>(params.permuted.data),
                            params.row_of_pair.as<int32_t>(),
                            params.expert_ids.dim(1),
                            params.x.dim(1) / columns});
  };
  visit_dtype(params.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t width = params.x.dim(1);
    if (is_packable(params.x, width) && is_packable(params.permuted, width)) {
      copy(Pack<T, kPackColumns>{}, kPackColumns);
    } else {
      copy(tag, 1);
    }
  });
}

void CudaOps::do_moe_combine(const MoeCombineParams& params, StreamView stream) {
  const bool has_window = params.offsets.data != nullptr;
  const auto* offsets = params.offsets.as<int32_t>();
  const int64_t width = params.out.dim(1);
  const bool is_packed = is_packable(params.expert_out, width) && is_packable(params.out, width);
  launch_early("moe_combine",
               is_packed ? combine_rows<kPackColumns> : combine_rows<1>,
               {{to_grid(params.out.dim(0)),
                 to_grid(ceil_div(width, kThreads * (is_packed ? kPackColumns : 1)))},
                kThreads},
               device_.enter(stream),
               Combine{.expert_out = rows_of<float>(params.expert_out),
                       .row_of_pair = params.row_of_pair.as<int32_t>(),
                       .expert_weights = params.expert_weights.as<float>(),
                       .first_offset = has_window ? offsets : nullptr,
                       .last_offset = has_window ? offsets + params.offsets.dim(0) - 1 : nullptr,
                       .top_k = params.row_of_pair.dim(1),
                       .width = width,
                       .accumulate = params.accumulate,
                       .out = rows_of<float>(params.out)});
}

}  // namespace tessera::kernels::cuda
