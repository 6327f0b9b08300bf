// Decode attention on latents for Hopper: one key and value row a token, shared by all heads.
//
// A thread block is persistent and works through its part of the step's cache blocks
// (decode_split.h). One warp feeds a ring of cache blocks in shared memory with the bulk tensor
// copy engine, two warpgroups compute. Narrow (64 heads and fewer): they take turns over the
// blocks, each with sums of its own, which meet at a sequence's end. Wide (up to 128 heads): each
// has half of the heads and both read every block. Sources: FlashAttention-3 (arXiv 2407.08608) for
// warp roles and the overlap of softmax and products; FlashMLA for the ring of cache blocks.
#pragma once

#include "kernels/cuda/attention/decode_split.h"
#include "kernels/cuda/sm90.cuh"

namespace tessera::kernels::cuda {

/// What the copy engine reads, in boxes of 64 x 64: rows beyond the heads and columns beyond the
/// widths come as zeros.
struct DecodeSm90Maps {
  CUtensorMap latents;   ///< [blocks, 64, w]
  CUtensorMap ropes;     ///< [blocks, 64, dr]
  CUtensorMap q_latent;  ///< [B, H, w]
  CUtensorMap q_rope;    ///< [B, H, dr]
};

struct DecodeSm90Args {
  const int* block_tables = nullptr;  ///< [B, ...]
  int64_t table_stride = 0;
  const int* lengths = nullptr;  ///< [B]
  int num_sequences = 0;
  float scale_log2 = 0.0F;  ///< softmax scale times log2(e)
  int num_heads = 0;
  int latent_width = 0;          ///< w
  __nv_bfloat16* out = nullptr;  ///< [B, H, w]
  int64_t out_stride[2] = {};
  float* log_sum_exp = nullptr;  ///< [B, H], natural
  int64_t lse_stride = 0;
  /// Of sequences that are cut, by DecodeSplit::partial(): [parts + B, H, kValueWidth], and
  /// log-sum-exps of base 2 [parts + B, H].
  float* split_out = nullptr;
  float* split_lse = nullptr;
  int* costs_before = nullptr;  ///< [B + 1], of the sequences before each; of all at the end
};

template <int kValuePanels_, bool kIsWide_>
struct DecodeSm90Shape {
  static constexpr int kValuePanels = kValuePanels_;
  static constexpr bool kIsWide = kIsWide_;
  static constexpr int kPanels = kValuePanels + 1;  // the last one is the rope part
  static constexpr int kBlock = 64;
  static constexpr int kPanelBytes = kBlock * 128;
  static constexpr int kStageBytes = kPanels * kPanelBytes;
  static constexpr int kTileBytes = kPanels * kPanelBytes;  // queries of one warpgroup
  static constexpr int kNumTiles = kIsWide ? 2 : 1;
  static constexpr int kQueryBytes = kNumTiles * kTileBytes;
  static constexpr int kMergeBytes = kIsWide ? 0 : 64 * 64 * 4;  // 64 columns of a warpgroup's sums
  static constexpr int kStateBytes = 2048;                       // maxima and sums of one warpgroup
  static constexpr int kBarrierBytes = 1024 + kStateBytes;
  static constexpr int kMaxShared = 232448 - 1024;  // less what alignment may take
  static constexpr int kFixedBytes = kBarrierBytes + kMergeBytes + kQueryBytes;
  static constexpr int kFit = (kMaxShared - kFixedBytes) / kStageBytes;
  // Narrow: an even number, so that a stage is always read by the same warpgroup. Otherwise one
  // that is ahead could take a stage's last phase but one for the one it waits for.
  static constexpr int kStages = kFit > 8 ? 8 : (kIsWide ? kFit : kFit / 2 * 2);
  static constexpr int kSharedBytes = kFixedBytes + kStages * kStageBytes + 1024;
  static constexpr int kThreads = 384;
  static constexpr int kValueWidth = kValuePanels * 64;
};

namespace detail {

using namespace sm90;  // NOLINT: instructions

constexpr float kLowest = -1e30F;

/// Sums of one warpgroup over 64 rows: thread t has rows 16 (t / 32) + t % 32 / 4 and 8 below, of
/// each group of 8 columns the two at 2 (t % 4).
template <typename Shape>
struct Accumulator {
  static constexpr int kCount = Shape::kValuePanels * 32;
  float values[kCount];
  float max[2];
  float sum[2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] = 0.0F;
    }
    max[0] = max[1] = kLowest;
    sum[0] = sum[1] = 0.0F;
  }
};

