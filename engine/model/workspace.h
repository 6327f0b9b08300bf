// Every scratch tensor of a step, allocated once for the largest step. Rank thread only.
// Letters as in model_weights.h; T tokens, B decode rows, k experts a token. Of the rank's plan: Hd
// decode heads, h own heads, w columns of a latent, v of them multiplied as values (Hd, w and v of
// the layer that needs most); I and V stand for the rank's part of them.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/config/model_config.h"
#include "engine/weights/model_weights.h"
#include "kernels/core/device.h"
#include "kernels/core/tensor_view.h"

namespace tessera {

/// The largest step that will ever be asked for.
struct StepLimits {
  int64_t max_tokens = 512;
  int64_t max_sequences = 64;
  int64_t max_logits_rows = 64;
  int64_t max_model_len = 4096;
  /// Keys of a prefill chunk's context are up-projected this many at a time: as many as a core's
  /// cache holds, or many more for a GPU.
  int64_t context_tile = 512;
  /// The cache has float8 rows: a group that shares its attention rounds prompts as they do.
  bool has_float8_cache = false;
};

/// First `count` rows.
[[nodiscard]] inline kernels::TensorView first_rows(const kernels::TensorView& view,
                                                    int64_t count) {
  return view.slice(0, 0, count);
}

class Workspace final {
 public:
  /// Sizes follow the plan, the dtype and the forms of `weights`, which are not kept.
  Workspace(const ModelConfig& config,
            const ModelWeights& weights,
            const StepLimits& limits,
            kernels::Device& device);

  // The step's input arrays on the device.
  kernels::TensorView token_ids;           ///< [T] int32
  kernels::TensorView positions;           ///< [T] int32
  kernels::TensorView slots;               ///< [T] int64
  kernels::TensorView decode_lengths;      ///< [B] int32
  kernels::TensorView window_slots;        ///< [T] int64; null without an exact window
  kernels::TensorView window_first_slots;  ///< [B] int64; likewise
  kernels::TensorView block_tables;        ///< [sequences, the step's blocks] int32
  kernels::TensorView logits_rows;         ///< [rows] int32

  kernels::TensorView hidden;  ///< [T, D] float32: the residual stream
  kernels::TensorView normed;  ///< [T, D]
  kernels::TensorView delta;   ///< [T, D] float32: what a sublayer adds to the residual stream

  kernels::TensorView attention_input;   ///< [T, q | R | dr] float32
  kernels::TensorView q_normed;          ///< [T, Rq]
  kernels::TensorView q;                 ///< [T, Hd (dn + dr)]
  kernels::TensorView latent;            ///< [T, R] float32, in a basis that is not folded
  kernels::TensorView q_latent;          ///< [B, Hd w]
  kernels::TensorView window_q_latent;   ///< [B, Hd R], with an exact window
  kernels::TensorView attended_latent;   ///< [B, Hd v]
  kernels::TensorView log_sum_exp;       ///< [B, Hd] float32
  kernels::TensorView partial_values;    ///< [B, Hd dv] float32: to be added up over ranks
  kernels::TensorView own_values;        ///< [B, h dv] float32: the sum, unless that is its dtype
  kernels::TensorView all_log_sum_exp;   ///< [N, B, Hd] float32 (dcp)
  kernels::TensorView context_latent;    ///< [context_tile, R]
  kernels::TensorView context_rope;      ///< [context_tile, dr]
  kernels::TensorView context_kv;        ///< [context_tile, h (dn + dv)]
  kernels::TensorView rounding_rows;     ///< [context_tile, row bytes] uint8, where it rounds
  kernels::TensorView rounding_slots;    ///< [context_tile] int64: 0, 1, 2, ..
  kernels::TensorView rounding_table;    ///< [its blocks] int32: 0, 1, 2, ..
  kernels::TensorView accumulator;       ///< [T, h, dv] float32
  kernels::TensorView max_logit;         ///< [T, h] float32
  kernels::TensorView sum;               ///< [T, h] float32
  kernels::TensorView attention_output;  ///< [T, h dv]

  kernels::TensorView gate_up;    ///< [T, 2 I] float32, widest dense or shared MLP
  kernels::TensorView activated;  ///< [T, I]

  kernels::TensorView gate_input;        ///< [T, D] float32
  kernels::TensorView gate_logits;       ///< [T, E] float32
  kernels::TensorView expert_ids;        ///< [T, k] int32
  kernels::TensorView expert_weights;    ///< [T, k] float32
  kernels::TensorView permuted;          ///< [T k, D]
  kernels::TensorView expert_offsets;    ///< [E + 1] int32
  kernels::TensorView row_of_pair;       ///< [T, k] int32
  kernels::TensorView expert_gate_up;    ///< [T k, 2 I] float32
  kernels::TensorView expert_activated;  ///< [T k, I]
  kernels::TensorView expert_out;        ///< [T k, D] float32

  kernels::TensorView last_hidden;  ///< [rows, D] float32
  kernels::TensorView last_delta;   ///< [rows, D] float32
  kernels::TensorView last_normed;  ///< [rows, D]
  kernels::TensorView own_logits;   ///< [rows, V] float32
  /// [rows, vocab_size] float32: the same memory with one rank; only rank 0 has it with several.
  kernels::TensorView logits;

  [[nodiscard]] int64_t num_bytes() const noexcept { return num_bytes_; }

 private:
  [[nodiscard]] kernels::TensorView add(kernels::DType dtype, std::initializer_list<int64_t> shape);
  /// Blocks of a cache of their own, in which a context tile is written and read back.
  void add_rounding(const ModelConfig& config, int64_t context_tile);

  kernels::Device& device_;
  std::vector<kernels::DeviceBuffer> buffers_;
  int64_t num_bytes_ = 0;
};

}  // namespace tessera
