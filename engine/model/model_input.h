// Host arrays of one step: what exactly the model runs next. Filled by the scheduler, read by the
// runner; plain data that keeps its capacity from step to step.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera {

/// Consecutive tokens of one sequence, run in up-projected form.
struct PrefillChunk {
  int64_t row_begin = 0;  ///< first row of this chunk in token_ids
  int64_t num_tokens = 0;
  int64_t context_begin = 0;  ///< position of the first token: tokens before it are in the cache
  int64_t table_row = 0;      ///< row of block_tables
};

/// T tokens: `num_decode` rows of one token each (table row i belongs to decode row i), then the
/// prefill chunks, back to back.
struct ModelInput {
  std::vector<int32_t> token_ids;  ///< [T]
  std::vector<int32_t> positions;  ///< [T]
  std::vector<int64_t> slots;      ///< [T]: block id * kBlockTokens + offset
  int64_t num_decode = 0;
  std::vector<int32_t> decode_lengths;  ///< [num_decode]: context, the row's own token included
  /// With an exact window (kernels/ops/latent_window.h), empty without: slot in the window cache of
  /// each token, -1 where its row is not kept [T]; that of the first row of each decode row's
  /// sequence [num_decode].
  std::vector<int64_t> window_slots;
  std::vector<int64_t> window_first_slots;
  std::vector<PrefillChunk> chunks;
  /// [num_decode + chunks, max_blocks_per_sequence] row-major block ids; unused entries are 0.
  std::vector<int32_t> block_tables;
  int64_t max_blocks_per_sequence = 0;  ///< the step's longest table: changes from step to step
  std::vector<int32_t> logits_rows;     ///< rows of T whose logits are wanted, ascending

  [[nodiscard]] int64_t num_tokens() const noexcept {
    return static_cast<int64_t>(token_ids.size());
  }
  void clear() noexcept {
    token_ids.clear();
    positions.clear();
    slots.clear();
    num_decode = 0;
    decode_lengths.clear();
    window_slots.clear();
    window_first_slots.clear();
    chunks.clear();
    block_tables.clear();
    max_blocks_per_sequence = 0;
    logits_rows.clear();
  }
};

}  // namespace tessera
