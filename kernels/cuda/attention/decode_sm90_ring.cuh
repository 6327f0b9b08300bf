// The ring of cache blocks in shared memory: the warp that fills it, and how a warpgroup reads it.
#pragma once

#include "kernels/cuda/attention/decode_sm90_results.cuh"
#include "kernels/cuda/attention/decode_sm90_unpack.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace detail {

using namespace sm90;  // NOLINT: instructions

/// Addresses in shared memory.
struct Ring {
  uint32_t full = 0;  ///< barriers, 8 bytes each
  uint32_t empty = 0;
  uint32_t slots = 0;
};

/// Where a block lies in shared memory: its value panels, and that of its rope part.
struct BlockPanels {
  uint32_t values = 0;
  uint32_t rope = 0;
};

/// What a thread block has in shared memory: barriers, 128 bytes for find_part() at 512 and its
/// part at 768, from 1024 on what the shape says.
struct Workspace {
  uint8_t* shared = nullptr;
  Ring queries;
  Ring ring;  ///< of blocks
};

/// By all threads of the block.
template <typename Shape>
__device__ __forceinline__ Workspace set_up(uint8_t* raw, const DecodeSm90Maps& maps) {
  Workspace work;
  work.shared = sm90::align_tiles(raw);
  const uint32_t base = sm90::shared_address(work.shared);
  work.ring = {.full = base, .empty = base + 64};
  work.queries = {.full = base + 128, .empty = base + 192, .slots = base + Shape::kQueryOffset};
  work.ring.slots = base + Shape::kFixedBytes;
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&maps.latents);
    prefetch_tensor_map(&maps.ropes);
    if constexpr (Shape::kIsFloat8) {
      prefetch_tensor_map(&maps.scales);
    }
    prefetch_tensor_map(&maps.q_latent);
    prefetch_tensor_map(&maps.q_rope);
    for (int slot = 0; slot < Shape::kStages; ++slot) {
      barrier_init(work.ring.full + slot * 8, Shape::kFillers);
      barrier_init(work.ring.empty + slot * 8, Shape::kBlockWarps);
    }
    barrier_init(work.queries.full, 1);
    barrier_init(work.queries.empty, Shape::kQueryWarps);
    barrier_init_fence();
  }
  __syncthreads();
  return work;
}

template <typename Shape>
__device__ __forceinline__ void load_queries(
    const DecodeSm90Maps& maps, const Ring& queries, int first_head, int sequence, int number) {
  barrier_wait(queries.empty, (number + 1) & 1);
  barrier_expect(queries.full, Shape::kQueryBytes);
  for (int tile = 0; tile < Shape::kNumTiles; ++tile) {
    const uint32_t to = queries.slots + tile * Shape::kTileBytes;
#pragma unroll
    for (int panel = 0; panel < Shape::kQueryPanels; ++panel) {
      copy_box<kEvictFirst>(to + panel * kDecodePanelBytes,
                            &maps.q_latent,
                            panel * 64,
                            first_head + tile * 64,
                            sequence,
                            queries.full);
    }
    copy_box<kEvictFirst>(to + Shape::kQueryPanels * kDecodePanelBytes,
                          &maps.q_rope,
                          0,
                          first_head + tile * 64,
                          sequence,
                          queries.full);
  }
}

/// What the L2 cache is told of a part's cache blocks in bfloat16. That they may go first keeps
/// partial results there, which are written over by the next call: 5 us of 90 for 128 heads, 8 x
/// 32k. Of long parts of 128 heads it costs more than it saves: 12 us of 500 at 64 x 32k, with the
/// bytes from memory the same; why was not found.
template <typename Shape>
__device__ __forceinline__ uint64_t block_hint(const Part& part) {
  constexpr int kManyBlocks = 128;
  const bool is_long = part.split.total_cost / part.split.num_parts >= kManyBlocks;
  return Shape::kNumTiles > 1 && is_long ? kEvictNormal : kEvictFirst;
}

