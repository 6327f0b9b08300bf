#include "engine/calibration/latent_statistics.h"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera {
namespace {

constexpr int64_t kWidth = 32;
constexpr int64_t kKeyDim = 16;
constexpr int64_t kTokens = 37;
constexpr int64_t kQueries = 5;

class LatentStatisticsTest : public ::testing::Test {
 protected:
  LatentStatisticsTest() {
    // Attention of a few queries: positive, rows of sum 1.
    for (Eigen::Index row = 0; row < kQueries; ++row) {
      weights_.row(row) = weights_.row(row).array().abs();
      weights_.row(row) /= weights_.row(row).sum();
    }
  }
  static FloatMatrix random_floats(int64_t rows, int64_t columns, uint64_t seed) {
    return test::random_matrix(rows, columns, seed).cast<float>().array() + 0.5F;
  }
  [[nodiscard]] AttendedLatents attended() const {
    return {.latents = latents_, .weights = weights_, .queries = queries_};
  }
  [[nodiscard]] double mean_under_attention(int64_t query, int64_t column) const {
    double sum = 0.0;
    for (int64_t t = 0; t < kTokens; ++t) {
      sum += static_cast<double>(weights_(query, t)) * latents_(t, column);
    }
    return sum;
  }
  /// Cov_a(n)(i, j) of one query, from its definition.
  [[nodiscard]] double covariance(int64_t query, int64_t i, int64_t j) const {
    const double mean_i = mean_under_attention(query, i);
    const double mean_j = mean_under_attention(query, j);
    double sum = 0.0;
    for (int64_t t = 0; t < kTokens; ++t) {
      sum += static_cast<double>(weights_(query, t)) * (latents_(t, i) - mean_i) *
             (latents_(t, j) - mean_j);
    }
    return sum;
  }

  /// Fresh inputs every time; a fault prints the seed.
  const uint64_t seed_ = std::random_device()();
  const ::testing::ScopedTrace trace_{__FILE__, __LINE__, seed_};
  const ModelConfig config_ = test::small_model_config();
  const FloatMatrix latents_ = random_floats(kTokens, kWidth, seed_);
  const FloatMatrix queries_ = random_floats(kQueries, kKeyDim, seed_ + 1);
  FloatMatrix weights_ = random_floats(kQueries, kTokens, seed_ + 2);
};

TEST_F(LatentStatisticsTest, CovarianceEqualsADoubleLoop) {
  LatentStatistics statistics(config_);
  statistics.add_latents(1, latents_.topRows(20));
  statistics.add_latents(1, latents_.bottomRows(kTokens - 20));
  EXPECT_EQ(statistics.num_tokens(1), kTokens);
  EXPECT_EQ(statistics.num_tokens(0), 0);
  const Matrix covariance = statistics.latent_covariance(1);
  for (int64_t i = 0; i < kWidth; ++i) {
    for (int64_t j = 0; j < kWidth; ++j) {
      double product = 0.0;
      double sum_i = 0.0;
      double sum_j = 0.0;
      for (int64_t t = 0; t < kTokens; ++t) {
        product += static_cast<double>(latents_(t, i)) * latents_(t, j);
        sum_i += latents_(t, i);
        sum_j += latents_(t, j);
      }
      EXPECT_NEAR(covariance(i, j), product / kTokens - sum_i / kTokens * sum_j / kTokens, 1e-12);
    }
  }
}

TEST_F(LatentStatisticsTest, AttentionCovarianceEqualsADoubleLoop) {
  LatentStatistics statistics(config_);
  for (int64_t head = 0; head < config_.num_attention_heads; ++head) {
    statistics.add_attention(0, head, attended());
  }
  EXPECT_EQ(statistics.num_queries(0), kQueries);
  const Matrix actual = statistics.attention_covariance(0, 2);
  for (int64_t i = 0; i < kWidth; ++i) {
    for (int64_t j = 0; j < kWidth; ++j) {
      double expected = 0.0;
      for (int64_t query = 0; query < kQueries; ++query) {
        expected += covariance(query, i, j) / kQueries;
      }
      EXPECT_NEAR(actual(i, j), expected, 1e-4);  // float32 products of a step
    }
  }
}

TEST_F(LatentStatisticsTest, QueriesCountAsMuchAsTheirAttentionIsSpread) {
  weights_.row(0).setZero();
  weights_(0, 7) = 1.0F;  // one token has it all: this query counts nothing
  LatentStatistics statistics(config_);
  statistics.add_attention(1, 0, attended());
  const Matrix actual = statistics.query_moment(1, 0);
  for (int64_t i = 0; i < kKeyDim; ++i) {
    for (int64_t j = 0; j < kKeyDim; ++j) {
      double expected = 0.0;
      for (int64_t query = 1; query < kQueries; ++query) {
        double spread = 0.0;
        for (int64_t column = 0; column < kWidth; ++column) {
          spread += covariance(query, column, column);
        }
        expected += spread * queries_(query, i) * queries_(query, j) / kQueries;
      }
      EXPECT_NEAR(actual(i, j), expected, 2e-3);  // of about a hundred
    }
  }
}

TEST_F(LatentStatisticsTest, SumsAreTheSameBitsForTheSameSteps) {
  LatentStatistics first(config_);
  LatentStatistics second(config_);
  for (LatentStatistics* statistics : {&first, &second}) {
    statistics->add_latents(0, latents_);
    statistics->add_attention(0, 1, attended());
  }
  EXPECT_TRUE(std::equal(first.sums().begin(), first.sums().end(), second.sums().begin()));
}

}  // namespace
}  // namespace tessera
