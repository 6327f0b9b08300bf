// What calibration knows of a model's activations: sums over tokens, one set a layer. Bounded
// however long the text is.
//
// Letters: R kv_lora_rank, H heads, G groups of heads, dn qk_nope_head_dim. n is the latent divided
// by its root mean square, without the norm's weight; a the attention of one query over its
// context, o = sum_j a_j n_j its output.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/calibration/linear_algebra.h"
#include "engine/config/model_config.h"

namespace tessera {

/// Some queries of one head over the latents of one sequence.
struct AttendedLatents {
  const FloatMatrix& latents;  ///< [T, R] rows of n
  const FloatMatrix& weights;  ///< [Q, T]: a of each query, 0 behind its own position
  const FloatMatrix& queries;  ///< [Q, dn], without the rope part
};

class LatentStatistics final {
 public:
  explicit LatentStatistics(const ModelConfig& config);

  /// `latents` [T, R] rows of n.
  void add_latents(int64_t layer, const FloatMatrix& latents);
  void add_attention(int64_t layer, int64_t head, const AttendedLatents& attended);

  [[nodiscard]] int64_t num_tokens(int64_t layer) const;
  /// Queries a head.
  [[nodiscard]] int64_t num_queries(int64_t layer) const;
  /// E[(n - m)(n - m)^T], m = E[n]. Needs a token.
  [[nodiscard]] Matrix latent_covariance(int64_t layer) const;
  /// E_t[Cov_a(n)] = E_t[sum_j a_j n_j n_j^T - o o^T] of a head's queries: how the latents that it
  /// looks at vary. Heads of one group share their mean. Needs a query, as the next one.
  [[nodiscard]] Matrix attention_covariance(int64_t layer, int64_t head) const;
  /// E_t[tr(Cov_a(n)) q q^T] of a head, [dn, dn]: queries count as much as their attention is
  /// spread, because an error of the logits moves nothing where one token has all the weight.
  [[nodiscard]] Matrix query_moment(int64_t layer, int64_t head) const;

  /// Heads of one group: 1 where memory allows.
  [[nodiscard]] int64_t heads_per_group() const noexcept { return heads_per_group_; }
  /// All sums, for a file. Equal sums give equal results.
  [[nodiscard]] std::span<const double> sums() const noexcept { return sums_; }
  [[nodiscard]] std::span<double> sums() noexcept { return sums_; }

 private:
  using Block = Eigen::Map<Matrix>;
  using ConstBlock = Eigen::Map<const Matrix>;
  [[nodiscard]] int64_t group_of(int64_t head) const noexcept { return head / heads_per_group_; }
  [[nodiscard]] int64_t group_size(int64_t group) const noexcept;
  [[nodiscard]] const double* at(int64_t layer, int64_t offset) const;
  [[nodiscard]] double* at(int64_t layer, int64_t offset);

  int64_t width_;      // R
  int64_t num_heads_;  // H
  int64_t key_dim_;    // dn
  int64_t heads_per_group_ = 1;
  // Where a layer's sums begin, lower triangles of the squares: tokens, queries, n, n n^T, then of
  // every group the attention covariance, of every head the query moment.
  int64_t mean_offset_;
  int64_t gram_offset_;
  int64_t attention_offset_;
  int64_t query_offset_;
  int64_t stride_;
  std::vector<double> sums_;
};

}  // namespace tessera
