// What Hopper's decode attention is given, and the shapes that it is compiled for.
#pragma once

#include "kernels/cuda/sm90.cuh"
#include "kernels/ops/latent_window.h"

namespace tessera::kernels::cuda {

/// What the copy engine reads, in boxes of 64 x 64 (float8 rows: all of a block's codes at once):
/// rows beyond the heads and columns beyond the widths come as zeros.
struct DecodeSm90Maps {
  CUtensorMap latents;   ///< [blocks, 64, w]: bfloat16, or codes of float8
  CUtensorMap ropes;     ///< [blocks, 64, dr]
  CUtensorMap q_latent;  ///< [S, n H, w]
  CUtensorMap q_rope;    ///< [S, n H, dr]
  CUtensorMap scales;    ///< [blocks, 64, 16 bytes]: of float8 rows, those that hold the scale
};

/// How much of a sequence that is cut is in memory, of the heads of one thread block. Zero before
/// and after each call.
struct DecodeTicket {
  uint32_t num_written[8] = {};  ///< of each 16 heads: warps that have written partial results
};
/// That there can be: parts times tiles of heads.
inline constexpr int kMaxDecodeTickets = 160;

/// Of S sequences with n query tokens each; to the kernels the tokens' heads are n H heads of one.
struct DecodeSm90Args {
  const int* block_tables = nullptr;  ///< [S, ...]
  int64_t table_stride = 0;
  const int* lengths = nullptr;  ///< of the last query token's context: at 0, length_stride, ...
  int length_stride = 1;
  int num_sequences = 0;    ///< S
  int num_tokens = 1;       ///< n
  int token_heads = 0;      ///< H
  float scale_log2 = 0.0F;  ///< softmax scale times log2(e)
  int num_heads = 0;        ///< n H
  int num_head_tiles = 1;   ///< thread blocks that share a part, Shape::kTileHeads each
  int latent_width = 0;     ///< w
  int scale_offset = -1;    ///< of float8 rows, in the 16 bytes that hold it; -1: of bfloat16
  const __nv_bfloat16* q_latent = nullptr;  ///< [S, n H, w], that of the map
  int64_t q_stride[2] = {};
  __nv_bfloat16* out = nullptr;  ///< [S, n H, w]
  int64_t out_stride[2] = {};
  float* log_sum_exp = nullptr;  ///< [S, n H], natural
  int64_t lse_stride = 0;
  /// Of sequences that are cut, by DecodeSplit::partial(): [parts + S, tiles of 16 of the n H
  /// heads, kValueWidth / 8, 32, 4] as PartialTile says, and log-sum-exps of base 2 [parts + S, n
  /// H].
  float* split_out = nullptr;
  float* split_lse = nullptr;
  DecodeTicket* tickets = nullptr;  ///< [parts, num_head_tiles]
  LatentWindow window;              ///< tokens that are no part of the paged pass
  /// What the window's tokens yield, that a sequence's sums begin with; null without a window: [S,
  /// n H, w] normalised, and natural log-sum-exps [S, n H].
  const float* window_out = nullptr;
  const float* window_lse = nullptr;
};

/// Partial results of 16 heads, as a warp has them after wgmma: of each group of 8 columns lane l
/// has columns 2 (l % 4) and the next of head l / 4, then of head l / 4 + 8. So a warp stores and
/// loads 512 bytes that lie together.
struct PartialTile {
  static constexpr int kHeads = 16;
  static constexpr int kGroup = 8;  ///< columns
  static constexpr int kGroupFloats = kHeads * kGroup;

