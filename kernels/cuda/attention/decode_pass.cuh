// What the kernels of decode attention are told: the queries and keys of one pass over a context
// (its paged rows, or its exact window), how it is split, and where results go.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/latent_rows.cuh"

namespace tessera::kernels::cuda {

/// The tokens of a pass are counted from 0. Of the paged rows: those outside of the window, in
/// order. Of the window: its first tokens, then its last.
struct DecodePass {
  const void* q_latent = nullptr;
  const void* q_rope = nullptr;
  int64_t q_latent_stride = 0, q_latent_head_stride = 0;  ///< in elements
  int64_t q_rope_stride = 0, q_rope_head_stride = 0;
  DeviceCache cache;  ///< its latent_width is the keys'
  const int32_t* block_tables = nullptr;
  int64_t block_table_stride = 0;
  const int64_t* first_slots = nullptr;  ///< of the window; null: the pass is over paged rows
  const int32_t* lengths = nullptr;
  WindowRing ring;              ///< without tokens: the whole context is paged
  DeviceColumns value_columns;  ///< of the keys
  int32_t value_width = 0;
  int32_t num_heads = 0;
  float scale = 1.0F;

  int32_t num_splits = 1;
  int32_t first_split = 0;  ///< of the partial results, that this pass writes
  int32_t partials_per_row = 1;
  float* partial_values = nullptr;  ///< [B, partials_per_row, H, value_width], normalised
  float* partial_sums = nullptr;    ///< [B, partials_per_row, H]: log-sum-exp, natural
  void* out = nullptr;              ///< null: write partial results
  int64_t out_stride = 0, out_head_stride = 0;
  float* log_sum_exp = nullptr;
  int64_t log_sum_exp_stride = 0;

  __device__ bool is_window() const { return first_slots != nullptr; }
  /// Where the partial result of (row, split of this pass, head) stands, as a number.
  __device__ int64_t partial(int row, int split, int head) const {
    return (int64_t{row} * partials_per_row + first_split + split) * num_heads + head;
  }
};

/// One sequence of a pass.
struct DecodeRow {
  int64_t outside_begin = 0;  ///< paged tokens are at [outside_begin, outside_end)
  int64_t outside_end = 0;
  const int32_t* block_table = nullptr;
  int64_t first_slot = 0;
  int num_tokens = 0;  ///< of the pass

  __device__ DecodeRow(const DecodePass& p, int row) {
    const int64_t length = p.lengths[row];
    outside_begin = p.ring.window.outside_begin(length);
    outside_end = p.ring.window.outside_end(length);
    const auto outside = static_cast<int>(outside_end - outside_begin);
    if (p.is_window()) {
      first_slot = p.first_slots[row];
      num_tokens = static_cast<int>(length) - outside;
    } else {
      block_table = p.block_tables + row * p.block_table_stride;
      num_tokens = outside;
    }
  }

  /// The cache's row of the pass's token `token`.
  __device__ const char* key(const DecodePass& p, int token) const {
    if (!p.is_window()) {
      const auto position = static_cast<uint32_t>(outside_begin) + static_cast<uint32_t>(token);
      return p.cache.row(block_table[position / kBlockTokens], position % kBlockTokens);
    }
    const int64_t position = token < outside_begin ? token : outside_end + token - outside_begin;
    return p.cache.row_of_slot(first_slot + p.ring.row(position));
  }
};

inline constexpr float kLog2E = 1.44269504088896340736F;
inline constexpr float kLn2 = 0.69314718055994530942F;

/// Natural logarithm of sum * 2^max_log2.
__device__ inline float log_sum_exp_of(float max_log2, float sum) {
  return sum > 0.0F ? (max_log2 + log2f(sum)) * kLn2 : -INFINITY;
}

/// Launch `pass` of `num_rows` sequences on tensor cores: bfloat16, widths of whole chunks of
/// 8 columns (see can_use_tensor_cores()).
void launch_decode_tensor(const DecodePass& pass, int64_t num_rows, cudaStream_t stream);
[[nodiscard]] bool can_use_tensor_cores(const DecodePass& pass);
/// Heads that one block of it works on.
[[nodiscard]] int64_t tensor_head_tile(int64_t num_heads);

/// The same over a window's few tokens, for rows of 512 + 64 columns; partial results only.
void launch_decode_window(const DecodePass& pass, int64_t num_rows, cudaStream_t stream);
[[nodiscard]] bool can_use_window_kernel(const DecodePass& pass);

/// The same on the float32 units, for any sizes and rows.
template <typename T>
void launch_decode_simt(const DecodePass& pass, int64_t num_rows, cudaStream_t stream);
inline constexpr int kSimtHeads = 4;

}  // namespace tessera::kernels::cuda
