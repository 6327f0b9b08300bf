// Merges what the thread blocks of Hopper's decode attention have of a sequence that is cut into
// many splits.
#pragma once

#include "kernels/cuda/attention/decode_pass.cuh"
#include "kernels/cuda/attention/decode_sm90_part.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {

/// Splits of a sequence that there can be, one a part.
inline constexpr int kMaxDecodeSplits = kMaxDecodeTickets;

namespace detail {

/// A sequence with more than DecodeSplit::kFewSplits splits; `splits.count` 0: there is none.
struct ManySplits {
  int sequence = 0;
  Splits splits;
};

/// The one of number `number`. By all threads of the block; `found` lies in shared memory.
template <int kThreads>
__device__ __forceinline__ void find_many_splits(const DecodeSm90Args& args,
                                                 int number,
                                                 int num_parts,
                                                 ManySplits& found) {
  __shared__ int scratch[kThreads / 32];
  if (threadIdx.x == 0) {
    found = {0, {0, 0}};
  }
  int num_before = 0;
  visit_sequences<kThreads>(args, num_parts, scratch, [&](int sequence, Splits splits, int) {
    const bool is_one = splits.count > DecodeSplit::kFewSplits;
    const ScanResult scan = scan_block<kThreads>(is_one ? 1 : 0, scratch);
    if (is_one && num_before + scan.before == number) {
      found = {sequence, splits};
    }
    num_before += scan.all;
  });
  __syncthreads();
}

/// By all threads of a block of 256.
__device__ __forceinline__ void clear_tickets(DecodeTicket* tickets) {
  static_assert(sizeof(DecodeTicket) % sizeof(uint4) == 0);
  constexpr int kChunks = sizeof(DecodeTicket) / sizeof(uint4) * kMaxDecodeTickets;
  for (int chunk = threadIdx.x; chunk < kChunks; chunk += 256) {
    reinterpret_cast<uint4*>(tickets)[chunk] = make_uint4(0, 0, 0, 0);
  }
}

/// Weighs `num` splits of one head, with lse_of(split) their log-sum-exps of base 2: that of split
/// i becomes weights[i * kStride]. By a warp; returns the natural log-sum-exp.
template <int kStride, typename LseOf>
__device__ __forceinline__ float weigh_splits(const LseOf& lse_of, int num, float* weights) {
  const int lane = threadIdx.x % 32;
  float own[kMaxDecodeSplits / 32];
  float top = -INFINITY;
#pragma unroll
  for (int i = 0; i < kMaxDecodeSplits / 32; ++i) {
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
  for (int i = 0; i < kMaxDecodeSplits / 32; ++i) {
    if (i * 32 + lane < num) {
      weights[(i * 32 + lane) * kStride] = own[i] * inverse;
    }
  }
  return (top + log2f(sum)) * 0.69314718055994531F;
}

__device__ __forceinline__ void add_weighted(float4& sum, float2 weight, const float4& part) {
  sum.x += weight.x * part.x;
  sum.y += weight.x * part.y;
  sum.z += weight.y * part.z;
  sum.w += weight.y * part.w;
}

}  // namespace detail

/// Merges the splits of sequences that have many, and makes the tickets of the others ready for the
/// next call. A thread block has 16 heads of a sequence and kGroups groups of 8 columns for each of
/// its column warps, of which there are 8 / kSplitWarps; that many warps share the splits of a
/// group.
template <int kValueWidth, int kGroups, int kSplitWarps>
__global__ void __launch_bounds__(256)
    combine_splits_kernel(const __grid_constant__ DecodeSm90Args args, int num_parts) {
  constexpr int kHeads = PartialTile::kHeads;
  constexpr int kStep = PartialTile::kGroupFloats;
  constexpr int kBatch = kSplitWarps > 1 ? 8 : 2;  // splits that a warp loads at a time
  __shared__ float weights[kMaxDecodeSplits * kHeads];
  __shared__ float4 others[kSplitWarps > 1 ? 8 : 1][kGroups][32];
  __shared__ detail::ManySplits found;
  // Most often there is nothing to merge: the kernel after is not to wait for that.
  let_next_kernel_start();
  detail::find_many_splits<256>(args, blockIdx.x, num_parts, found);
  const auto [sequence, splits] = found;
  const int num = splits.count;
  wait_for_kernel_before();
  if (blockIdx.x + blockIdx.y + blockIdx.z == 0) {
    detail::clear_tickets(args.tickets);
  }
  if (num == 0) {
    return;
  }
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int split_warp = warp % kSplitWarps;
  const int first_group = (blockIdx.z * (8 / kSplitWarps) + warp / kSplitWarps) * kGroups;
  const int first_head = blockIdx.y * kHeads;
  const int64_t first_partial = DecodeSplit::partial(splits.first_part, sequence);
  const int64_t partial_floats = PartialTile::floats(args.num_heads, kValueWidth);
  const float* parts = args.split_out +
                       PartialTile::offset(first_partial, args.num_heads, first_head, kValueWidth) +
                       first_group * kStep;
  float4 batch[kBatch][kGroups];
  const auto load = [&](int begin) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int number = begin + i * kSplitWarps;
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        batch[i][group] = number < num ? __ldcs(reinterpret_cast<const float4*>(
                                             parts + number * partial_floats + group * kStep))
                                       : float4{};
      }
    }
  };
  load(split_warp);  // on their way while the weights are found
  for (int own = warp; own < kHeads; own += 8) {
    const int head = first_head + own;
    if (head < args.num_heads) {
      const float* lse = args.split_lse + first_partial * args.num_heads + head;
      const float sum = detail::weigh_splits<kHeads>(
          [&](int number) { return lse[int64_t{number} * args.num_heads]; }, num, weights + own);
      if (blockIdx.z == 0 && lane == 0) {
        args.log_sum_exp[sequence * args.lse_stride + head] = sum;
      }
    }
  }
  __syncthreads();
  float4 sums[kGroups] = {};
  for (int begin = split_warp; begin < num; begin += kBatch * kSplitWarps) {
    if (begin != split_warp) {
      load(begin);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int number = begin + i * kSplitWarps;
      if (number < num) {
        const float* of_split = weights + number * kHeads + lane / 4;
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          detail::add_weighted(sums[group], {of_split[0], of_split[8]}, batch[i][group]);
        }
      }
    }
  }
  if constexpr (kSplitWarps > 1) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      others[warp][group][lane] = sums[group];
    }
    __syncthreads();
    if (split_warp != 0) {
      return;
    }
    for (int other = 1; other < kSplitWarps; ++other) {
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        detail::add_weighted(sums[group], {1.0F, 1.0F}, others[warp + other][group][lane]);
      }
    }
  }
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    const int column = (first_group + group) * PartialTile::kGroup + lane % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int head = first_head + lane / 4 + 8 * r;
      if (head >= args.num_heads || column >= args.latent_width) {
        continue;
      }
      const float2 sum = r == 0 ? make_float2(sums[group].x, sums[group].y)
                                : make_float2(sums[group].z, sums[group].w);
      *reinterpret_cast<__nv_bfloat162*>(args.out + sequence * args.out_stride[0] +
                                         head * args.out_stride[1] + column) =
          __floats2bfloat162_rn(sum.x, sum.y);
    }
  }
}

}  // namespace tessera::kernels::cuda
