#include "engine/calibration/sliced_attention.h"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/unit/engine/calibration/attention_layer.h"

namespace tessera {
namespace {

constexpr int64_t kTokens = 24;
constexpr int64_t kShared = 8;

class SlicedAttentionTest : public ::testing::Test {
 protected:
  [[nodiscard]] SlicedAttention make(kernels::LatentWindow window = {}) const {
    return {config_, weights_, layer_, 2, window};
  }
  /// Of keys, over all blocks.
  [[nodiscard]] AttentionError error(const SlicedAttention& attention,
                                     std::span<const float> keys,
                                     int64_t block_queries = 2) const {
    const SlicedTokens tokens = attention.slice_tokens(sample_);
    AttentionError sums;
    for (const QueryBlock& block : attention.make_blocks(sample_, tokens, block_queries)) {
      attention.add_error(keys, block, sums);
    }
    return sums;
  }
  [[nodiscard]] std::vector<float> gradient(const SlicedAttention& attention,
                                            std::span<const float> weights) const {
    const SlicedTokens tokens = attention.slice_tokens(sample_);
    std::vector<float> sum(layer_.keys.size(), 0.0F);
    for (const QueryBlock& block : attention.make_blocks(sample_, tokens, 2)) {
      attention.add_gradient(layer_.keys, block, weights, sum);
    }
    return sum;
  }

  const ModelConfig config_ = test::small_model_config();
  const LayerWeightsOfHeads weights_ = test::random_weights(config_, 1);
  const TplaCalibration::Layer layer_ = test::random_cut(config_, weights_, kShared, 3);
  const AttentionSample sample_ = test::random_sample(config_, kTokens, {3, 9, 10, 17, 23}, 5);
};

/// The attention of one head and query in double precision, written out.
struct Written {
  const ModelConfig& config;
  const LayerWeightsOfHeads& weights;
  const TplaCalibration::Layer& layer;
  const AttentionSample& sample;
  kernels::LatentWindow window;