  __host__ __device__ static constexpr int64_t num_tiles(int64_t num_heads) {
    return (num_heads + kHeads - 1) / kHeads;
  }
  /// Of a partial result, of all heads.
  __host__ __device__ static constexpr int64_t floats(int64_t num_heads, int64_t width) {
    return num_tiles(num_heads) * kHeads * width;
  }
  /// Where a lane's four numbers of a tile's group 0 are; the other groups follow.
  __device__ static int64_t offset(int64_t partial, int num_heads, int first_head, int width) {
    const int64_t tile = partial * num_tiles(num_heads) + first_head / kHeads;
    return tile * kHeads * width + threadIdx.x % 32 * 4;
  }
};

/// A panel: 64 rows of 64 columns.
inline constexpr int kDecodePanelBytes = 64 * 128;
/// What a thread block may have, less what alignment may take.
inline constexpr int kDecodeMaxShared = 232448 - 1024;

/// Two warpgroups with all value columns each: of 64 heads, a block of rows in turns (narrow), or
/// of half of the heads each (wide). Wide, the queries' last value panels are in registers where
/// that makes room for one stage more.
template <int kValuePanels_,
          bool kIsWide_,
          int kHeldPanels_ = kIsWide_&& kValuePanels_ == 4 ? 2 : 0>
struct DecodeSm90Shape {
  static constexpr int kValuePanels = kValuePanels_;
  static constexpr bool kIsWide = kIsWide_;
  static constexpr bool kIsFloat8 = false;
  static constexpr int kPanels = kValuePanels + 1;  // the last one is the rope part
  static constexpr int kStageBytes = kPanels * kDecodePanelBytes;
  static constexpr int kHeldPanels = kHeldPanels_;
  static constexpr int kQueryPanels =
      kValuePanels - kHeldPanels;  // in shared memory, but the rope's
  static constexpr int kTileBytes = (kQueryPanels + 1) * kDecodePanelBytes;  // of one warpgroup
  static constexpr int kNumTiles = kIsWide ? 2 : 1;
  static constexpr int kTileHeads = kNumTiles * 64;
  static constexpr int kQueryBytes = kNumTiles * kTileBytes;
  static constexpr int kMergeBytes = kIsWide ? 0 : 64 * 64 * 4;  // 32 columns of sums of each
  static constexpr int kStateBytes = kIsWide ? 0 : 4096;         // maxima and sums
  static constexpr int kBarrierBytes = 1024 + kStateBytes;
  static constexpr int kQueryOffset = kBarrierBytes + kMergeBytes;
  static constexpr int kFixedBytes = kQueryOffset + kQueryBytes;
  static constexpr int kFit = (kDecodeMaxShared - kFixedBytes) / kStageBytes;
  // Narrow: an even number, so that a stage is always read by the same warpgroup. Otherwise one
  // that is ahead could take a stage's last phase but one for the one it waits for.
  static constexpr int kStages = kFit > 8 ? 8 : (kIsWide ? kFit : kFit / 2 * 2);
  static constexpr int kSharedBytes = kFixedBytes + kStages * kStageBytes + 1024;
  static_assert(kStages >= 2 && kFixedBytes % 1024 == 0);
  static constexpr int kThreads = 384;
  // Of a thread; 168 for all of them at launch.
  static constexpr int kProducerRegisters = kHeldPanels > 0 ? 24 : 40;
  static constexpr int kConsumerRegisters = kHeldPanels > 0 ? 240 : 232;
  static constexpr int kValueWidth = kValuePanels * 64;
  // Warps that a block of rows, and a sequence's queries, have to be released by.
  static constexpr int kBlockWarps = kIsWide ? 8 : 4;
  static constexpr int kQueryWarps = 8;
  static constexpr int kTileWarps = kIsWide ? 1 : 2;  // that have results of the same 16 heads
  static constexpr int kFillers = 1;                  // that a stage is full by: the copy engine
  static constexpr int kLoadStages = kStages;
};

/// For latents whose sums no warpgroup's registers hold: of 64 heads, the first warpgroup sums up
/// the values of kLeadPanels panels, the second of the others.
template <int kValuePanels_, int kLeadPanels_>
struct DecodeSm90ColumnsShape {
  static constexpr int kValuePanels = kValuePanels_;
  static constexpr int kLeadPanels = kLeadPanels_;
  static constexpr bool kIsFloat8 = false;
  static constexpr int kOtherPanels = kValuePanels - kLeadPanels;
  static constexpr int kPanels = kValuePanels + 1;  // the last one is the rope part
  static constexpr int kStageBytes = kPanels * kDecodePanelBytes;
  static constexpr int kHeldPanels = 0;
  static constexpr int kQueryPanels = kValuePanels;
  static constexpr int kTileBytes = kStageBytes;
  static constexpr int kNumTiles = 1;
  static constexpr int kTileHeads = 64;
  static constexpr int kQueryBytes = kTileBytes;
  static constexpr int kFactorOffset = 1024;  // behind the barriers
  static constexpr int kWeightOffset = kFactorOffset + 128 * 8;
  static constexpr int kQueryOffset = kWeightOffset + 64 * 128;
  static constexpr int kFixedBytes = kQueryOffset + kQueryBytes;
  static constexpr int kFit = (kDecodeMaxShared - kFixedBytes) / kStageBytes;
  static constexpr int kStages = kFit > 8 ? 8 : kFit;
  static constexpr int kSharedBytes = kFixedBytes + kStages * kStageBytes + 1024;
  static_assert(kStages >= 2 && kQueryOffset % 1024 == 0);
  static constexpr int kThreads = 384;
  static constexpr int kValueWidth = kValuePanels * 64;
  static constexpr int kBlockWarps = 8;
  static constexpr int kQueryWarps = 4;  // only the first warpgroup multiplies them
  static constexpr int kTileWarps = 2;
  static constexpr int kFillers = 1;
  static constexpr int kLoadStages = kStages;
};

}  // namespace tessera::kernels::cuda
