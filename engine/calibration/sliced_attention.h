// The attention of sampled queries over one layer's slices: how far its outputs are from the exact
// ones, and the gradient of that with respect to what the slices multiply queries by. float32.
//
// Letters: R kv_lora_rank, g slices, w columns of a slice, H heads, dn, dr and dv the head
// dimensions, T tokens, Q queries.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/calibration/attention_samples.h"
#include "engine/calibration/layer_weights.h"
#include "engine/calibration/linear_algebra.h"
#include "engine/config/model_config.h"
#include "engine/weights/tpla_calibration.h"
#include "kernels/ops/latent_window.h"

namespace tessera {

/// Tokens of one window as the slices have them.
struct SlicedTokens {
  std::vector<FloatMatrix> slices;  ///< by slice [T, w + dr]: its columns of n A, the rope part
};

/// Some queries of one window, near each other, and their exact attention.
struct QueryBlock {
  const SlicedTokens* tokens = nullptr;
  std::vector<int64_t> positions;  ///< [Q] rising
  FloatMatrix queries;             ///< [H Q, dn + dr]: all of head 0, all of head 1, ...
  FloatMatrix outputs;             ///< [H Q, dv]
  /// [H Q, first + last tokens of the exact window]: logits there, 0 where the window has less.
  FloatMatrix window_logits;
};

/// Of some queries, by head: sums of squares.
struct AttentionError {
  std::vector<double> error;   ///< |sliced output - exact output|^2
  std::vector<double> energy;  ///< |exact output|^2
};

class SlicedAttention final {
 public:
  /// `layer` is sliced (num_shared below R); `weights` outlive it.
  SlicedAttention(const ModelConfig& config,
                  const LayerWeightsOfHeads& weights,
                  const TplaCalibration::Layer& layer,
                  int64_t num_slices,
                  kernels::LatentWindow window);

  [[nodiscard]] int64_t width() const noexcept { return width_; }  ///< w
  [[nodiscard]] SlicedTokens slice_tokens(const AttentionSample& sample) const;
  /// Blocks of up to `block_queries` consecutive queries; `tokens` outlive them.
  [[nodiscard]] std::vector<QueryBlock> make_blocks(const AttentionSample& sample,
                                                    const SlicedTokens& tokens,
                                                    int64_t block_queries) const;

  /// Adds a block's sums to `sums`.
  void add_error(std::span<const float> keys, const QueryBlock& block, AttentionError& sums) const;
  /// Adds to `gradient` [g, H, w, dn] that of sum_h weights[h] * error[h] of the block.
  void add_gradient(std::span<const float> keys,
                    const QueryBlock& block,
                    std::span<const float> weights,
                    std::span<float> gradient) const;

 private:
  struct Pass;
  [[nodiscard]] Pass run(std::span<const float> keys, const QueryBlock& block) const;
  [[nodiscard]] FloatMatrix slice_logits(std::span<const float> keys,
                                         const QueryBlock& block,
                                         int64_t slice) const;
  void attend(const QueryBlock& block, FloatMatrix& logits) const;
  void compute_exact(const AttentionSample& sample, QueryBlock& block) const;
  [[nodiscard]] FloatRows keys_of(std::span<const float> keys, int64_t slice, int64_t head) const;
  [[nodiscard]] int64_t key_offset(int64_t slice, int64_t head) const noexcept {
    return (slice * num_heads_ + head) * width_ * key_dim_;
  }

  const LayerWeightsOfHeads& weights_;
  const kernels::LatentWindow window_;
  const int64_t num_slices_;
  const int64_t num_heads_;
  const int64_t width_;
  const int64_t key_dim_;
  const float scale_;
  std::vector<FloatMatrix> forward_;              // by slice [R, w]
  std::vector<std::vector<FloatMatrix>> values_;  // by slice and head [w, dv]
};

}  // namespace tessera