/// Zeroes value rows [begin, 64) of a block: what lies there was never written. By 128 threads.
template <typename Shape>
__device__ __forceinline__ void clear_rows(uint8_t* stage, int begin, int thread) {
  const int num_chunks = (64 - begin) * 8;
  for (int chunk = thread; chunk < num_chunks * Shape::kValuePanels; chunk += 128) {
    const int panel = chunk / num_chunks;
    const int within = chunk % num_chunks;
    *reinterpret_cast<uint4*>(stage + panel * Shape::kPanelBytes + (begin + within / 8) * 128 +
                              within % 8 * 16) = make_uint4(0, 0, 0, 0);
  }
}

template <typename Shape>
__device__ __forceinline__ void start_scores(float (&scores)[32], uint32_t tile, uint32_t stage) {
  const uint64_t a = tile_descriptor(tile, 0);
  const uint64_t b = tile_descriptor(stage, 0);
#pragma unroll
  for (int k = 0; k < Shape::kPanels * 4; ++k) {
    const uint64_t offset = (k / 4) * (Shape::kPanelBytes / 16) + (k % 4) * 2;
    wgmma_rows(scores, a + offset, b + offset, k > 0);
  }
  wgmma_commit();
}

template <typename Shape>
__device__ __forceinline__ void mask_scores(float (&scores)[32], int num_valid, int lane) {
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    if ((i / 4) * 8 + (lane % 4) * 2 + (i & 1) >= num_valid) {
      scores[i] = kLowest;
    }
  }
}

/// What the sums so far have to be multiplied by, each of a thread's two rows.
struct Rescale {
  bool is_needed = false;  // the same in all threads of a warp
  float factor[2];
};

/// Scores to probabilities (unnormalised), in place. Updates maxima and sums of probabilities, not
/// the values.
template <typename Shape>
__device__ __forceinline__ Rescale softmax(float (&scores)[32],
                                           Accumulator<Shape>& sums,
                                           float scale_log2) {
  float top[2] = {kLowest, kLowest};
#pragma unroll
  for (int i = 0; i < 32; i += 4) {
    top[0] = fmaxf(top[0], fmaxf(scores[i], scores[i + 1]));
    top[1] = fmaxf(top[1], fmaxf(scores[i + 2], scores[i + 3]));
  }
  Rescale rescale;
  bool grows = false;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(0xFFFFFFFFU, top[r], 1));
    top[r] = fmaxf(top[r], __shfl_xor_sync(0xFFFFFFFFU, top[r], 2));
    top[r] = fmaxf(sums.max[r], top[r] * scale_log2);
    // Rescaling is put off while the numbers stay small: bfloat16 has the range.
    grows = grows || top[r] > sums.max[r] + 8.0F;
  }
  rescale.is_needed = __any_sync(0xFFFFFFFFU, grows);
  if (rescale.is_needed) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      rescale.factor[r] = exp2f(sums.max[r] - top[r]);
      sums.sum[r] *= rescale.factor[r];
      sums.max[r] = top[r];
    }
  }
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    scores[i] = exp2f(fmaf(scores[i], scale_log2, -sums.max[i / 2 % 2]));
    sums.sum[i / 2 % 2] += scores[i];
  }
  return rescale;
}

/// Probabilities as wgmma's left operand.
__device__ __forceinline__ void pack(const float (&probabilities)[32], uint32_t (&packed)[4][4]) {
#pragma unroll
  for (int i = 0; i < 32; i += 2) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(probabilities[i], probabilities[i + 1]);
    packed[i / 8][i / 2 % 4] = *reinterpret_cast<const uint32_t*>(&pair);
  }
}

