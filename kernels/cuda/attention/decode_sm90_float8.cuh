// Decode attention on float8 rows for Hopper: the narrow and the wide form of decode_sm90.cuh with
// one step more in front of them, that turns codes into value panels of bfloat16.
//
// Narrow: a warpgroup unpacks the blocks that it computes, into a place of its own, while the other
// one keeps the tensor cores busy. Wide: both warpgroups read every block, and each warp of them
// unpacks its share of the block after the next one. There the copy engine brings codes and scales
// to one ring, the rope parts, which are bfloat16 and are multiplied where they lie, to another;
// unpacked blocks are in a third ring, which is read as if the rows had been bfloat16.
#pragma once

#include "kernels/cuda/attention/decode_sm90.cuh"

namespace tessera::kernels::cuda {

/// A stage of the ring: codes (64 rows of kValueWidth bytes), scales (64 times the 16 bytes that
/// hold one), the rope part. In front of the ring the value panels of each warpgroup's block.
template <int kValuePanels_>
struct DecodeSm90Float8TurnsShape : DecodeSm90Shape<kValuePanels_, false> {
  using Base = DecodeSm90Shape<kValuePanels_, false>;
  static constexpr bool kIsFloat8 = true;
  static constexpr int kScaleOffset = 64 * Base::kValueWidth;
  static constexpr int kCodeBytes = kScaleOffset + 64 * 16;
  static constexpr int kStageBytes = kCodeBytes + kDecodePanelBytes;
  static constexpr int kUnpackedBytes = Base::kValuePanels * kDecodePanelBytes;
  static constexpr int kFixedBytes = Base::kFixedBytes + 2 * kUnpackedBytes;
  static constexpr int kFit = (kDecodeMaxShared - kFixedBytes) / kStageBytes;
  static constexpr int kStages = kFit > 8 ? 8 : kFit / 2 * 2;
  static constexpr int kLoadStages = kStages;
  static constexpr int kSharedBytes = kFixedBytes + kStages * kStageBytes + 1024;
  static_assert(kStages >= 2 && kFixedBytes % 1024 == 0 && kCodeBytes % 1024 == 0);
  static constexpr int kPiecePanels = Base::kValuePanels == 1 ? 1 : 2;

  /// A block is done with when the scores are there: `barriers` is where the ring's are.
  __device__ __forceinline__ static uint32_t rope_barrier(uint32_t barriers, int number) {
    return barriers + 64 + number % kStages * 8;
  }
  __device__ __forceinline__ static uint32_t rope_address(uint32_t stages, int number) {
    return stages + number % kStages * kStageBytes + kCodeBytes;
  }
};

/// kStages stages of value panels, then kRopeStages of rope panels, then kCodeStages of codes and
/// scales.
template <int kValuePanels_>
struct DecodeSm90Float8Shape : DecodeSm90Shape<kValuePanels_, true, kValuePanels_ == 4 ? 1 : 0> {
  using Base = DecodeSm90Shape<kValuePanels_, true, kValuePanels_ == 4 ? 1 : 0>;
  static constexpr bool kIsFloat8 = true;
  static constexpr int kStageBytes = Base::kValuePanels * kDecodePanelBytes;
  // Two blocks are in use at a time and a third one is unpacked meanwhile.
  static constexpr int kStages = Base::kValuePanels < 4 ? 4 : 3;
  static constexpr int kScaleOffset = 64 * Base::kValueWidth;
  static constexpr int kCodeBytes = kScaleOffset + 64 * 16;
  static constexpr int kLoadBytes = kCodeBytes + kDecodePanelBytes;
  static constexpr int kFree = kDecodeMaxShared - Base::kFixedBytes - kStages * kStageBytes;
  // Codes are done with when they are unpacked, rope parts later, by the scores.
  static constexpr int kLoadFit = kFree / kLoadBytes;
  static constexpr int kCodeStages = kLoadFit > 8 ? 8 : kLoadFit;
  static constexpr int kRopeFit = (kFree - kCodeStages * kCodeBytes) / kDecodePanelBytes;
  static constexpr int kRopeStages = kRopeFit > 8 ? 8 : kRopeFit;
  static constexpr int kLoadStages = kCodeStages;
  static constexpr int kRopeOffset = Base::kFixedBytes + kStages * kStageBytes;
  static constexpr int kCodeOffset = kRopeOffset + kRopeStages * kDecodePanelBytes;
  static constexpr int kSharedBytes = kCodeOffset + kCodeStages * kCodeBytes + 1024;
  static_assert(kCodeStages >= 2 && kRopeStages >= kCodeStages);
  static_assert(kStageBytes % 1024 == 0 && kCodeBytes % 1024 == 0);
  static_assert(kSharedBytes <= kDecodeMaxShared + 1024);
  static constexpr int kFillers = Base::kBlockWarps;
  static constexpr int kPiecePanels = Base::kValuePanels == 1 ? 1 : 2;

