// Float8 rows of Hopper's decode attention on their way to value panels in bfloat16, which the
// tensor cores multiply. Scales are powers of two, so that nothing is rounded.
#pragma once

#include "kernels/cuda/attention/decode_sm90_sums.cuh"
#include "kernels/cuda/float8_math.cuh"

namespace tessera::kernels::cuda {
namespace detail {

using namespace sm90;  // NOLINT: instructions

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

  __device__ __forceinline__ void load(const uint8_t* block,
                                       int piece,
                                       int scale_offset,
                                       RowRange tokens) {
    const int row = row_of(piece);
    const uint8_t* codes = block + row * Shape::kValueWidth + part() * 16;
#pragma unroll
    for (int i = 0; i < kPanels; ++i) {
      codes_[i] = *reinterpret_cast<const uint4*>(codes + panel_of(piece, i) * 64);
    }
    factors_ = RowFactors::create(
        *reinterpret_cast<const unsigned*>(block + Shape::kScaleOffset + row * 16 + scale_offset),
        row >= tokens.begin && row < tokens.end);
  }
  __device__ __forceinline__ void unpack() {
#pragma unroll
    for (int i = 0; i < kPanels; ++i) {
      const Bf16Quad a = to_bf16(codes_[i].x, factors_.first);
      const Bf16Quad b = to_bf16(codes_[i].y, factors_.first);
      const Bf16Quad c = to_bf16(codes_[i].z, factors_.first);
      const Bf16Quad d = to_bf16(codes_[i].w, factors_.first);
      low_[i] = make_uint4(a.low, a.high, b.low, b.high);
      high_[i] = make_uint4(c.low, c.high, d.low, d.high);
    }
    if (__any_sync(0xFFFFFFFFU, factors_.needs_second)) {
#pragma unroll
      for (int i = 0; i < kPanels; ++i) {
        scale_pairs(low_[i], factors_.second);
        scale_pairs(high_[i], factors_.second);
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

  uint4 codes_[kPanels];
  RowFactors factors_;
  uint4 low_[kPanels];  // columns 0 to 7 of the thread's 16
  uint4 high_[kPanels];
};

/// The calling warp's share of a block, of kNumWarps that unpack it, from codes to value panels.
/// `wait_for_room` returns when these may be written. Products may read them when all the warps are
/// known to have done theirs.
template <typename Shape, int kNumWarps, typename Wait>
__device__ __forceinline__ void unpack_pieces(const uint8_t* codes,
                                              uint8_t* values,
                                              int scale_offset,
                                              RowRange tokens,
                                              const Wait& wait_for_room) {
  static_assert(Piece<Shape>::kPerBlock % kNumWarps == 0);
  constexpr int kPieces = Piece<Shape>::kPerBlock / kNumWarps;
  const int warp = threadIdx.x / 32 % kNumWarps;
  Piece<Shape> pieces[kPieces];
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    pieces[i].load(codes, warp + i * kNumWarps, scale_offset, tokens);
  }
  wait_for_room();
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    pieces[i].unpack();
    pieces[i].store(values, warp + i * kNumWarps);
  }
  fence_async_proxy();
}

}  // namespace detail

}  // namespace tessera::kernels::cuda
