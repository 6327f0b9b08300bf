#include "server/bench/statistics.h"

#include <gtest/gtest.h>

namespace tessera::bench {
namespace {

TEST(StatisticsTest, PercentilesAreLinearBetweenSamples) {
  const Distribution samples = make_distribution({40.0, 10.0, 30.0, 20.0});
  EXPECT_DOUBLE_EQ(samples.percentile(0.0), 10.0);
  EXPECT_DOUBLE_EQ(samples.percentile(50.0), 25.0);
  EXPECT_DOUBLE_EQ(samples.percentile(90.0), 37.0);  // 0.9 * 3 = 2.7
  EXPECT_DOUBLE_EQ(samples.percentile(100.0), 40.0);
  EXPECT_DOUBLE_EQ(samples.mean, 25.0);
  EXPECT_NEAR(samples.deviation, 11.180339887, 1e-9);
  EXPECT_DOUBLE_EQ(samples.max(), 40.0);
  EXPECT_EQ(samples.count(), 4);
}

TEST(StatisticsTest, NoSamplesAreZeros) {
  const Distribution samples = make_distribution({});
  EXPECT_EQ(samples.percentile(99.0), 0.0);
  EXPECT_EQ(samples.max(), 0.0);
}

TEST(StatisticsTest, OneSampleIsEveryPercentile) {
  const Distribution samples = make_distribution({3.5});
  EXPECT_EQ(samples.percentile(1.0), 3.5);
  EXPECT_EQ(samples.percentile(99.9), 3.5);
  EXPECT_EQ(samples.deviation, 0.0);
}

TEST(StatisticsTest, PercentileNeedsTenSamplesBeyondIt) {
  EXPECT_EQ(percentile_soundness(1000, 99.0), Soundness::kSound);
  EXPECT_EQ(percentile_soundness(999, 99.0), Soundness::kWeak);
  EXPECT_EQ(percentile_soundness(100, 99.0), Soundness::kWeak);
  EXPECT_EQ(percentile_soundness(99, 99.0), Soundness::kAbsent);
  EXPECT_EQ(percentile_soundness(10, 99.0), Soundness::kAbsent);
  EXPECT_EQ(percentile_soundness(10'000, 99.9), Soundness::kSound);
  EXPECT_EQ(percentile_soundness(200, 99.9), Soundness::kAbsent);
  EXPECT_EQ(percentile_soundness(99, 90.0), Soundness::kWeak);
  EXPECT_EQ(percentile_soundness(20, 50.0), Soundness::kSound);
  EXPECT_EQ(percentile_soundness(0, 50.0), Soundness::kAbsent);
}

}  // namespace
}  // namespace tessera::bench
