#include "engine/calibration/latent_statistics.h"

#include <algorithm>

#include "engine/base/check.h"

namespace tessera {
namespace {

constexpr int64_t kTokens = 0;
constexpr int64_t kQueries = 1;

/// Attention covariances of all layers together take at most so many doubles (2 GiB): a model of
/// 128 heads and 61 layers on latents of 512 keeps one for 8 heads.
constexpr int64_t kMaxAttentionSums = int64_t{1} << 28;

}  // namespace

LatentStatistics::LatentStatistics(const ModelConfig& config)
    : width_(config.kv_lora_rank),
      num_heads_(config.num_attention_heads),
      key_dim_(config.qk_nope_head_dim) {
  const int64_t square = width_ * width_;
  const int64_t allowed =
      std::max<int64_t>(1, kMaxAttentionSums / (config.num_hidden_layers * square));
  heads_per_group_ = (num_heads_ + allowed - 1) / allowed;
  const int64_t num_groups = (num_heads_ + heads_per_group_ - 1) / heads_per_group_;
  mean_offset_ = kQueries + 1;
  gram_offset_ = mean_offset_ + width_;
  attention_offset_ = gram_offset_ + square;
  query_offset_ = attention_offset_ + num_groups * square;
  stride_ = query_offset_ + num_heads_ * key_dim_ * key_dim_;
  sums_.assign(static_cast<size_t>(config.num_hidden_layers * stride_), 0.0);
}

const double* LatentStatistics::at(int64_t layer, int64_t offset) const {
  TESSERA_CHECK(layer >= 0 && (layer + 1) * stride_ <= static_cast<int64_t>(sums_.size()),
                "a layer that the model does not have");
  return sums_.data() + layer * stride_ + offset;
}

double* LatentStatistics::at(int64_t layer, int64_t offset) {
  return const_cast<double*>(std::as_const(*this).at(layer, offset));
}

int64_t LatentStatistics::group_size(int64_t group) const noexcept {
  return std::min(heads_per_group_, num_heads_ - group * heads_per_group_);
}

void LatentStatistics::add_latents(int64_t layer, const FloatMatrix& latents) {
  TESSERA_CHECK(latents.cols() == width_, "latents of another width");
  // In double: the centred covariance is a small difference of large sums.
  const Matrix columns = latents.transpose().cast<double>();
  Block(at(layer, gram_offset_), width_, width_)
      .selfadjointView<Eigen::Lower>()
      .rankUpdate(columns);
  Block(at(layer, mean_offset_), width_, 1) += columns.rowwise().sum();
  *at(layer, kTokens) += static_cast<double>(latents.rows());
}

void LatentStatistics::add_attention(int64_t layer, int64_t head, const AttendedLatents& attended) {
  const auto& [latents, weights, queries] = attended;
  TESSERA_CHECK(latents.cols() == width_ && weights.cols() == latents.rows() &&
                    queries.rows() == weights.rows() && queries.cols() == key_dim_ && head >= 0 &&
                    head < num_heads_,
                "attended latents of other sizes");
  // sum_t sum_j a_tj n_j n_j^T: one product, since n_j is the same for all queries. Float32
  // products of one step: nothing cancels but the outputs, which are as large as what remains.
  const Eigen::VectorXf received = weights.colwise().sum().transpose();
  const Eigen::MatrixXf scaled =
      latents.transpose() * received.cwiseMax(0.0F).cwiseSqrt().asDiagonal();
  const Eigen::MatrixXf outputs = (weights * latents).transpose();  // [R, Q]
  Eigen::MatrixXf covariance = Eigen::MatrixXf::Zero(width_, width_);
  covariance.selfadjointView<Eigen::Lower>().rankUpdate(scaled).rankUpdate(outputs, -1.0F);
  Block(at(layer, attention_offset_ + group_of(head) * width_ * width_), width_, width_)
      .triangularView<Eigen::Lower>() += covariance.cast<double>();
  const Eigen::VectorXf spread =
      (weights * latents.rowwise().squaredNorm() - outputs.colwise().squaredNorm().transpose())
          .cwiseMax(0.0F);
  const Eigen::MatrixXf spread_queries =
      queries.transpose() * spread.cwiseSqrt().asDiagonal();  // [dn, Q]
  Eigen::MatrixXf moment = Eigen::MatrixXf::Zero(key_dim_, key_dim_);
  moment.selfadjointView<Eigen::Lower>().rankUpdate(spread_queries);
  Block(at(layer, query_offset_ + head * key_dim_ * key_dim_), key_dim_, key_dim_)
      .triangularView<Eigen::Lower>() += moment.cast<double>();
  if (head == 0) {
    *at(layer, kQueries) += static_cast<double>(queries.rows());
  }
}

int64_t LatentStatistics::num_tokens(int64_t layer) const {
  return static_cast<int64_t>(*at(layer, kTokens));
}

int64_t LatentStatistics::num_queries(int64_t layer) const {
  return static_cast<int64_t>(*at(layer, kQueries));
}

Matrix LatentStatistics::latent_covariance(int64_t layer) const {
  const double count = *at(layer, kTokens);
  TESSERA_CHECK(count > 0.0, "statistics of no tokens");
  const Matrix gram =
      ConstBlock(at(layer, gram_offset_), width_, width_).selfadjointView<Eigen::Lower>();
  const Vector mean = ConstBlock(at(layer, mean_offset_), width_, 1) / count;
  return gram / count - mean * mean.transpose();
}

Matrix LatentStatistics::attention_covariance(int64_t layer, int64_t head) const {
  const int64_t group = group_of(head);
  const double count = *at(layer, kQueries) * static_cast<double>(group_size(group));
  TESSERA_CHECK(count > 0.0, "statistics of no queries");
  const Matrix sum =
      ConstBlock(at(layer, attention_offset_ + group * width_ * width_), width_, width_)
          .selfadjointView<Eigen::Lower>();
  return sum / count;
}

Matrix LatentStatistics::query_moment(int64_t layer, int64_t head) const {
  const double count = *at(layer, kQueries);
  TESSERA_CHECK(count > 0.0 && head >= 0 && head < num_heads_, "statistics of no queries");
  const Matrix sum =
      ConstBlock(at(layer, query_offset_ + head * key_dim_ * key_dim_), key_dim_, key_dim_)
          .selfadjointView<Eigen::Lower>();
  return sum / count;
}

}  // namespace tessera