template <typename Shape>
__device__ __forceinline__ void apply(const Rescale& rescale, Accumulator<Shape>& sums) {
  if (rescale.is_needed) {
#pragma unroll
    for (int i = 0; i < Accumulator<Shape>::kCount; ++i) {
      sums.values[i] *= rescale.factor[i / 2 % 2];
    }
  }
}

template <typename Shape>
__device__ __forceinline__ void start_values(Accumulator<Shape>& sums,
                                             const uint32_t (&packed)[4][4],
                                             uint32_t stage) {
  const uint64_t b = tile_descriptor(stage, Shape::kPanelBytes);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    wgmma_pv(sums.values, packed[k], b + k * (16 * 128 / 16));
  }
  wgmma_commit();
}

/// Where a sequence's result goes.
struct Destination {
  int sequence = 0;
  int64_t partial = -1;  ///< -1: the sequence is not cut
};

template <typename Shape>
__device__ __forceinline__ void write_result(const DecodeSm90Args& args,
                                             Accumulator<Shape>& sums,
                                             Destination to,
                                             int first_head) {
  const int thread = threadIdx.x % 128;
  const int lane = thread % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int head = first_head + thread / 32 * 16 + lane / 4 + r * 8;
    if (head >= args.num_heads) {
      continue;
    }
    const float inverse = sums.sum[r] > 0.0F ? 1.0F / sums.sum[r] : 0.0F;
    const float lse = sums.sum[r] > 0.0F ? sums.max[r] + log2f(sums.sum[r]) : -INFINITY;
    if (to.partial >= 0) {
      const int64_t row = to.partial * args.num_heads + head;
      float* out = args.split_out + row * Shape::kValueWidth;
#pragma unroll
      for (int i = 0; i < Accumulator<Shape>::kCount; i += 4) {
        const int column = i / 4 * 8 + lane % 4 * 2;
        *reinterpret_cast<float2*>(out + column) =
            make_float2(sums.values[i + 2 * r] * inverse, sums.values[i + 2 * r + 1] * inverse);
      }
      if (lane % 4 == 0) {
        args.split_lse[row] = lse;
      }
      continue;
    }
    __nv_bfloat16* out = args.out + to.sequence * args.out_stride[0] + head * args.out_stride[1];
#pragma unroll
    for (int i = 0; i < Accumulator<Shape>::kCount; i += 4) {
      const int column = i / 4 * 8 + lane % 4 * 2;
      if (column < args.latent_width) {
        *reinterpret_cast<__nv_bfloat162*>(out + column) = __floats2bfloat162_rn(
            sums.values[i + 2 * r] * inverse, sums.values[i + 2 * r + 1] * inverse);
      }
    }
    if (lane % 4 == 0) {
      args.log_sum_exp[to.sequence * args.lse_stride + head] = lse * 0.69314718055994531F;
    }
  }
}

/// Narrow: the second warpgroup's sums come to the first, 64 columns at a time.
template <typename Shape>
__device__ __forceinline__ void merge_warpgroups(Accumulator<Shape>& sums,
                                                 float* shared,
                                                 float* state) {
  constexpr int kPart = 32;
  constexpr int kParts = Accumulator<Shape>::kCount / kPart;
  static_assert(kPart * 128 * sizeof(float) <= Shape::kMergeBytes);
  const int thread = threadIdx.x % 128;
  const bool is_second = threadIdx.x >= 256;
  if (is_second) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      state[r * 128 + thread] = sums.max[r];
      state[(2 + r) * 128 + thread] = sums.sum[r];
    }
  }
  float own[2];
  float other[2];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    if (is_second) {
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        shared[i * 128 + thread] = sums.values[part * kPart + i];
      }
    }
    named_barrier<1, 256>();
    if (!is_second) {
      if (part == 0) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const float max = state[r * 128 + thread];
          const float top = fmaxf(sums.max[r], max);
          own[r] = exp2f(sums.max[r] - top);
          other[r] = exp2f(max - top);
          sums.sum[r] = sums.sum[r] * own[r] + state[(2 + r) * 128 + thread] * other[r];
          sums.max[r] = top;
        }
      }
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        const int at = part * kPart + i;
        sums.values[at] =
            sums.values[at] * own[at / 2 % 2] + shared[i * 128 + thread] * other[at / 2 % 2];
      }
    }
    named_barrier<1, 256>();
  }
}

