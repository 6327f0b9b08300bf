#include "engine/calibration/latent_statistics.h"

#include "engine/base/check.h"

namespace tessera {

LatentStatistics::LatentStatistics(const ModelConfig& config)
    : width_(config.kv_lora_rank),
      num_heads_(config.num_attention_heads),
      key_dim_(config.qk_nope_head_dim),
      stride_(width_ * width_ + width_ + num_heads_ * key_dim_ * key_dim_ + 1),
      sums_(static_cast<size_t>(config.num_hidden_layers * stride_), 0.0) {}

size_t LatentStatistics::offset(int64_t layer) const {
  TESSERA_CHECK(layer >= 0 && (layer + 1) * stride_ <= static_cast<int64_t>(sums_.size()),
                "a layer that the model does not have");
  return static_cast<size_t>(layer * stride_);
}

void LatentStatistics::add(int64_t layer, const FloatRows& latents, const FloatRows& queries) {
  TESSERA_CHECK(latents.cols() == width_ && queries.cols() == num_heads_ * key_dim_ &&
                    latents.rows() == queries.rows(),
                "rows of other sizes");
  double* sums = sums_.data() + offset(layer);
  // In double: the centred covariance is a small difference of large sums.
  const Matrix columns = latents.transpose().cast<double>();
  Block(sums, width_, width_).selfadjointView<Eigen::Lower>().rankUpdate(columns);
  sums += width_ * width_;
  Block(sums, width_, 1) += columns.rowwise().sum();
  sums += width_;
  // The moments are not centred: float32 products of one step lose nothing that matters.
  Eigen::MatrixXf moment(key_dim_, key_dim_);
  for (int64_t head = 0; head < num_heads_; ++head) {
    moment.setZero();
    const Eigen::MatrixXf own = queries.middleCols(head * key_dim_, key_dim_).transpose();
    moment.selfadjointView<Eigen::Lower>().rankUpdate(own);
    Block(sums, key_dim_, key_dim_).triangularView<Eigen::Lower>() += moment.cast<double>();
    sums += key_dim_ * key_dim_;
  }
  *sums += static_cast<double>(latents.rows());
}

int64_t LatentStatistics::num_tokens(int64_t layer) const {
  return static_cast<int64_t>(sums_[offset(layer) + static_cast<size_t>(stride_ - 1)]);
}

Matrix LatentStatistics::latent_covariance(int64_t layer) const {
  const double* sums = sums_.data() + offset(layer);
  const auto count = static_cast<double>(num_tokens(layer));
  TESSERA_CHECK(count > 0.0, "statistics of no tokens");
  const Matrix gram = ConstBlock(sums, width_, width_).selfadjointView<Eigen::Lower>();
  const Vector mean = ConstBlock(sums + width_ * width_, width_, 1) / count;
  return gram / count - mean * mean.transpose();
}

Matrix LatentStatistics::query_moment(int64_t layer, int64_t head) const {
  const double* sums = sums_.data() + offset(layer) + width_ * width_ + width_;
  const auto count = static_cast<double>(num_tokens(layer));
  TESSERA_CHECK(count > 0.0 && head >= 0 && head < num_heads_, "statistics of no tokens");
  const Matrix gram = ConstBlock(sums + head * key_dim_ * key_dim_, key_dim_, key_dim_)
                          .selfadjointView<Eigen::Lower>();
  return gram / count;
}

}  // namespace tessera
