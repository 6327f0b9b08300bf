// What calibration knows of a model's activations: sums over tokens, one set a layer. Bounded:
// R^2 + R + H dn^2 doubles a layer, however long the text.
//
// Letters: R kv_lora_rank, H heads, dn qk_nope_head_dim. n is the latent divided by its root mean
// square, without the norm's weight.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/calibration/linear_algebra.h"
#include "engine/config/model_config.h"

namespace tessera {

class LatentStatistics final {
 public:
  explicit LatentStatistics(const ModelConfig& config);

  /// `latents` [T, R] rows of n; `queries` [T, H dn], the heads' parts without rope.
  void add(int64_t layer, const FloatRows& latents, const FloatRows& queries);

  [[nodiscard]] int64_t num_tokens(int64_t layer) const;
  /// E[(n - m)(n - m)^T], m = E[n]. Needs a token, as the next one.
  [[nodiscard]] Matrix latent_covariance(int64_t layer) const;
  /// E[q q^T] of a head, [dn, dn].
  [[nodiscard]] Matrix query_moment(int64_t layer, int64_t head) const;

  /// All sums, for a file. Equal sums give equal results.
  [[nodiscard]] std::span<const double> sums() const noexcept { return sums_; }
  [[nodiscard]] std::span<double> sums() noexcept { return sums_; }

 private:
  using Block = Eigen::Map<Matrix>;
  using ConstBlock = Eigen::Map<const Matrix>;
  [[nodiscard]] size_t offset(int64_t layer) const;

  int64_t width_;      // R
  int64_t num_heads_;  // H
  int64_t key_dim_;    // dn
  int64_t stride_;     // of a layer's sums: n n^T, n, then q q^T of every head, then the count
  std::vector<double> sums_;
};

}  // namespace tessera
