#include "engine/calibration/latent_statistics.h"

#include <random>

#include <gtest/gtest.h>

#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera {
namespace {

class LatentStatisticsTest : public ::testing::Test {
 protected:
  /// Fresh inputs every time; a fault prints the seed.
  const uint64_t seed_ = std::random_device()();
  const ModelConfig config_ = test::calibration_config();
  const int64_t num_tokens_ = 37;
  std::vector<float> latents_ = random_floats(num_tokens_ * 32, 0.5F, seed_);
  std::vector<float> queries_ = random_floats(num_tokens_ * 4 * 16, 0.0F, seed_ + 1);

  static std::vector<float> random_floats(int64_t count, float mean, uint64_t seed) {
    std::mt19937_64 engine(seed);
    std::normal_distribution<float> normal(mean, 1.0F);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) {
      value = normal(engine);
    }
    return values;
  }
  void add(LatentStatistics& statistics, int64_t layer, int64_t begin, int64_t count) const {
    statistics.add(layer,
                   FloatRows(latents_.data() + begin * 32, count, 32),
                   FloatRows(queries_.data() + begin * 64, count, 64));
  }
  double latent(int64_t token, int64_t column) const {
    return latents_[static_cast<size_t>(token * 32 + column)];
  }
  double query(int64_t token, int64_t head, int64_t row) const {
    return queries_[static_cast<size_t>(token * 64 + head * 16 + row)];
  }
};

TEST_F(LatentStatisticsTest, EqualsADoubleLoop) {
  SCOPED_TRACE(seed_);
  LatentStatistics statistics(config_);
  add(statistics, 1, 0, 20);
  add(statistics, 1, 20, 17);
  EXPECT_EQ(statistics.num_tokens(1), num_tokens_);
  EXPECT_EQ(statistics.num_tokens(0), 0);
  const Matrix covariance = statistics.latent_covariance(1);
  const auto count = static_cast<double>(num_tokens_);
  for (int64_t i = 0; i < 32; ++i) {
    for (int64_t j = 0; j < 32; ++j) {
      double product = 0.0;
      double mean_i = 0.0;
      double mean_j = 0.0;
      for (int64_t t = 0; t < num_tokens_; ++t) {
        product += latent(t, i) * latent(t, j) / count;
        mean_i += latent(t, i) / count;
        mean_j += latent(t, j) / count;
      }
      EXPECT_NEAR(covariance(i, j), product - mean_i * mean_j, 1e-12);
    }
  }
  for (int64_t head = 0; head < 4; ++head) {
    const Matrix moment = statistics.query_moment(1, head);
    for (int64_t i = 0; i < 16; ++i) {
      for (int64_t j = 0; j < 16; ++j) {
        double product = 0.0;
        for (int64_t t = 0; t < num_tokens_; ++t) {
          product += query(t, head, i) * query(t, head, j) / count;
        }
        EXPECT_NEAR(moment(i, j), product, 1e-5);  // products of a step are float32
      }
    }
  }
}

TEST_F(LatentStatisticsTest, SumsAreTheSameBitsForTheSameSteps) {
  SCOPED_TRACE(seed_);
  LatentStatistics first(config_);
  LatentStatistics second(config_);
  for (LatentStatistics* statistics : {&first, &second}) {
    add(*statistics, 0, 0, 30);
    add(*statistics, 0, 30, 7);
  }
  EXPECT_TRUE(std::equal(first.sums().begin(), first.sums().end(), second.sums().begin()));
}

TEST_F(LatentStatisticsTest, AbsorbedQueriesAreKeysTimesQueries) {
  SCOPED_TRACE(seed_);
  LatentStatistics statistics(config_);
  add(statistics, 0, 0, num_tokens_);
  HeadKeys keys;
  for (uint64_t head = 0; head < 4; ++head) {
    keys.push_back(test::random_matrix(32, 16, seed_ + 2 + head));
  }
  Matrix expected = Matrix::Zero(32, 32);
  for (int64_t t = 0; t < num_tokens_; ++t) {
    for (int64_t head = 0; head < 4; ++head) {
      Vector q(16);
      for (int64_t i = 0; i < 16; ++i) {
        q(i) = query(t, head, i);
      }
      const Vector absorbed = keys[static_cast<size_t>(head)] * q;
      expected += absorbed * absorbed.transpose() / static_cast<double>(num_tokens_);
    }
  }
  const LatentMoments moments = latent_moments(statistics, keys, 0);
  EXPECT_LT((moments.query - expected).cwiseAbs().maxCoeff(), 1e-3);  // of about a hundred
}

}  // namespace
}  // namespace tessera
