// Merges what the thread blocks of Hopper's decode attention, and the exact window's pass, have of
// one sequence.
#pragma once

#include "kernels/cuda/attention/decode_pass.cuh"
#include "kernels/cuda/attention/decode_sm90_part.cuh"

namespace tessera::kernels::cuda {

/// Weighs `num` splits of one head, with lse_of(split) their log-sum-exps of base 2: lane l of the
/// calling warp gets the weights of splits l, l + 32, ... in `own`, all lanes the natural
/// log-sum-exp.
template <int kMaxSplits>
struct SplitWeights {
  float own[kMaxSplits / 32];
  float lse;

  template <typename LseOf>
  __device__ __forceinline__ SplitWeights(const LseOf& lse_of, int num) {
    const int lane = threadIdx.x % 32;
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < kMaxSplits / 32; ++i) {
      const int split = i * 32 + lane;
      own[i] = split < num ? lse_of(split) : -INFINITY;
      top = fmaxf(top, own[i]);
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFU, top, offset));
    }
    top = top == -INFINITY ? 0.0F : top;  // no tokens at all
    float sum = 0.0F;
#pragma unroll
    for (float& weight : own) {
      weight = exp2f(weight - top);
      sum += weight;
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(0xFFFFFFFFU, sum, offset);
    }
    const float inverse = sum > 0.0F ? 1.0F / sum : 0.0F;
#pragma unroll
    for (float& weight : own) {
      weight *= inverse;
    }
    lse = (top + log2f(sum)) * 0.69314718055994531F;
  }
};

__device__ __forceinline__ void add_weighted(float (&sum)[4], float weight, const float4& part) {
  sum[0] += weight * part.x;
  sum[1] += weight * part.y;
  sum[2] += weight * part.z;
  sum[3] += weight * part.w;
}

__device__ __forceinline__ void store_columns(__nv_bfloat16* out, const float (&sum)[4]) {
  const __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(sum[0], sum[1]),
                                  __floats2bfloat162_rn(sum[2], sum[3])};
  *reinterpret_cast<uint2*>(out) = *reinterpret_cast<const uint2*>(pair);
}

/// Merges the splits of sequences that are cut, and the window as one more: a warp a head, several
/// where a head has many.
template <int kValueWidth, int kHeadWarps>
__global__ void __launch_bounds__(256)
    combine_splits_kernel(const __grid_constant__ DecodeSm90Args args, int num_parts) {
  constexpr int kMaxSplits = 160;  // no GPU of this kind has more multiprocessors
  constexpr int kSteps = (kValueWidth + 127) / 128;
  constexpr int kHeads = 8 / kHeadWarps;
  __shared__ float4 partial[kHeadWarps > 1 ? 8 : 1][kSteps][32];
  asm volatile("griddepcontrol.wait;" ::: "memory");
  const int sequence = blockIdx.x;
  const DecodeSplit split = DecodeSplit::create(args.costs_before[args.num_sequences], num_parts);
  const int before = args.costs_before[sequence];
  const int first = split.first_part(before);
  const int num_paged =
      split.last_part(before, detail::PagedTokens(args, sequence).num_blocks()) - first + 1;
  const int num = num_paged + (args.window_lse != nullptr ? 1 : 0);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int head = blockIdx.y * kHeads + warp / kHeadWarps;
  if (num <= 1) {
    return;
  }
  float sum[kSteps][4] = {};
  float lse = 0.0F;
  if (head < args.num_heads) {
    const int64_t row = DecodeSplit::partial(first, sequence) * args.num_heads + head;
    const int64_t window_row = int64_t{sequence} * args.num_heads + head;
    const SplitWeights<kMaxSplits> weights(
        [&](int number) {
          return number < num_paged ? args.split_lse[row + int64_t{number} * args.num_heads]
                                    : args.window_lse[window_row] * kLog2E;
        },
        num);
    lse = weights.lse;
#pragma unroll 4
    for (int number = warp % kHeadWarps; number < num; number += kHeadWarps) {
      float weight = 0.0F;
#pragma unroll
      for (int i = 0; i < kMaxSplits / 32; ++i) {
        weight = number / 32 == i ? weights.own[i] : weight;
      }
      weight = __shfl_sync(0xFFFFFFFFU, weight, number % 32);
      const bool is_paged = number < num_paged;
      const float* part =
          is_paged ? args.split_out + (row + int64_t{number} * args.num_heads) * kValueWidth
                   : args.window_out + window_row * args.latent_width;
      const int width = is_paged ? kValueWidth : args.latent_width;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int column = step * 128 + lane * 4;
        if (column < width) {
          add_weighted(sum[step], weight, __ldcs(reinterpret_cast<const float4*>(part + column)));
        }
      }
    }
  }
  if constexpr (kHeadWarps > 1) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      partial[warp][step][lane] =
          make_float4(sum[step][0], sum[step][1], sum[step][2], sum[step][3]);
    }
    __syncthreads();
    if (warp % kHeadWarps != 0) {
      return;
    }
    for (int other = 1; other < kHeadWarps; ++other) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        add_weighted(sum[step], 1.0F, partial[warp + other][step][lane]);
      }
    }
  }
  if (head >= args.num_heads) {
    return;
  }
  __nv_bfloat16* out = args.out + sequence * args.out_stride[0] + head * args.out_stride[1];
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int column = step * 128 + lane * 4;
    if (column < args.latent_width) {
      store_columns(out + column, sum[step]);
    }
  }
  if (lane == 0) {
    args.log_sum_exp[sequence * args.lse_stride + head] = lse;
  }
}

}  // namespace tessera::kernels::cuda
