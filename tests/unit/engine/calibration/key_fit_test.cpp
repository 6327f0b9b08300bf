#include "engine/calibration/key_fit.h"

#include <gtest/gtest.h>

#include "tests/unit/engine/calibration/attention_layer.h"

namespace tessera {
namespace {

class KeyFitTest : public ::testing::Test {
 protected:
  KeyFitTest() {
    for (int64_t window = 0; window < 32; ++window) {
      samples_.push_back(test::random_sample(
          config_, 48, sampled_rows(48, window), 40 + 10 * static_cast<uint64_t>(window)));
    }
  }

  const ModelConfig config_ = test::small_model_config();
  const LayerWeightsOfHeads weights_ = test::random_weights(config_, 1);
  const TplaCalibration::Layer start_ = test::random_cut(config_, weights_, 8, 3);
  std::vector<AttentionSample> samples_;
};

TEST_F(KeyFitTest, LowersTheErrorOnSamplesThatItHasNotSeen) {
  TplaCalibration::Layer layer = start_;
  const KeyFitResult result =
      fit_keys(config_, weights_, samples_, {.num_steps = 60, .step_size = 0.02}, layer);
  EXPECT_GT(result.num_fitted_heads, 0);
  EXPECT_LT(result.error_after, result.error_before);
  EXPECT_NE(layer.keys, start_.keys);
  EXPECT_EQ(layer.basis, start_.basis);
}

TEST_F(KeyFitTest, KeepsTheKeysOfHeadsThatItMakesWorse) {
  TplaCalibration::Layer layer = start_;
  const KeyFitResult result =
      fit_keys(config_, weights_, samples_, {.num_steps = 5, .step_size = 1e4}, layer);
  EXPECT_EQ(result.num_fitted_heads, 0);
  EXPECT_EQ(result.error_after, result.error_before);
  EXPECT_EQ(layer.keys, start_.keys);
}

TEST_F(KeyFitTest, HasNothingToGainWhereTheWindowIsAll) {
  TplaCalibration::Layer layer = start_;
  const KeyFitResult result =
      fit_keys(config_, weights_, samples_, {.window = {.num_last = 64}, .num_steps = 5}, layer);
  EXPECT_LT(result.error_before, 1e-8);
  EXPECT_EQ(layer.keys, start_.keys);
}

TEST_F(KeyFitTest, IsAFunctionOfItsInputs) {
  TplaCalibration::Layer first = start_;
  TplaCalibration::Layer second = start_;
  static_cast<void>(fit_keys(config_, weights_, samples_, {.num_steps = 10}, first));
  static_cast<void>(fit_keys(config_, weights_, samples_, {.num_steps = 10}, second));
  EXPECT_EQ(first.keys, second.keys);
}

TEST(SampledRowsTest, AreSpreadOverWhatLiesBehindTheBeginning) {
  for (const int64_t num_tokens : {1, 17, 200, 1024}) {
    const std::vector<int64_t> rows = sampled_rows(num_tokens, 3);
    EXPECT_EQ(rows, sampled_rows(num_tokens, 3));
    EXPECT_LE(rows.size(), 128U);
    EXPECT_GE(rows.front(), num_tokens / 16);
    EXPECT_LT(rows.back(), num_tokens);
    for (size_t i = 1; i < rows.size(); ++i) {
      EXPECT_LT(rows[i - 1], rows[i]);
    }
  }
  EXPECT_NE(sampled_rows(1024, 0), sampled_rows(1024, 1));
}

}  // namespace
}  // namespace tessera