/// The part of one thread block: sequences [begin, end).
struct Part {
  DecodeSplit split;
  int number = 0;
  int begin = 0;
  int end = 0;
  int before = 0;  ///< cost of the sequences before `begin`
};

/// What a part has of one sequence.
struct PartBlocks {
  int first = 0;
  int last = 0;
  int total = 0;
  int length = 0;
};

__device__ __forceinline__ int blocks_of_length(int length) {
  return (length + 63) / 64;
}

/// Steps to the next sequence: `before` becomes the cost of the sequences before it.
__device__ __forceinline__ PartBlocks next_blocks(const DecodeSm90Args& args,
                                                  const Part& part,
                                                  int sequence,
                                                  int& before) {
  PartBlocks blocks;
  blocks.length = args.lengths[sequence];
  blocks.total = blocks_of_length(blocks.length);
  const BlockRange range = part.split.blocks(part.number, before, blocks.total);
  blocks.first = range.begin;
  blocks.last = range.end;
  before += DecodeSplit::cost(blocks.total);
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

/// By all threads of the block. `scratch`: 32 numbers; `part` lies in shared memory too: it would
/// take registers from the sums for as long as the kernel runs.
template <int kThreads>
__device__ __forceinline__ void find_part(const DecodeSm90Args& args, int* scratch, Part& part) {
  const auto cost_of = [&](int sequence) {
    return sequence < args.num_sequences
               ? DecodeSplit::cost(blocks_of_length(args.lengths[sequence]))
               : 0;
  };
  int* found = scratch + 24;  // begin, end, cost before
  int total = 0;
  for (int base = 0; base < args.num_sequences; base += kThreads) {
    total += scan_block<kThreads>(cost_of(base + threadIdx.x), scratch).all;
  }
  const DecodeSplit split = DecodeSplit::create(total, gridDim.x);
  if (threadIdx.x == 0) {
    found[0] = args.num_sequences;
    found[1] = 0;
  }
  const int number = blockIdx.x;
  int base_cost = 0;
  for (int base = 0; base < args.num_sequences; base += kThreads) {
    const int sequence = base + threadIdx.x;
    const int cost = cost_of(sequence);
    const ScanResult scan = scan_block<kThreads>(cost, scratch);
    const int before = base_cost + scan.before;
    const int num_blocks = cost - DecodeSplit::kSequenceCost;
    if (sequence < args.num_sequences && split.first_part(before) <= number &&
        split.last_part(before, num_blocks) >= number) {
      atomicMin(found, sequence);
      atomicMax(found + 1, sequence + 1);
    }
    if (number == 0 && sequence < args.num_sequences) {
      args.costs_before[sequence] = before;
    }
    __syncthreads();
    if (found[0] == sequence) {
      found[2] = before;
    }
    base_cost += scan.all;
  }
  if (number == 0 && threadIdx.x == 0) {
    args.costs_before[args.num_sequences] = total;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    part = {split, number, found[0], found[1], found[2]};
  }
  __syncthreads();
}

/// Addresses in shared memory.
struct Ring {
  uint32_t full = 0;  ///< barriers, 8 bytes each
  uint32_t empty = 0;
  uint32_t slots = 0;
};

template <typename Shape>
__device__ __forceinline__ void load_queries(const DecodeSm90Maps& maps,
                                             const Ring& queries,
                                             int sequence,
                                             int number) {
  barrier_wait(queries.empty, (number + 1) & 1);
  barrier_expect(queries.full, Shape::kQueryBytes);
  for (int tile = 0; tile < Shape::kNumTiles; ++tile) {
    const uint32_t to = queries.slots + tile * Shape::kTileBytes;
#pragma unroll
    for (int panel = 0; panel < Shape::kValuePanels; ++panel) {
      copy_box<kEvictFirst>(to + panel * Shape::kPanelBytes,
                            &maps.q_latent,
                            panel * 64,
                            tile * 64,
                            sequence,
                            queries.full);
    }
    copy_box<kEvictFirst>(to + Shape::kValuePanels * Shape::kPanelBytes,
                          &maps.q_rope,
                          0,
                          tile * 64,
                          sequence,
                          queries.full);
  }
}

template <typename Shape>
__device__ __forceinline__ void load_block(const DecodeSm90Maps& maps,
                                           const Ring& ring,
                                           int id,
                                           int number) {
  const int slot = number % Shape::kStages;
  const uint32_t full = ring.full + slot * 8;
  barrier_wait(ring.empty + slot * 8, (number / Shape::kStages + 1) & 1);
  barrier_expect(full, Shape::kStageBytes);
  const uint32_t to = ring.slots + slot * Shape::kStageBytes;
#pragma unroll
  for (int panel = 0; panel < Shape::kValuePanels; ++panel) {
    copy_box<kEvictFirst>(to + panel * Shape::kPanelBytes, &maps.latents, panel * 64, 0, id, full);
  }
  copy_box<kEvictFirst>(to + Shape::kValuePanels * Shape::kPanelBytes, &maps.ropes, 0, 0, id, full);
}

/// One warp: queries and blocks of the part, in the order in which they are worked on.
template <typename Shape>
__device__ __forceinline__ void produce(const DecodeSm90Args& args,
                                        const DecodeSm90Maps& maps,
                                        const Part& part,
                                        const Ring& queries,
                                        const Ring& ring) {
  const int lane = threadIdx.x % 32;
  int number = 0;
  int before = part.before;
  for (int sequence = part.begin; sequence < part.end; ++sequence) {
    const PartBlocks blocks = next_blocks(args, part, sequence, before);
    const int* table = args.block_tables + sequence * args.table_stride;
    if (lane == 0) {
      load_queries<Shape>(maps, queries, sequence, sequence - part.begin);
    }
    for (int begin = blocks.first; begin < blocks.last; begin += 32) {
      const int own = begin + lane < blocks.last ? table[begin + lane] : 0;
      const int num = min(32, blocks.last - begin);
      for (int i = 0; i < num; ++i, ++number) {
        const int id = __shfl_sync(0xFFFFFFFFU, own, i);
        if (lane == 0) {
          load_block<Shape>(maps, ring, id, number);
        }
        __syncwarp();
      }
    }
  }
}

/// The blocks of one sequence's part, as one warpgroup meets them in the ring.
template <typename Shape>
struct BlockReader {
  const Ring& ring;
  uint8_t* stages;
  int number = 0;  ///< of the part's blocks before this sequence's
  PartBlocks blocks;

  /// Waits for block `block`; returns its address. Value rows that were never written become zero.
  __device__ __forceinline__ uint32_t wait(int block) const {
    const int slot = slot_of(block);
    barrier_wait(ring.full + slot * 8, (number + block - blocks.first) / Shape::kStages & 1);
    const int valid = num_valid(block);
    if (valid < 64) {
      clear_rows<Shape>(stages + slot * Shape::kStageBytes, valid, threadIdx.x % 128);
      fence_async_proxy();
      if (threadIdx.x < 256) {  // the two warpgroups have a barrier each
        named_barrier<2, 128>();
      } else {
        named_barrier<3, 128>();
      }
    }
    return ring.slots + slot * Shape::kStageBytes;
  }
  __device__ __forceinline__ void release(int block) const {
    if (threadIdx.x % 32 == 0) {  // a warp only knows of its own products
      barrier_arrive(ring.empty + slot_of(block) * 8);
    }
  }
  __device__ __forceinline__ void mask(float (&scores)[32], int block) const {
    if (num_valid(block) < 64) {
      mask_scores<Shape>(scores, num_valid(block), threadIdx.x % 32);
    }
  }

 private:
  __device__ __forceinline__ int slot_of(int block) const {
    return (number + block - blocks.first) % Shape::kStages;
  }
  __device__ __forceinline__ int num_valid(int block) const {
    return min(64, blocks.length - block * 64);
  }
};

/// Narrow: every other block, one after the other; the other warpgroup keeps the machine busy.
template <typename Shape>
__device__ __forceinline__ void attend_in_turns(const BlockReader<Shape>& reader,
                                                Accumulator<Shape>& sums,
                                                uint32_t tile,
                                                float scale_log2,
                                                int group) {
  float scores[32];
  uint32_t packed[4][4];
  for (int block = reader.blocks.first + group; block < reader.blocks.last; block += 2) {
    const uint32_t stage = reader.wait(block);
    pin(scores);
    wgmma_fence();
    start_scores<Shape>(scores, tile, stage);
    wgmma_wait<0>();
    pin(scores);
    reader.mask(scores, block);
    apply(softmax(scores, sums, scale_log2), sums);
    pack(scores, packed);
    pin(sums.values);
    wgmma_fence();
    start_values(sums, packed, stage);
    wgmma_wait<0>();
    pin(sums.values);
    reader.release(block);
  }
}

/// Wide: every block; the softmax of a block runs while the values of the one before are summed.
template <typename Shape>
__device__ __forceinline__ void attend_overlapped(const BlockReader<Shape>& reader,
                                                  Accumulator<Shape>& sums,
                                                  uint32_t tile,
                                                  float scale_log2) {
  const int last = reader.blocks.last - 1;
  if (last < reader.blocks.first) {
    return;
  }
  float scores[32];
  uint32_t packed[4][4];
  uint32_t stage = reader.wait(reader.blocks.first);
  pin(scores);
  wgmma_fence();
  start_scores<Shape>(scores, tile, stage);
  wgmma_wait<0>();
  pin(scores);
  reader.mask(scores, reader.blocks.first);
  apply(softmax(scores, sums, scale_log2), sums);
  pack(scores, packed);
#pragma unroll 1
  for (int block = reader.blocks.first; block < last; ++block) {
    const uint32_t next_stage = reader.wait(block + 1);
    pin(scores);
    pin(sums.values);
    wgmma_fence();
    start_scores<Shape>(scores, tile, next_stage);
    start_values(sums, packed, stage);
    wgmma_wait<1>();
    pin(scores);
    reader.mask(scores, block + 1);
    const Rescale rescale = softmax(scores, sums, scale_log2);
    wgmma_wait<0>();
    pin(sums.values);
    reader.release(block);
    apply(rescale, sums);
    pack(scores, packed);
    stage = next_stage;
  }
  pin(sums.values);
  wgmma_fence();
  start_values(sums, packed, stage);
  wgmma_wait<0>();
  pin(sums.values);
  reader.release(last);
}

template <typename Shape>
__device__ __forceinline__ void consume(const DecodeSm90Args& args,
                                        const Part& part,
                                        uint8_t* shared,
                                        const Ring& queries,
                                        const Ring& ring) {
  const int group = threadIdx.x / 128 - 1;
  const int thread = threadIdx.x % 128;
  const int first_head = Shape::kIsWide ? group * 64 : 0;
  const uint32_t tile = queries.slots + (Shape::kIsWide ? group * Shape::kTileBytes : 0);
  uint8_t* stages = shared + (ring.slots - shared_address(shared));
  Accumulator<Shape> sums;
  int count = 0;
  int before = part.before;
  for (int sequence = part.begin; sequence < part.end; ++sequence) {
    const PartBlocks blocks = next_blocks(args, part, sequence, before);
    const int number = sequence - part.begin;
    sums.clear();
    barrier_wait(queries.full, number & 1);
    const BlockReader<Shape> reader{ring, stages, count, blocks};
    if constexpr (Shape::kIsWide) {
      attend_overlapped(reader, sums, tile, args.scale_log2);
    } else {
      attend_in_turns(reader, sums, tile, args.scale_log2, group);
    }
    count += blocks.last - blocks.first;
    if (thread % 32 == 0) {
      barrier_arrive(queries.empty);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sums.sum[r] += __shfl_xor_sync(0xFFFFFFFFU, sums.sum[r], 1);
      sums.sum[r] += __shfl_xor_sync(0xFFFFFFFFU, sums.sum[r], 2);
    }
    if constexpr (!Shape::kIsWide) {
      merge_warpgroups(sums,
                       reinterpret_cast<float*>(shared + Shape::kBarrierBytes),
                       reinterpret_cast<float*>(shared + 1024));
    }
    if (Shape::kIsWide || group == 0) {
      const bool is_cut = blocks.first > 0 || blocks.last < blocks.total;
      write_result(args,
                   sums,
                   {sequence, is_cut ? DecodeSplit::partial(part.number, sequence) : -1},
                   first_head);
    }
  }
}

}  // namespace detail

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    decode_sm90_kernel(const __grid_constant__ DecodeSm90Maps maps,
                       const __grid_constant__ DecodeSm90Args args) {
  extern __shared__ uint8_t raw[];
  uint8_t* shared =
      reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  const uint32_t base = sm90::shared_address(shared);
  detail::Ring ring{.full = base, .empty = base + 64};
  detail::Ring queries{.full = base + 128, .empty = base + 192};
  queries.slots = base + Shape::kBarrierBytes + Shape::kMergeBytes;
  ring.slots = queries.slots + Shape::kQueryBytes;
  if (threadIdx.x == 0) {
    sm90::prefetch_tensor_map(&maps.latents);
    sm90::prefetch_tensor_map(&maps.ropes);
    sm90::prefetch_tensor_map(&maps.q_latent);
    sm90::prefetch_tensor_map(&maps.q_rope);
    constexpr int kGroupWarps = 4;
    for (int slot = 0; slot < Shape::kStages; ++slot) {
      sm90::barrier_init(ring.full + slot * 8, 1);
      sm90::barrier_init(ring.empty + slot * 8, Shape::kIsWide ? 2 * kGroupWarps : kGroupWarps);
    }
    sm90::barrier_init(queries.full, 1);
    sm90::barrier_init(queries.empty, 2 * kGroupWarps);
    sm90::barrier_init_fence();
  }
  __syncthreads();
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
  auto& part = *reinterpret_cast<detail::Part*>(shared + 768);
  detail::find_part<Shape::kThreads>(args, reinterpret_cast<int*>(shared + 512), part);
  if (threadIdx.x < 128) {
    sm90::give_registers<40>();
    if (threadIdx.x < 32) {
      detail::produce<Shape>(args, maps, part, queries, ring);
    }
  } else {
    sm90::take_registers<232>();
    detail::consume<Shape>(args, part, shared, queries, ring);
  }
}

