// Decode attention on float8 rows for Hopper: the narrow and the wide form of decode_sm90.cuh with
// one step more in front of them.
//
// The copy engine brings codes and scales to one ring, the rope parts, which are bfloat16 and are
// multiplied where they lie, to another. Three warps of the producer's warpgroup turn codes into
// value panels of bfloat16 in a third ring, which the other two warpgroups read as if the rows had
// been bfloat16. Scales are powers of two, so that nothing is rounded.
#pragma once

#include "kernels/cuda/attention/decode_sm90.cuh"
#include "kernels/cuda/float8_math.cuh"

namespace tessera::kernels::cuda {

/// kStages stages of value panels, then kRopeStages of rope panels, then kCodeStages of codes (64
/// rows of kValueWidth bytes) and scales (64 times the 16 bytes that hold one).
template <int kValuePanels_, bool kIsWide_>
struct DecodeSm90Float8Shape
    : DecodeSm90Shape<kValuePanels_, kIsWide_, kIsWide_ && kValuePanels_ == 4 ? 1 : 0> {
  using Base = DecodeSm90Shape<kValuePanels_, kIsWide_, kIsWide_ && kValuePanels_ == 4 ? 1 : 0>;
  static constexpr bool kIsFloat8 = true;
  static constexpr int kStageBytes = Base::kValuePanels * kDecodePanelBytes;
  // Wide, two blocks are in use at a time and a third one is unpacked meanwhile. An odd number does
  // no harm in the narrow form here, as it would with the copy engine: each warp that unpacks
  // arrives in the order of blocks, so that a full stage says that those before were full.
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
  // More than these would leave fewer registers for each at launch than a wgmma of 256 columns has.
  static constexpr int kUnpackWarps = 3;
  static constexpr int kFillers = kUnpackWarps;
  // Panels that a warp unpacks at a time: registers that the widest form has not got.
  static constexpr int kPiecePanels =
      Base::kValuePanels == 1 || (Base::kIsWide && Base::kValuePanels == 4) ? 1 : 2;
  // Unpacking takes more than copying; the consumers have what is left of 504. The widest form's
  // spill with 224.
  static constexpr int kProducerRegisters = Base::kIsWide && Base::kValuePanels == 4 ? 40 : 56;
  static constexpr int kConsumerRegisters = Base::kIsWide && Base::kValuePanels == 4 ? 232 : 224;

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
  /// From the first stage of value panels.
  __device__ __forceinline__ static uint32_t rope_address(uint32_t stages, int number) {
    return stages + (kRopeOffset - Base::kFixedBytes) + number % kRopeStages * kDecodePanelBytes;
  }
};

namespace detail {

using namespace sm90;  // NOLINT: instructions

/// By the thread that initialises the others in set_up(), before it.
template <typename Shape>
__device__ __forceinline__ void set_up_loads(uint8_t* raw, const DecodeSm90Maps& maps) {
  const uint32_t barriers = sm90::shared_address(sm90::align_tiles(raw));
  prefetch_tensor_map(&maps.scales);
  for (int slot = 0; slot < Shape::kCodeStages; ++slot) {
    barrier_init(Shape::loaded_barrier(barriers, slot), 1);
    barrier_init(Shape::unpacked_barrier(barriers, slot), Shape::kUnpackWarps);
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

/// What the placed codes of a row (float8_math.cuh) have to be multiplied by, as pairs of bfloat16.
/// 2^120 times the scale goes beyond bfloat16 from a scale of 2^8 on: the rest is a second factor.
struct RowFactors {
  unsigned first = 0;  // 0: the row is no token of the pass
  unsigned second = 0;
  bool needs_second = false;

  __device__ __forceinline__ static RowFactors create(unsigned scale_bits, bool is_token) {
    constexpr int kLargest = 254;  // exponent of a bfloat16, with its bias
    const int exponent = static_cast<int>(scale_bits >> 23U & 0xffU) + 120;
    RowFactors factors;
    if (is_token) {
      factors.needs_second = exponent > kLargest;
      factors.first = static_cast<unsigned>(min(exponent, kLargest)) * 0x00800080U;
      factors.second = static_cast<unsigned>(max(exponent - kLargest, 0) + 127) * 0x00800080U;
    }
    return factors;
  }
};

__device__ __forceinline__ void scale_pairs(uint4& pairs, unsigned factors) {
  const auto scale = [&](unsigned& pair) {
    asm("mul.rn.bf16x2 %0, %0, %1;" : "+r"(pair) : "r"(factors));
  };
  scale(pairs.x);
  scale(pairs.y);
  scale(pairs.z);
  scale(pairs.w);
}

/// Eight rows of one or two panels of a block on their way from codes to value panels: one warp's
/// work. A thread takes 16 codes of each panel: those of a row are four threads'. Eight threads,
/// which access shared memory together, have two rows: their codes are of two panels, so that they
/// are in all banks, and the chunks that they store are even ones in the one row and odd ones in
/// the other, by the swizzle.
template <typename Shape>
class Piece {
 public:
  static constexpr int kPanels = Shape::kPiecePanels;
  static constexpr int kPerRow = Shape::kValuePanels / kPanels;
  static constexpr int kPerBlock = 8 * kPerRow;

  __device__ __forceinline__ void unpack(const uint8_t* block,
                                         int piece,
                                         int scale_offset,
                                         RowRange tokens) {
    const int row = row_of(piece);
    const uint8_t* codes = block + row * Shape::kValueWidth + part() * 16;
    uint4 loaded[kPanels];
#pragma unroll
    for (int i = 0; i < kPanels; ++i) {
      loaded[i] = *reinterpret_cast<const uint4*>(codes + panel_of(piece, i) * 64);
    }
    const RowFactors factors = RowFactors::create(
        *reinterpret_cast<const unsigned*>(block + Shape::kScaleOffset + row * 16 + scale_offset),
        row >= tokens.begin && row < tokens.end);
#pragma unroll
    for (int i = 0; i < kPanels; ++i) {
      const Bf16Quad a = to_bf16(loaded[i].x, factors.first);
      const Bf16Quad b = to_bf16(loaded[i].y, factors.first);
      const Bf16Quad c = to_bf16(loaded[i].z, factors.first);
      const Bf16Quad d = to_bf16(loaded[i].w, factors.first);
      low_[i] = make_uint4(a.low, a.high, b.low, b.high);
      high_[i] = make_uint4(c.low, c.high, d.low, d.high);
    }
    if (__any_sync(0xFFFFFFFFU, factors.needs_second)) {
#pragma unroll
      for (int i = 0; i < kPanels; ++i) {
        scale_pairs(low_[i], factors.second);
        scale_pairs(high_[i], factors.second);
      }
    }
  }
  __device__ __forceinline__ void store(uint8_t* values, int piece) const {
    uint8_t* to = values + row_of(piece) * 128;
#pragma unroll
    for (int i = 0; i < kPanels; ++i) {
      uint8_t* row = to + panel_of(piece, i) * kDecodePanelBytes;
      *reinterpret_cast<uint4*>(row + ((part() * 2) ^ within()) * 16) = low_[i];
      *reinterpret_cast<uint4*>(row + ((part() * 2 + 1) ^ within()) * 16) = high_[i];
    }
  }

 private:
  /// The thread's row of the eight, and its part of a row's panel.
  __device__ __forceinline__ static int within() {
    return threadIdx.x % 32 / 4;
  }
  __device__ __forceinline__ static int part() {
    return threadIdx.x % 4;
  }
  __device__ __forceinline__ static int row_of(int piece) {
    return piece / kPerRow * 8 + within();
  }
  __device__ __forceinline__ static int panel_of(int piece, int i) {
    const int swap = Shape::kValuePanels > 1 ? within() % 2 : 0;
    return (piece % kPerRow * kPanels + i) ^ swap;
  }

  uint4 low_[kPanels];  // columns 0 to 7 of the thread's 16
  uint4 high_[kPanels];
};

/// One of the warps that unpack: pieces by turns, over all blocks of the part. Each has one of
/// every block at least, and waits for every stage in order, so that it misses no phase. The first
/// piece is in registers when the stage to fill becomes free.
template <typename Shape>
__device__ __forceinline__ void unpack(const DecodeSm90Args& args,
                                       const Part& part,
                                       const Workspace& work) {
  constexpr int kPieces = Piece<Shape>::kPerBlock;
  static_assert(kPieces >= Shape::kUnpackWarps);
  int next = threadIdx.x / 32 - 1;
  int number = 0;
  int before = part.before;
  for (int sequence = part.begin; sequence < part.end; ++sequence) {
    const PartBlocks blocks = next_blocks(args, part, sequence, before);
#pragma unroll 1
    for (int block = blocks.first; block < blocks.last; ++block, ++number) {
      const int slot = number % Shape::kStages;
      const uint8_t* codes =
          work.shared + Shape::kCodeOffset + number % Shape::kCodeStages * Shape::kCodeBytes;
      uint8_t* values = work.shared + Shape::kFixedBytes + slot * Shape::kStageBytes;
      const RowRange tokens = {blocks.begin_token - block * 64, blocks.end_token - block * 64};
      Piece<Shape> piece;
      barrier_wait(Shape::loaded_barrier(work.ring.full, number), number / Shape::kCodeStages & 1);
      piece.unpack(codes, next, args.scale_offset, tokens);
      barrier_wait(work.ring.empty + slot * 8, (number / Shape::kStages + 1) & 1);
      piece.store(values, next);
#pragma unroll 1
      for (next += Shape::kUnpackWarps; next < kPieces; next += Shape::kUnpackWarps) {
        piece.unpack(codes, next, args.scale_offset, tokens);
        piece.store(values, next);
      }
      next -= kPieces;
      fence_async_proxy();
      __syncwarp();
      if (threadIdx.x % 32 == 0) {
        barrier_arrive(work.ring.full + slot * 8);
        barrier_arrive(Shape::unpacked_barrier(work.ring.full, number));
      }
    }
  }
}

}  // namespace detail

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    decode_sm90_float8_kernel(const __grid_constant__ DecodeSm90Maps maps,
                              const __grid_constant__ DecodeSm90Args args) {
  extern __shared__ uint8_t raw[];
  if (threadIdx.x == 0) {
    detail::set_up_loads<Shape>(raw, maps);
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
    } else {
      detail::unpack<Shape>(args, part, work);
    }
  } else {
    sm90::take_registers<Shape::kConsumerRegisters>();
    wait_for_kernel_before();
    detail::consume<Shape>(args, part, work);
  }
}

}  // namespace tessera::kernels::cuda
