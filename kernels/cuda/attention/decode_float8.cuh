// Float8 rows of the cache as tiles of bfloat16 for tensor cores: from memory into registers, and
// after the products of the tile before, converted, into shared memory.
#pragma once

#include "kernels/cuda/attention/decode_pass.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace tessera::kernels::cuda {

/// A warp's share of a tile of kTokens keys: rows warp, warp + kWarps, ... Source of the rows'
/// form: kernels/ops/latent_row.h.
template <int kTokens, int kWarps, int kMaxLatentWidth, int kMaxRopeWidth>
class Float8Keys {
 public:
  __device__ Float8Keys(const DecodePass& pass, const DecodeRow& sequence)
      : pass_(pass),
        sequence_(sequence),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        code_pieces_((pass.cache.latent_width + kPieceBytes - 1) / kPieceBytes),
        row_pieces_(code_pieces_ + pass.cache.rope_width / kChunkColumns) {}

  /// Starts to load tokens [first, first + kTokens).
  __device__ void fetch(int first) {
    first_ = first;
    const int own = first + row_of(lane_ % kRows);
    scale_ =
        own < sequence_.num_tokens
            ? *reinterpret_cast<const float*>(sequence_.key(pass_, own) + pass_.cache.scale_offset)
            : 0.0F;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const Piece piece = piece_of(i);
      const int token = first + row_of(piece.row);
      if (piece.row < kRows && token < sequence_.num_tokens) {
        pieces_[i] = *reinterpret_cast<const uint4*>(sequence_.key(pass_, token) + piece.offset);
      }
    }
  }

  /// What was fetched, as rows of `tile`; of tokens behind the last one, zeros.
  __device__ void put(unsigned tile, int row_panels) const {
    const int latent_chunks = pass_.cache.latent_width / kChunkColumns;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const Piece piece = piece_of(i);
      const float scale = __shfl_sync(kAllLanes, scale_, piece.row % kRows);
      if (piece.row >= kRows) {
        continue;
      }
      const int row = row_of(piece.row);
      const bool is_valid = first_ + row < sequence_.num_tokens;
      const uint4 bytes = is_valid ? pieces_[i] : uint4{};
      if (piece.number >= code_pieces_) {
        const int chunk = (row_panels - 1) * kPanelChunks + piece.number - code_pieces_;
        store(tile + tile_byte(row, row_panels, chunk), bytes);
        continue;
      }
      const int chunk = 2 * piece.number;
      store(tile + tile_byte(row, row_panels, chunk), latents_of(bytes.x, bytes.y, scale));
      if (chunk + 1 < latent_chunks) {
        store(tile + tile_byte(row, row_panels, chunk + 1), latents_of(bytes.z, bytes.w, scale));
      }
    }
  }

 private:
  static constexpr int kPieceBytes = 16;
  static constexpr int kRows = kTokens / kWarps;
  static constexpr int kMaxRowPieces =
      (kMaxLatentWidth + kPieceBytes - 1) / kPieceBytes + kMaxRopeWidth / kChunkColumns;
  static constexpr int kPieces = (kRows * kMaxRowPieces + kWarp - 1) / kWarp;  // of a lane

  /// 16 bytes of a row of the warp: codes, or 8 columns of the rope part.
  struct Piece {
    int row = 0;
    int number = 0;
    int offset = 0;  ///< in the row, in bytes
  };

  [[nodiscard]] __device__ Piece piece_of(int i) const {
    const int at = i * kWarp + lane_;
    const int row = at / row_pieces_;
    const int number = at % row_pieces_;
    return {row,
            number,
            number < code_pieces_
                ? number * kPieceBytes
                : pass_.cache.rope_offset + (number - code_pieces_) * kPieceBytes};
  }
  [[nodiscard]] __device__ int row_of(int own_row) const {
    return warp_ + own_row * kWarps;
  }

  /// Eight latents; exact, since a scale is a power of two.
  [[nodiscard]] __device__ static uint4 latents_of(unsigned low, unsigned high, float scale) {
    return {pair_of(low, scale),
            pair_of(low >> 16U, scale),
            pair_of(high, scale),
            pair_of(high >> 16U, scale)};
  }
  [[nodiscard]] __device__ static unsigned pair_of(unsigned codes, float scale) {
    const __half2 halves(
        __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes & 0xffffU), __NV_E4M3));
    const float2 pair = __half22float2(halves);
    return pack_bf16(pair.x * scale, pair.y * scale);
  }
  __device__ static void store(unsigned to, const uint4& bytes) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to),
                 "r"(bytes.x),
                 "r"(bytes.y),
                 "r"(bytes.z),
                 "r"(bytes.w)
                 : "memory");
  }

  const DecodePass& pass_;
  const DecodeRow& sequence_;
  int warp_, lane_;
  int code_pieces_;  ///< of a row
  int row_pieces_;
  int first_ = 0;
  float scale_ = 0.0F;  ///< of row lane % kRows
  uint4 pieces_[kPieces] = {};
};

}  // namespace tessera::kernels::cuda
