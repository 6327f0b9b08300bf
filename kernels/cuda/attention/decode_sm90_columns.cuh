// Decode attention on latents for Hopper where 64 rows of sums do not fit one warpgroup's registers
// (more than 256 columns): two warpgroups share the heads and divide the value columns.
//
// The first one multiplies queries and keys, takes the softmax, and hands every block's weights to
// the second one through shared memory, each thread to the one with the same rows: a wgmma's left
// operand in registers lies as the scores do. Loads run ahead through the ring of decode_sm90.cuh.
// Source of the division: FlashMLA.
#pragma once

#include "kernels/cuda/attention/decode_sm90_ring.cuh"

namespace tessera::kernels::cuda {
namespace detail {

using namespace sm90;  // NOLINT: instructions

/// Where the first warpgroup leaves what the second one needs. Both meet at two barriers for each
/// message: it may be written when the second one has read the last, and read when it is written.
class Mailbox {
 public:
  template <typename Shape>
  __device__ __forceinline__ static Mailbox create(uint8_t* shared) {
    Mailbox box;
    box.factors_ = reinterpret_cast<float2*>(shared + Shape::kFactorOffset) + threadIdx.x % 128;
    box.weights_ = reinterpret_cast<uint4*>(shared + Shape::kWeightOffset) + threadIdx.x % 128;
    return box;
  }

  // The first warpgroup.
  __device__ __forceinline__ void send(const uint32_t (&packed)[4][4], const Rescale& rescale) {
    named_barrier<kRead, 256>();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      weights_[k * 128] = make_uint4(packed[k][0], packed[k][1], packed[k][2], packed[k][3]);
    }
    *factors_ = rescale.is_needed ? make_float2(rescale.factor[0], rescale.factor[1])
                                  : make_float2(1.0F, 1.0F);
    named_barrier_arrive<kWritten, 256>();
  }
  /// Maxima and sums of probabilities.
  template <int kPanels>
  __device__ __forceinline__ void send(const Accumulator<kPanels>& sums) {
    named_barrier<kRead, 256>();
    *reinterpret_cast<float4*>(weights_) =
        make_float4(sums.max[0], sums.max[1], sums.sum[0], sums.sum[1]);
    named_barrier_arrive<kWritten, 256>();
  }

  // The second one.
  __device__ __forceinline__ Rescale receive(uint32_t (&packed)[4][4]) {
    named_barrier_arrive<kRead, 256>();
    named_barrier<kWritten, 256>();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const uint4 weights = weights_[k * 128];
      packed[k][0] = weights.x;
      packed[k][1] = weights.y;
      packed[k][2] = weights.z;
      packed[k][3] = weights.w;
    }
    const float2 factor = *factors_;
    Rescale rescale;
    rescale.factor[0] = factor.x;
    rescale.factor[1] = factor.y;
    rescale.is_needed = __any_sync(0xFFFFFFFFU, factor.x != 1.0F || factor.y != 1.0F);
    return rescale;
  }
  template <int kPanels>
  __device__ __forceinline__ void receive(Accumulator<kPanels>& sums) {
    named_barrier_arrive<kRead, 256>();
    named_barrier<kWritten, 256>();
    const float4 state = *reinterpret_cast<const float4*>(weights_);
    sums.max[0] = state.x;
    sums.max[1] = state.y;
    sums.sum[0] = state.z;
    sums.sum[1] = state.w;
  }

 private:
  // 2 and 3 are the block reader's.
  static constexpr int kRead = 4;
  static constexpr int kWritten = 5;

  float2* factors_;  // of one thread
  uint4* weights_;
};

/// One sequence's part: result and state of the first warpgroup.
template <typename Shape>
__device__ __forceinline__ void lead(const BlockReader<Shape, 0, Shape::kLeadPanels>& reader,
                                     Accumulator<Shape::kLeadPanels>& sums,
                                     Mailbox& box,
                                     uint32_t tile,
                                     float scale_log2) {
  float scores[32];
  uint32_t packed[4][4];
#pragma unroll 1
  for (int block = reader.blocks.first; block < reader.blocks.last; ++block) {
    const BlockPanels panels = reader.wait(block);
    pin(scores);
    wgmma_fence();
    start_scores(scores, tile, HeldQueries<Shape>{}, panels.values, panels.rope);
    wgmma_wait<0>();
    pin(scores);
    reader.mask(scores, block);
    const Rescale rescale = softmax(scores, sums, scale_log2);
    pack(scores, packed);
    box.send(packed, rescale);
    apply(rescale, sums);
    pin(sums.values);
    wgmma_fence();
    start_values(sums, packed, panels.values);
    wgmma_wait<0>();
    pin(sums.values);
    reader.release(block);
  }
}