/// Weighs `num` splits of one head: lane l of the calling warp gets the weights of splits l, l +
/// 32,
/// ... in `weights`, all lanes the natural log-sum-exp.
template <int kMaxSplits>
struct SplitWeights {
  float own[kMaxSplits / 32];
  float lse;

  __device__ __forceinline__ SplitWeights(const float* split_lse, int64_t stride, int num) {
    const int lane = threadIdx.x % 32;
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < kMaxSplits / 32; ++i) {
      const int split = i * 32 + lane;
      own[i] = split < num ? split_lse[split * stride] : -INFINITY;
      top = fmaxf(top, own[i]);
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFU, top, offset));
    }
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
    const float inverse = 1.0F / sum;
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

/// Merges the splits of sequences that are cut: a warp a head, several where a head has many.
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
  const int num =
      split.last_part(before, detail::blocks_of_length(args.lengths[sequence])) - first + 1;
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
    const SplitWeights<kMaxSplits> weights(args.split_lse + row, args.num_heads, num);
    lse = weights.lse;
#pragma unroll 4
    for (int number = warp % kHeadWarps; number < num; number += kHeadWarps) {
      float weight = 0.0F;
#pragma unroll
      for (int i = 0; i < kMaxSplits / 32; ++i) {
        weight = number / 32 == i ? weights.own[i] : weight;
      }
      weight = __shfl_sync(0xFFFFFFFFU, weight, number % 32);
      const float* part =
          args.split_out + (row + static_cast<int64_t>(number) * args.num_heads) * kValueWidth;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int column = step * 128 + lane * 4;
        if (column < kValueWidth) {
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
