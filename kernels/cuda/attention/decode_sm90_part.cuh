// Which cache blocks a thread block of Hopper's decode attention works on: found by each from the
// lengths alone, so that the host need not know them.
#pragma once

#include "kernels/cuda/attention/decode_sm90_args.cuh"
#include "kernels/cuda/attention/decode_split.h"

namespace tessera::kernels::cuda {
namespace detail {

using namespace sm90;  // NOLINT: instructions

/// The part of one thread block: sequences [begin, end).
struct Part {
  DecodeSplit split;
  int number = 0;
  int begin = 0;
  int end = 0;
  int before = 0;  ///< cost of the sequences before `begin`
  int first_head = 0;
};

/// What a part has of one sequence. Blocks and tokens are counted from the first block that holds
/// tokens of the pass.
struct PartBlocks {
  int first = 0;
  int last = 0;
  int begin_token = 0;  ///< of the pass: [begin_token, end_token)
  int end_token = 0;
  int table_begin = 0;  ///< the first block's place in the block table

  /// Whether other parts have blocks of the sequence too.
  [[nodiscard]] __device__ __forceinline__ bool is_cut() const {
    return first > 0 || last * 64 < end_token;
  }
};

/// The tokens of the pass: all of a sequence's but the window's, for its last query token.
struct PagedTokens {
  int begin = 0;
  int end = 0;

  __device__ __forceinline__ PagedTokens(const DecodeSm90Args& args, int sequence) {
    const int64_t length = __ldcg(args.lengths + sequence * args.length_stride);
    begin = static_cast<int>(args.window.outside_begin(length));
    end = static_cast<int>(args.window.outside_end(length));
  }
  [[nodiscard]] __device__ __forceinline__ int first_block() const { return begin / 64; }
  [[nodiscard]] __device__ __forceinline__ int num_blocks() const {
    return end > begin ? (end + 63) / 64 - first_block() : 0;
  }
};

/// Steps to the next sequence: `before` becomes the cost of the sequences before it.
__device__ __forceinline__ PartBlocks next_blocks(const DecodeSm90Args& args,
                                                  const Part& part,
                                                  int sequence,
                                                  int& before) {
  const PagedTokens tokens(args, sequence);
  PartBlocks blocks;
  const int num_blocks = tokens.num_blocks();
  blocks.table_begin = tokens.first_block();
  blocks.begin_token = tokens.begin - blocks.table_begin * 64;
  blocks.end_token = num_blocks > 0 ? tokens.end - blocks.table_begin * 64 : 0;
  const BlockRange range = part.split.blocks(part.number, before, num_blocks);
  blocks.first = range.begin;
  blocks.last = range.end;
  before += DecodeSplit::cost(num_blocks);
  return blocks;
}

/// Sum of `value` over the threads before this one, and over all: of the whole block.
struct ScanResult {
  int before = 0;
  int all = 0;
};

template <int kThreads>
__device__ __forceinline__ ScanResult scan_block(int value, int* warp_sums) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  int sum = value;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(0xFFFFFFFFU, sum, offset);
    sum += lane >= offset ? other : 0;
  }
  __syncthreads();
  if (lane == 31) {
    warp_sums[warp] = sum;
  }
  __syncthreads();
  ScanResult result;
  result.before = sum - value;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) {
    result.before += i < warp ? warp_sums[i] : 0;
    result.all += warp_sums[i];
  }
  return result;
}

__device__ __forceinline__ int cost_of(const DecodeSm90Args& args, int sequence) {
  return sequence < args.num_sequences ? DecodeSplit::cost(PagedTokens(args, sequence).num_blocks())
                                       : 0;
}

struct SequenceCosts {
  int before = 0;  ///< of the sequences before
  int all = 0;
};

/// By all threads of the block. `scratch`: 32 numbers.
template <int kThreads>
__device__ __forceinline__ SequenceCosts find_costs(const DecodeSm90Args& args,
                                                    int sequence,
                                                    int* scratch) {
  constexpr int kWarps = kThreads / 32;
  SequenceCosts costs;
#pragma unroll 4
  for (int other = threadIdx.x; other < args.num_sequences; other += kThreads) {
    const int cost = cost_of(args, other);
    costs.all += cost;
    costs.before += other < sequence ? cost : 0;
  }
  costs.all = __reduce_add_sync(0xFFFFFFFFU, costs.all);
  costs.before = __reduce_add_sync(0xFFFFFFFFU, costs.before);
  if (threadIdx.x % 32 == 0) {
    scratch[threadIdx.x / 32] = costs.all;
    scratch[kWarps + threadIdx.x / 32] = costs.before;
  }
  __syncthreads();
  costs = {};
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    costs.all += scratch[warp];
    costs.before += scratch[kWarps + warp];
  }
  return costs;
}

/// By all threads of the block. `scratch`: 32 numbers; `part` lies in shared memory too: it would
/// take registers from the sums for as long as the kernel runs.
template <typename Shape>
__device__ __forceinline__ void find_part(const DecodeSm90Args& args, int* scratch, Part& part) {
  constexpr int kThreads = Shape::kThreads;
  int* found = scratch + 24;  // begin, end, cost before
  const int first_cost = cost_of(args, threadIdx.x);
  const ScanResult first_scan = scan_block<kThreads>(first_cost, scratch);
  int total = first_scan.all;
  for (int base = kThreads; base < args.num_sequences; base += kThreads) {
    total += scan_block<kThreads>(cost_of(args, base + threadIdx.x), scratch).all;
  }
  const int number = blockIdx.x / args.num_head_tiles;
  const int head_tile = blockIdx.x % args.num_head_tiles;
  const DecodeSplit split = DecodeSplit::create(total, gridDim.x / args.num_head_tiles);
  if (threadIdx.x == 0) {
    found[0] = args.num_sequences;
    found[1] = 0;
  }
  __syncthreads();
  int base_cost = 0;
  for (int base = 0; base < args.num_sequences; base += kThreads) {
    const int sequence = base + threadIdx.x;
    const int cost = base == 0 ? first_cost : cost_of(args, sequence);
    const ScanResult scan = base == 0 ? first_scan : scan_block<kThreads>(cost, scratch);
    const int before = base_cost + scan.before;
    const int num_blocks = cost - DecodeSplit::kSequenceCost;
    if (sequence < args.num_sequences && split.first_part(before) <= number &&
        split.last_part(before, num_blocks) >= number) {
      atomicMin(found, sequence);
      atomicMax(found + 1, sequence + 1);
    }
    __syncthreads();
    if (found[0] == sequence) {
      found[2] = before;
    }
    base_cost += scan.all;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    part = {split, number, found[0], found[1], found[2], head_tile * Shape::kTileHeads};
  }
  __syncthreads();
}

}  // namespace detail

}  // namespace tessera::kernels::cuda