  [[nodiscard]] Vector query(int64_t row, int64_t head) const {
    const int64_t dim = config.qk_head_dim();
    return sample.queries.row(row).segment(head * dim, dim).cast<double>().transpose();
  }
  [[nodiscard]] double exact_logit(int64_t row, int64_t head, int64_t token) const {
    const Vector q = query(row, head);
    const Vector key = weights.keys[static_cast<size_t>(head)] * q.head(config.qk_nope_head_dim);
    return logit(q, key, sample.latents.row(token).cast<double>().transpose(), token);
  }
  [[nodiscard]] double logit(const Vector& q,
                             const Vector& key,
                             const Vector& latent,
                             int64_t token) const {
    const Vector rope = sample.rope.row(token).cast<double>().transpose();
    return config.softmax_scale() * (key.dot(latent) + q.tail(config.qk_rope_head_dim).dot(rope));
  }
  [[nodiscard]] Vector output(int64_t row, int64_t head, int64_t slice) const {
    const int64_t own = (config.kv_lora_rank - kShared) / 2;
    const Matrix basis =
        FloatRows(layer.basis.data(), config.kv_lora_rank, config.kv_lora_rank).cast<double>();
    Matrix columns(config.kv_lora_rank, kShared + own);
    columns << basis.leftCols(kShared), basis.middleCols(kShared + slice * own, own);
    const int64_t size = columns.cols() * config.qk_nope_head_dim;
    const float* values = layer.keys.data() + (slice * config.num_attention_heads + head) * size;
    const Matrix keys = FloatRows(values, columns.cols(), config.qk_nope_head_dim).cast<double>();
    const Vector q = query(row, head);
    const int64_t length = sample.positions[static_cast<size_t>(row)] + 1;
    Vector scaled = Vector::Ones(columns.cols());
    scaled.head(kShared) /= 2.0;
    Vector sum = Vector::Zero(config.v_head_dim);
    double total = 0.0;
    for (int64_t token = 0; token < length; ++token) {
      const Vector latent =
          columns.transpose() * sample.latents.row(token).cast<double>().transpose();
      const double weight =
          std::exp(window.contains(token, length)
                       ? exact_logit(row, head, token)
                       : logit(q, keys * q.head(config.qk_nope_head_dim), latent, token));
      total += weight;
      sum += weight * weights.values[static_cast<size_t>(head)].transpose() * columns *
             scaled.asDiagonal() * latent;
    }
    return sum / total;
  }
  [[nodiscard]] Vector exact_output(int64_t row, int64_t head) const {
    Vector sum = Vector::Zero(config.v_head_dim);
    double total = 0.0;
    for (int64_t token = 0; token <= sample.positions[static_cast<size_t>(row)]; ++token) {
      const double weight = std::exp(exact_logit(row, head, token));
      total += weight;
      sum += weight * weights.values[static_cast<size_t>(head)].transpose() *
             sample.latents.row(token).cast<double>().transpose();
    }
    return sum / total;
  }
};

TEST_F(SlicedAttentionTest, ErrorIsWhatTheFormulaSays) {
  for (const kernels::LatentWindow window :
       {kernels::LatentWindow{}, kernels::LatentWindow{.num_first = 2, .num_last = 3}}) {
    const AttentionError actual = error(make(window), layer_.keys);
    const Written written{config_, weights_, layer_, sample_, window};
    for (int64_t head = 0; head < config_.num_attention_heads; ++head) {
      double expected = 0.0;
      double energy = 0.0;
      for (int64_t row = 0; row < 5; ++row) {
        const Vector exact = written.exact_output(row, head);
        energy += exact.squaredNorm();
        expected +=
            (written.output(row, head, 0) + written.output(row, head, 1) - exact).squaredNorm();
      }
      EXPECT_NEAR(actual.error[static_cast<size_t>(head)], expected, 1e-3 * expected);
      EXPECT_NEAR(actual.energy[static_cast<size_t>(head)], energy, 1e-3 * energy);
    }
  }
}

TEST_F(SlicedAttentionTest, GradientIsTheSlopeOfTheError) {
  const std::vector<float> weights = {1.0F, 0.5F, 2.0F, 0.25F};
  const auto weighted = [&](const AttentionError& sums) {
    return std::inner_product(sums.error.begin(), sums.error.end(), weights.begin(), 0.0);
  };
  for (const kernels::LatentWindow window :
       {kernels::LatentWindow{}, kernels::LatentWindow{.num_first = 1, .num_last = 4}}) {
    const SlicedAttention attention = make(window);
    const std::vector<float> actual = gradient(attention, weights);
    for (uint64_t seed = 0; seed < 4; ++seed) {
      const FloatMatrix direction =
          test::random_floats(1, static_cast<int64_t>(actual.size()), 70 + seed);
      // Small enough for the third derivative, large enough for float32.
      constexpr float kStep = 3e-3F;
      std::vector<float> ahead = layer_.keys;
      std::vector<float> behind = layer_.keys;
      double slope = 0.0;
      for (size_t i = 0; i < actual.size(); ++i) {
        const float change = direction(static_cast<Eigen::Index>(i));
        ahead[i] += kStep * change;
        behind[i] -= kStep * change;
        slope += static_cast<double>(actual[i]) * change;
      }
      const double expected =
          (weighted(error(attention, ahead)) - weighted(error(attention, behind))) / (2.0 * kStep);
      EXPECT_NEAR(slope, expected, 0.01 * std::abs(expected) + 0.01) << "seed " << 70 + seed;
    }
  }
}

TEST_F(SlicedAttentionTest, WindowLongerThanTheContextIsExact) {
  const SlicedAttention attention = make({.num_last = kTokens});
  const AttentionError sums = error(attention, layer_.keys);
  for (size_t head = 0; head < sums.error.size(); ++head) {
    EXPECT_LT(sums.error[head], 1e-8 * sums.energy[head]);
  }
  for (const float value : gradient(attention, {std::vector<float>(4, 1.0F)})) {
    EXPECT_EQ(value, 0.0F);
  }
}

TEST_F(SlicedAttentionTest, BlocksDoNotMatter) {
  const SlicedAttention attention = make({.num_last = 2});
  const AttentionError two = error(attention, layer_.keys, 2);
  const AttentionError all = error(attention, layer_.keys, 8);
  for (size_t head = 0; head < two.error.size(); ++head) {
    EXPECT_NEAR(two.error[head], all.error[head], 1e-5 * all.error[head]);
  }
}

}  // namespace
}  // namespace tessera