template <typename Shape>
__device__ __forceinline__ void load_block(
    const DecodeSm90Maps& maps, const Ring& ring, int id, int number, uint64_t hint) {
  const int slot = number % Shape::kStages;
  const uint32_t full = ring.full + slot * 8;
  barrier_wait(ring.empty + slot * 8, (number / Shape::kStages + 1) & 1);
  barrier_expect(full, Shape::kStageBytes);
  const uint32_t to = ring.slots + slot * Shape::kStageBytes;
  if constexpr (Shape::kIsFloat8) {
    copy_box(to, &maps.latents, 0, 0, id, full, hint);
    copy_box(to + Shape::kScaleOffset, &maps.scales, 0, 0, id, full, hint);
    copy_box(to + Shape::kCodeBytes, &maps.ropes, 0, 0, id, full, hint);
  } else {
#pragma unroll
    for (int panel = 0; panel < Shape::kValuePanels; ++panel) {
      copy_box(to + panel * kDecodePanelBytes, &maps.latents, panel * 64, 0, id, full, hint);
    }
    copy_box(to + Shape::kValuePanels * kDecodePanelBytes, &maps.ropes, 0, 0, id, full, hint);
  }
}

/// One warp: queries and blocks of the part. Where the queries of a sequence can only be loaded
/// when the one before is done, its first blocks come before them: the ring stays full. The kernel
/// before may still run when it begins. `load(id, number)` loads a block, the part's number
/// `number`.
template <typename Shape, typename Load>
__device__ __forceinline__ void produce(const DecodeSm90Args& args,
                                        const DecodeSm90Maps& maps,
                                        const Part& part,
                                        const Workspace& work,
                                        const Load& load) {
  const int lane = threadIdx.x % 32;
  int number = 0;
  int before = part.before;
  bool is_first = true;
  for (int sequence = part.begin; sequence < part.end; ++sequence) {
    const PartBlocks blocks = next_blocks(args, part, sequence, before);
    const int* table = args.block_tables + sequence * args.table_stride + blocks.table_begin;
    const int num_blocks = blocks.last - blocks.first;
    const int num_before = sequence == part.begin ? 0 : min(num_blocks, Shape::kLoadStages);
    for (int begin = 0; begin <= num_blocks; begin += 32) {
      const int at = blocks.first + begin + lane;
      const int own = at < blocks.last ? __ldcg(table + at) : 0;
      const int end = min(begin + 32, num_blocks + 1);
      if (is_first) {
        wait_for_kernel_before();
        is_first = false;
      }
#pragma unroll 1
      for (int i = begin; i < end; ++i) {
        const int id = __shfl_sync(0xFFFFFFFFU, own, i - begin);
        if (lane == 0 && i == num_before) {
          load_queries<Shape>(maps, work.queries, part.first_head, sequence, sequence - part.begin);
        }
        if (lane == 0 && i < num_blocks) {
          load(id, number + i);
        }
        __syncwarp();
      }
    }
    number += num_blocks;
  }
}

/// By each warp that multiplied them, when it is done.
__device__ __forceinline__ void release_queries(uint32_t empty) {
  if (threadIdx.x % 32 == 0) {
    barrier_arrive(empty);
  }
}

/// By all threads of a warpgroup that computes.
__device__ __forceinline__ void meet_in_warpgroup() {
  if (threadIdx.x < 256) {  // the two have a barrier each
    named_barrier<2, 128>();
  } else {
    named_barrier<3, 128>();
  }
}

/// The blocks of one sequence's part, as one warpgroup meets them in the ring: one that sums up the
/// values of kNumPanels panels.
template <typename Shape, int kFirstPanel = 0, int kNumPanels = Shape::kValuePanels>
struct BlockReader {
  const DecodeSm90Args& args;
  int first_head = 0;  ///< of the warpgroup's
  const Ring& ring;
  uint8_t* stages;
  int number = 0;  ///< of the part's blocks before this sequence's
  PartBlocks blocks;

