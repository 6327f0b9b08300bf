// Decode attention on latents for Hopper: one key and value row a token, shared by all heads.
//
// A thread block is persistent and works through its part of the step's cache blocks
// (decode_split.h). One warp feeds a ring of cache blocks in shared memory with the bulk tensor
// copy engine, two warpgroups compute. Narrow (64 heads and fewer): they take turns over the
// blocks, each with sums of its own, which meet at a sequence's end. Wide (up to 128 heads): each
// has half of the heads and both read every block. Sources: FlashAttention-3 (arXiv 2407.08608) for
// warp roles and the overlap of softmax and products; FlashMLA for the ring of cache blocks.
#pragma once

#include "kernels/cuda/attention/decode_sm90_ring.cuh"

namespace tessera::kernels::cuda {
namespace detail {

using namespace sm90;  // NOLINT: instructions

/// Narrow: every other block, one after the other; the other warpgroup keeps the machine busy.
template <typename Shape>
__device__ __forceinline__ void attend_in_turns(const BlockReader<Shape>& reader,
                                                Accumulator<Shape::kValuePanels>& sums,
                                                uint32_t tile,
                                                float scale_log2,
                                                int group) {
  const HeldQueries<Shape> held{};
  float scores[32];
  uint32_t packed[4][4];
  for (int block = reader.blocks.first + group; block < reader.blocks.last; block += 2) {
    BlockPanels panels = reader.wait(block);
    if constexpr (Shape::kIsFloat8) {
      reader.unpack(panels, block, group);
    }
    pin(scores);
    wgmma_fence();
    start_scores(scores, tile, held, panels.values, panels.rope);
    wgmma_wait<0>();
    pin(scores);
    reader.release_rope(block);
    reader.mask(scores, block);
    apply(softmax(scores, sums, scale_log2), sums);
    pack(scores, packed);
    pin(sums.values);
    wgmma_fence();
    start_values(sums, packed, panels.values);
    wgmma_wait<0>();
    pin(sums.values);
    if constexpr (Shape::kIsFloat8) {
      meet_in_warpgroup();  // then the next block may take the place of its values
    } else {
      reader.release(block);
    }
  }
}

/// Wide: every block; the softmax of a block runs while the values of the one before are summed.
/// Gives the queries back as soon as they are multiplied.
template <typename Shape>
__device__ __forceinline__ void attend_overlapped(const BlockReader<Shape>& reader,
                                                  Accumulator<Shape::kValuePanels>& sums,
                                                  uint32_t tile,
                                                  const HeldQueries<Shape>& held,
                                                  float scale_log2,
                                                  uint32_t queries_empty) {
  const int last = reader.blocks.last - 1;
  if (last < reader.blocks.first) {
    release_queries(queries_empty);
    return;
  }
  float scores[32];
  uint32_t packed[4][4];
  if constexpr (Shape::kIsFloat8) {
    reader.unpack_share(reader.blocks.first);
  }
  const BlockPanels first = reader.wait(reader.blocks.first);
  uint32_t stage = first.values;
  pin(scores);
  wgmma_fence();
  start_scores(scores, tile, held, first.values, first.rope);
  if constexpr (Shape::kIsFloat8) {
    if (reader.blocks.first < last) {
      reader.unpack_share(reader.blocks.first + 1);
    }
  }
  wgmma_wait<0>();
  pin(scores);
  reader.release_rope(reader.blocks.first);
  reader.mask(scores, reader.blocks.first);
  apply(softmax(scores, sums, scale_log2), sums);
  pack(scores, packed);
#pragma unroll 1
  for (int block = reader.blocks.first; block < last; ++block) {
    const BlockPanels next = reader.wait(block + 1);
    pin(scores);
    pin(sums.values);
    wgmma_fence();
    start_scores(scores, tile, held, next.values, next.rope);
    start_values(sums, packed, stage);
    wgmma_wait<1>();
    pin(scores);
    reader.release_rope(block + 1);
    reader.mask(scores, block + 1);
    const Rescale rescale = softmax(scores, sums, scale_log2);
    if constexpr (Shape::kIsFloat8) {
      if (block + 2 <= last) {
        reader.unpack_share(block + 2);  // while the values are summed
      }
    }
    wgmma_wait<0>();
    pin(sums.values);
    reader.release(block);
    apply(rescale, sums);
    pack(scores, packed);
    stage = next.values;
  }
  release_queries(queries_empty);
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
                                        const Workspace& work) {
  const int group = threadIdx.x / 128 - 1;
  const int first_head = part.first_head + (Shape::kIsWide ? group * 64 : 0);
  const uint32_t tile = work.queries.slots + (Shape::kIsWide ? group * Shape::kTileBytes : 0);
  uint8_t* stages = work.shared + Shape::kFixedBytes;
  Accumulator<Shape::kValuePanels> sums;
  int count = 0;
  int before = part.before;
  for (int sequence = part.begin; sequence < part.end; ++sequence) {
    const PartBlocks blocks = next_blocks(args, part, sequence, before);
    const int number = sequence - part.begin;
    if (Shape::kIsWide || group == 0) {
      start<0>(args, sums, blocks, sequence, first_head);
    } else {
      sums.clear();
    }
    HeldQueries<Shape> held;
    held.load(args, sequence, first_head);
    barrier_wait(work.queries.full, number & 1);
    const BlockReader<Shape> reader{args, first_head, work.ring, stages, count, blocks};
    if constexpr (Shape::kIsWide) {
      attend_overlapped(reader, sums, tile, held, args.scale_log2, work.queries.empty);
    } else {
      attend_in_turns(reader, sums, tile, args.scale_log2, group);
      release_queries(work.queries.empty);
    }
    count += blocks.last - blocks.first;
    add_up_rows(sums);
    constexpr int kCount = Accumulator<Shape::kValuePanels>::kCount;
    if constexpr (Shape::kIsWide) {
      finish<Shape, Share<Shape::kValueWidth, 0, 0, kCount>>(
          args, sums, part, blocks, sequence, first_head);
    } else {
      merge_warpgroups<Shape>(sums,
                              reinterpret_cast<float*>(work.shared + Shape::kBarrierBytes),
                              reinterpret_cast<float*>(work.shared + 1024));
      constexpr int kHalf = kCount / 2;
      if (group == 0) {
        finish<Shape, Share<Shape::kValueWidth, 0, 0, kHalf>>(
            args, sums, part, blocks, sequence, first_head);
      } else {
        finish<Shape, Share<Shape::kValueWidth, 0, kHalf, kHalf>>(
            args, sums, part, blocks, sequence, first_head);
      }
    }
  }
}

}  // namespace detail

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    decode_sm90_kernel(const __grid_constant__ DecodeSm90Maps maps,
                       const __grid_constant__ DecodeSm90Args args) {
  extern __shared__ uint8_t raw[];
  const detail::Workspace work = detail::set_up<Shape>(raw, maps);
  auto& part = *reinterpret_cast<detail::Part*>(work.shared + 768);
  detail::find_part<Shape>(args, reinterpret_cast<int*>(work.shared + 512), part);
  if (threadIdx.x < 128) {
    sm90::give_registers<Shape::kProducerRegisters>();
    if (threadIdx.x < 32) {
      const uint64_t hint = detail::block_hint<Shape>(part);
      detail::produce<Shape>(args, maps, part, work, [&](int id, int number) {
        detail::load_block<Shape>(maps, work.ring, id, number, hint);
      });
    }
  } else {
    sm90::take_registers<Shape::kConsumerRegisters>();
    wait_for_kernel_before();
    detail::consume<Shape>(args, part, work);
  }
}

}  // namespace tessera::kernels::cuda
