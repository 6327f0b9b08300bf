// Which cache blocks a thread block of Hopper's decode attention works on: found by each from the
// lengths alone, so that the host need not know them.
#pragma once

#include <climits>

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
  Splits first_splits;  ///< of the first sequence, where parts before have blocks of it too
  Splits last_splits;   ///< of the last one, where parts behind have
};

/// What a part has of one sequence. Blocks and tokens are counted from the first block that holds
/// tokens of the pass.
struct PartBlocks {
  int first = 0;
  int last = 0;
  int begin_token = 0;  ///< of the pass: [begin_token, end_token)
  int end_token = 0;
  int table_begin = 0;  ///< the first block's place in the block table

  /// Of the sequence.
  [[nodiscard]] __device__ __forceinline__ int all() const { return (end_token + 63) / 64; }
  /// Whether other parts have blocks of it too.
  [[nodiscard]] __device__ __forceinline__ bool is_cut() const { return first > 0 || last < all(); }
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

/// By all threads of the block: `visit(sequence, splits, before)` with the cost of the
/// sequences before. Each thread has sequences of its own, and all equally many: those beyond the
/// last have no splits. `warp_sums`: kThreads / 32 numbers.
template <int kThreads, typename Visit>
__device__ __forceinline__ DecodeSplit
visit_sequences(const DecodeSm90Args& args, int num_parts, int* warp_sums, const Visit& visit) {
  const int first_cost = cost_of(args, threadIdx.x);
  const ScanResult first_scan = scan_block<kThreads>(first_cost, warp_sums);
  int total = first_scan.all;
  for (int base = kThreads; base < args.num_sequences; base += kThreads) {
    total += scan_block<kThreads>(cost_of(args, base + threadIdx.x), warp_sums).all;
  }
  const DecodeSplit split = DecodeSplit::create(total, num_parts);
  const auto splits_of = [&](int before, int cost) {
    return cost > 0 ? split.splits(before, cost - DecodeSplit::kSequenceCost) : Splits{0, 0};
  };
  visit(threadIdx.x, splits_of(first_scan.before, first_cost), first_scan.before);
  int before = first_scan.all;
  for (int base = kThreads; base < args.num_sequences; base += kThreads) {
    const int cost = cost_of(args, base + threadIdx.x);
    const ScanResult scan = scan_block<kThreads>(cost, warp_sums);
    visit(base + threadIdx.x, splits_of(before + scan.before, cost), before + scan.before);
    before += scan.all;
  }
  return split;
}

/// By all threads of the block. `scratch`: 32 numbers; `part` lies in shared memory too: it would
/// take registers from the sums for as long as the kernel runs.
template <typename Shape>
__device__ __forceinline__ void find_part(const DecodeSm90Args& args, int* scratch, Part& part) {
  int* found = scratch + 24;  // begin, end, cost before
  if (threadIdx.x == 0) {
    found[0] = args.num_sequences;
    found[1] = 0;
    found[2] = INT_MAX;
  }
  const int num_parts = static_cast<int>(gridDim.x) / args.num_head_tiles;
  // Later parts are launched first: earlier ones wait for their results.
  const int number = num_parts - 1 - static_cast<int>(blockIdx.x) / args.num_head_tiles;
  const int head_tile = blockIdx.x % args.num_head_tiles;
  const DecodeSplit split = visit_sequences<Shape::kThreads>(
      args, num_parts, scratch, [&](int sequence, Splits splits, int before) {
        if (splits.first_part <= number && number < splits.first_part + splits.count) {
          atomicMin(found, sequence);
          atomicMax(found + 1, sequence + 1);
          atomicMin(found + 2, before);
          if (splits.first_part < number) {
            part.first_splits = splits;
          }
          if (number + 1 < splits.first_part + splits.count) {
            part.last_splits = splits;
          }
        }
      });
  __syncthreads();
  if (threadIdx.x == 0) {
    part.split = split;
    part.number = number;
    part.begin = found[0];
    part.end = found[1];
    part.before = found[2];
    part.first_head = head_tile * Shape::kTileHeads;
  }
  __syncthreads();
}

}  // namespace detail

}  // namespace tessera::kernels::cuda