  /// Waits for block `block`; returns where it lies. Value rows that are no tokens of the pass
  /// become zero: they may never have been written. Of float8 rows they are zero already, or become
  /// so when they are unpacked.
  __device__ __forceinline__ BlockPanels wait(int block) const {
    const int slot = slot_of(block);
    const uint32_t values = ring.slots + slot * Shape::kStageBytes;
    barrier_wait(ring.full + slot * 8, number_of(block) / Shape::kStages & 1);
    if constexpr (Shape::kIsFloat8) {
      return {values, Shape::rope_address(ring.slots, number_of(block))};
    }
    if (first_row(block) > 0 || end_row(block) < 64) {
      uint8_t* panels = stages + slot * Shape::kStageBytes + kFirstPanel * kDecodePanelBytes;
      clear_rows<kNumPanels>(panels, {0, first_row(block)}, threadIdx.x % 128);
      clear_rows<kNumPanels>(panels, {end_row(block), 64}, threadIdx.x % 128);
      fence_async_proxy();
      meet_in_warpgroup();
    }
    return {values, values + (Shape::kPanels - 1) * kDecodePanelBytes};
  }
  /// Narrow, float8 rows: the block's codes, which wait() says are at `panels.values`, become value
  /// panels in a place of the warpgroup's own.
  __device__ __forceinline__ void unpack(BlockPanels& panels, int block, int group) const {
    const int to = (group - 2) * Shape::kUnpackedBytes;  // the places lie in front of the ring
    unpack_pieces<Shape, 4>(stages + (panels.values - ring.slots),
                            stages + to,
                            args.scale_offset,
                            {first_row(block), end_row(block)},
                            [] {});
    meet_in_warpgroup();
    panels.values = ring.slots + to;
  }
  /// Wide, float8 rows: the calling warp's share of a block, to the block's stage, as soon as that
  /// is free. wait() returns when all have done theirs.
  __device__ __forceinline__ void unpack_share(int block) const {
    const int at = number_of(block);
    const int slot = at % Shape::kStages;
    barrier_wait(Shape::loaded_barrier(ring.full, at), at / Shape::kCodeStages & 1);
    unpack_pieces<Shape, 8>(
        stages + Shape::code_offset(at),
        stages + slot * Shape::kStageBytes,
        args.scale_offset,
        {first_row(block), end_row(block)},
        [&] { barrier_wait(ring.empty + slot * 8, (at / Shape::kStages + 1) & 1); });
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      barrier_arrive(ring.full + slot * 8);
      barrier_arrive(Shape::unpacked_barrier(ring.full, at));
    }
  }
  /// After the scores. Of float8 rows the rope part lies apart from the values.
  __device__ __forceinline__ void release_rope(int block) const {
    if constexpr (Shape::kIsFloat8) {
      if (threadIdx.x % 32 == 0) {
        barrier_arrive(Shape::rope_barrier(ring.full, number_of(block)));
      }
    }
  }
  __device__ __forceinline__ void release(int block) const {
    if (threadIdx.x % 32 == 0) {  // a warp only knows of its own products
      barrier_arrive(ring.empty + slot_of(block) * 8);
    }
  }
  __device__ __forceinline__ void mask(float (&scores)[32], int block) const {
    const int end_token = blocks.end_token - block * 64;
    // The first query token sees fewest tokens.
    if (first_row(block) > 0 || end_token - (args.num_tokens - 1) < 64) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int token = head_of(first_head, r) / args.token_heads;
        const int end = end_token - max(0, args.num_tokens - 1 - token);
        mask_scores(scores, r, {first_row(block), end});
      }
    }
  }

 private:
  __device__ __forceinline__ int number_of(int block) const {
    return number + block - blocks.first;
  }
  __device__ __forceinline__ int slot_of(int block) const {
    return number_of(block) % Shape::kStages;
  }
  // Rows of a block that are tokens of the pass: [first_row, end_row).
  __device__ __forceinline__ int first_row(int block) const {
    return max(0, blocks.begin_token - block * 64);
  }
  __device__ __forceinline__ int end_row(int block) const {
    return min(64, blocks.end_token - block * 64);
  }
};

}  // namespace detail

}  // namespace tessera::kernels::cuda
