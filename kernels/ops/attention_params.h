// Parameters of the latent cache and of the two forms of MLA attention.
// Sources: DeepSeek-V2 (arXiv 2405.04434) section 2.1 and appendix C.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/core/tensor_view.h"
#include "kernels/ops/latent_columns.h"
#include "kernels/ops/latent_row.h"
#include "kernels/ops/latent_window.h"

namespace tessera::kernels {

/// Tokens of one cache block, for every layer, shard and backend.
inline constexpr int64_t kBlockTokens = 64;

/// One layer of one rank's paged cache: the row of token t of block b starts at
/// base + b * block_stride_bytes + t * layout().row_bytes, and has its parts where latent_row.h
/// says.
struct LatentCacheView {
  void* base = nullptr;
  int64_t block_stride_bytes = 0;
  int64_t num_blocks = 0;
  int64_t latent_width = 0;       ///< columns of the latent in a row: R, or fewer
  int64_t rope_width = 0;         ///< dr
  DType dtype = DType::kFloat32;  ///< of the latents: float32, bfloat16 or float8_e4m3

  [[nodiscard]] constexpr LatentRowLayout layout() const noexcept {
    return latent_row_layout(dtype, latent_width, rope_width);
  }
  [[nodiscard]] constexpr bool is_float8() const noexcept { return dtype == DType::kFloat8E4M3; }
};

/// Stores some latent columns and the rope part of T tokens at their slots (block * kBlockTokens +
/// offset). A token whose slot is negative lives on another rank and is skipped.
struct LatentWriteParams {
  ConstTensorView latent;  ///< [T, R] float32, normalised, row stride free
  ConstTensorView rope;    ///< [T, dr] float32, rotated, row stride free
  ConstTensorView slots;   ///< [T] int64
  LatentColumns columns;   ///< of the latent, that the cache's rows hold
  LatentCacheView cache;
};

/// Copies the rows of positions [begin, begin + n) of one sequence out of the cache: each column to
/// its place in the latent. Columns that the cache's rows do not hold are left alone.
struct LatentGatherParams {
  LatentCacheView cache;
  ConstTensorView block_table;  ///< [num_blocks] int32
  int64_t begin = 0;
  LatentColumns columns;  ///< of the latent, that the cache's rows hold
  TensorView latent;      ///< [n, R], the cache's dtype; of float8 rows float32 or bfloat16
  TensorView rope;        ///< [n, dr], the same
};

/// Up-projected MLA attention of a prefill chunk over one tile of the context, causal, merged into
/// a running softmax: query i (position query_begin + i) sees keys j with
/// key_begin + j <= query_begin + i. Call once per tile: is_first_tile starts the running softmax,
/// is_last_tile ends it, and `out` then holds normalised rows.
///   logit = scale * (q_nope . k_nope + q_rope . k_rope)
struct MlaPrefillParams {
  ConstTensorView q;       ///< [T, H, dn + dr], activation dtype; q_rope rotated
  ConstTensorView kv;      ///< [n, H, dn + dv], activation dtype: k_nope | v
  ConstTensorView k_rope;  ///< [n, dr], activation dtype
  int64_t query_begin = 0;
  int64_t key_begin = 0;
  float scale = 1.0F;
  bool is_first_tile = true;
  bool is_last_tile = true;
  TensorView accumulator;  ///< [T, H, dv] float32, kept between tiles
  TensorView max_logit;    ///< [T, H] float32, kept between tiles
  TensorView sum;          ///< [T, H] float32, kept between tiles
  TensorView out;          ///< [T, H, dv], activation dtype, written with the last tile
};

/// What decode rows attend to exactly although their paged rows are a slice: logits over the
/// window's tokens come from all R columns, their values are those of the same w columns as
/// elsewhere.
struct DecodeWindow {
  LatentCacheView cache;  ///< rows of all R columns, activation dtype, back to back over all blocks
  WindowRing ring;
  LatentColumns columns;        ///< the w of the R columns that paged rows hold, in their order
  ConstTensorView q_latent;     ///< [B, H, R], activation dtype, outer strides free
  ConstTensorView first_slots;  ///< [B] int64: slot of the first row of the decode row's sequence
};

/// Absorbed MLA attention of B decode rows against their paged latents; one key and value row per
/// token shared by all heads: logit = scale * (q_latent . latent + q_rope . rope), value = latent:
/// the w columns that the cache's rows hold. With a window its tokens are taken from there, and
/// from the paged rows only those outside of it: one softmax over both. A row whose length is 0
/// yields zeros and log-sum-exp -inf. Neither lengths nor block tables may be what the operation
/// queued right before writes: kernels look at them while it still runs, and thread blocks that
/// found different lengths may wait for each other for ever.
struct MlaDecodeParams {
  ConstTensorView q_latent;  ///< [B, H, w], activation dtype, outer strides free
  ConstTensorView q_rope;    ///< [B, H, dr], activation dtype, rotated, outer strides free
  LatentCacheView cache;
  ConstTensorView block_tables;  ///< [B, max_blocks] int32, row stride free
  ConstTensorView lengths;       ///< [B] int32: tokens of context, the row's own included
  float scale = 1.0F;
  /// Rows [i n, (i + 1) n) with n = row_tokens are query tokens of one sequence, one behind
  /// another: they have equal block tables, and lengths that begin above 0 and grow by 1, or are
  /// all 0. So their cache rows can be read once.
  int64_t row_tokens = 1;
  std::optional<DecodeWindow> window = {};
  TensorView out;          ///< [B, H, w], activation dtype
  TensorView log_sum_exp;  ///< [B, H] float32, natural logarithm
};

/// Weighs what one of G parts of a context yields, so that the sum over the parts is the attention
/// over all of it: values[b, h] *= exp(lse[part, b, h]) / sum_g exp(lse[g, b, h]). A part whose
/// log-sum-exp is -inf has no tokens and gets weight 0.
struct MergeScaleParams {
  ConstTensorView log_sum_exp;  ///< [G, B, H] float32, contiguous
  int64_t part = 0;
  TensorView values;  ///< [B, H, dv] float32, in place, outer strides free
};

}  // namespace tessera::kernels