  // Barriers of block `number`, behind those of the queries. `barriers`: where the first one is.
  /// Codes, scales and rope part are there.
  __device__ __forceinline__ static uint32_t loaded_barrier(uint32_t barriers, int number) {
    return barriers + 256 + number % kCodeStages * 8;
  }
  __device__ __forceinline__ static uint32_t unpacked_barrier(uint32_t barriers, int number) {
    return barriers + 320 + number % kCodeStages * 8;
  }
  __device__ __forceinline__ static uint32_t rope_barrier(uint32_t barriers, int number) {
    return barriers + 384 + number % kRopeStages * 8;
  }
  // From the first stage of value panels.
  __device__ __forceinline__ static int code_offset(int number) {
    return kCodeOffset - Base::kFixedBytes + number % kCodeStages * kCodeBytes;
  }
  __device__ __forceinline__ static uint32_t rope_address(uint32_t stages, int number) {
    return stages + (kRopeOffset - Base::kFixedBytes) + number % kRopeStages * kDecodePanelBytes;
  }
};

namespace detail {

using namespace sm90;  // NOLINT: instructions

/// By the thread that initialises the others in set_up(), before it.
template <typename Shape>
__device__ __forceinline__ void set_up_loads(uint8_t* raw) {
  const uint32_t barriers = sm90::shared_address(sm90::align_tiles(raw));
  for (int slot = 0; slot < Shape::kCodeStages; ++slot) {
    barrier_init(Shape::loaded_barrier(barriers, slot), 1);
    barrier_init(Shape::unpacked_barrier(barriers, slot), Shape::kFillers);
  }
  for (int slot = 0; slot < Shape::kRopeStages; ++slot) {
    barrier_init(Shape::rope_barrier(barriers, slot), Shape::kBlockWarps);
  }
}

/// The part's block `number`.
template <typename Shape>
__device__ __forceinline__ void load_float8_block(const DecodeSm90Maps& maps,
                                                  const Ring& ring,
                                                  int id,
                                                  int number) {
  const uint32_t loaded = Shape::loaded_barrier(ring.full, number);
  const uint32_t codes = ring.slots + (Shape::kCodeOffset - Shape::kFixedBytes) +
                         number % Shape::kCodeStages * Shape::kCodeBytes;
  barrier_wait(Shape::unpacked_barrier(ring.full, number), (number / Shape::kCodeStages + 1) & 1);
  barrier_wait(Shape::rope_barrier(ring.full, number), (number / Shape::kRopeStages + 1) & 1);
  barrier_expect(loaded, Shape::kLoadBytes);
  copy_box<kEvictFirst>(codes, &maps.latents, 0, 0, id, loaded);
  copy_box<kEvictFirst>(codes + Shape::kScaleOffset, &maps.scales, 0, 0, id, loaded);
  copy_box<kEvictFirst>(Shape::rope_address(ring.slots, number), &maps.ropes, 0, 0, id, loaded);
}

}  // namespace detail

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    decode_sm90_float8_kernel(const __grid_constant__ DecodeSm90Maps maps,
                              const __grid_constant__ DecodeSm90Args args) {
  extern __shared__ uint8_t raw[];
  if (threadIdx.x == 0) {
    detail::set_up_loads<Shape>(raw);
  }
  const detail::Workspace work = detail::set_up<Shape>(raw, maps);
  auto& part = *reinterpret_cast<detail::Part*>(work.shared + 768);
  detail::find_part<Shape>(args, reinterpret_cast<int*>(work.shared + 512), part);
  if (threadIdx.x < 128) {
    sm90::give_registers<Shape::kProducerRegisters>();
    if (threadIdx.x < 32) {
      detail::produce<Shape>(args, maps, part, work, [&](int id, int number) {
        detail::load_float8_block<Shape>(maps, work.ring, id, number);
      });
    }
  } else {
    sm90::take_registers<Shape::kConsumerRegisters>();
    wait_for_kernel_before();
    detail::consume<Shape>(args, part, work);
  }
}

}  // namespace tessera::kernels::cuda