/// The same of the second one.
template <typename Shape>
__device__ __forceinline__ void follow(
    const BlockReader<Shape, Shape::kLeadPanels, Shape::kOtherPanels>& reader,
    Accumulator<Shape::kOtherPanels>& sums,
    Mailbox& box) {
  uint32_t packed[4][4];
#pragma unroll 1
  for (int block = reader.blocks.first; block < reader.blocks.last; ++block) {
    const uint32_t stage = reader.wait(block).values;
    apply(box.receive(packed), sums);
    pin(packed);
    pin(sums.values);
    wgmma_fence();
    start_values(sums, packed, stage + Shape::kLeadPanels * kDecodePanelBytes);
    wgmma_wait<0>();
    pin(sums.values);
    reader.release(block);
  }
}

template <typename Shape>
__device__ __forceinline__ void lead_part(const DecodeSm90Args& args,
                                          const Part& part,
                                          const Workspace& work) {
  using LeadShare = Share<Shape::kValueWidth, 0, 0, Accumulator<Shape::kLeadPanels>::kCount>;
  uint8_t* stages = work.shared + Shape::kFixedBytes;
  Mailbox box = Mailbox::create<Shape>(work.shared);
  Accumulator<Shape::kLeadPanels> sums;
  int count = 0;
  int before = part.before;
  for (int sequence = part.begin; sequence < part.end; ++sequence) {
    const PartBlocks blocks = next_blocks(args, part, sequence, before);
    start<0>(args, sums, blocks, sequence, part.first_head);
    barrier_wait(work.queries.full, (sequence - part.begin) & 1);
    lead<Shape>({args, part.first_head, work.ring, stages, count, blocks},
                sums,
                box,
                work.queries.slots,
                args.scale_log2);
    count += blocks.last - blocks.first;
    release_queries(work.queries.empty);
    add_up_rows(sums);
    box.send(sums);
    finish<Shape, LeadShare>(args, sums, part, blocks, sequence, part.first_head);
  }
}

template <typename Shape>
__device__ __forceinline__ void follow_part(const DecodeSm90Args& args,
                                            const Part& part,
                                            const Workspace& work) {
  constexpr int kFirstColumn = Shape::kLeadPanels * 64;
  using FollowShare =
      Share<Shape::kValueWidth, kFirstColumn, 0, Accumulator<Shape::kOtherPanels>::kCount>;
  uint8_t* stages = work.shared + Shape::kFixedBytes;
  Mailbox box = Mailbox::create<Shape>(work.shared);
  Accumulator<Shape::kOtherPanels> sums;
  int count = 0;
  int before = part.before;
  for (int sequence = part.begin; sequence < part.end; ++sequence) {
    const PartBlocks blocks = next_blocks(args, part, sequence, before);
    start<kFirstColumn>(args, sums, blocks, sequence, part.first_head);
    follow<Shape>({args, part.first_head, work.ring, stages, count, blocks}, sums, box);
    count += blocks.last - blocks.first;
    box.receive(sums);
    finish<Shape, FollowShare>(args, sums, part, blocks, sequence, part.first_head);
  }
}

}  // namespace detail

/// Of several tiles of 64 heads, neighbouring thread blocks work on the same part.
template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    decode_sm90_columns_kernel(const __grid_constant__ DecodeSm90Maps maps,
                               const __grid_constant__ DecodeSm90Args args) {
  extern __shared__ uint8_t raw[];
  const detail::Workspace work = detail::set_up<Shape>(raw, maps);
  auto& part = *reinterpret_cast<detail::Part*>(work.shared + 768);
  detail::find_part<Shape>(args, reinterpret_cast<int*>(work.shared + 512), part);
  if (threadIdx.x < 128) {
    sm90::give_registers<40>();
    if (threadIdx.x < 32) {
      const uint64_t hint = detail::block_hint<Shape>(part);
      detail::produce<Shape>(args, maps, part, work, [&](int id, int number) {
        detail::load_block<Shape>(maps, work.ring, id, number, hint);
      });
    }
  } else {
    sm90::take_registers<232>();
    wait_for_kernel_before();
    if (threadIdx.x < 256) {
      detail::lead_part<Shape>(args, part, work);
    } else {
      detail::follow_part<Shape>(args, part, work);
    }
  }
}

}  // namespace tessera::kernels::cuda
