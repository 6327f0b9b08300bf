#include "engine/base/metrics.h"

#include <cmath>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

constexpr size_t kOverflow = LatencyHistogram::kUpperBounds.size();

int64_t num_observations(const LatencyHistogram& histogram) {
  int64_t count = 0;
  for (size_t i = 0; i <= kOverflow; ++i) {
    count += histogram.bucket(i);
  }
  return count;
}

TEST(MetricsTest, CounterAddsUp) {
  Counter counter;
  counter.add();
  counter.add(41);
  EXPECT_EQ(counter.value(), 42);
}

TEST(MetricsTest, GaugeGoesUpAndDown) {
  Gauge gauge;
  gauge.set(10);
  gauge.add(-12);
  EXPECT_EQ(gauge.value(), -2);
}

TEST(LatencyHistogramTest, StartsEmpty) {
  const LatencyHistogram histogram;
  EXPECT_EQ(num_observations(histogram), 0);
  EXPECT_EQ(histogram.sum(), 0.0);
}

TEST(LatencyHistogramTest, CountsAnUpperBoundInItsOwnBucket) {
  for (size_t i = 0; i < kOverflow; ++i) {
    const double bound = LatencyHistogram::kUpperBounds[i];
    LatencyHistogram histogram;
    histogram.observe(std::nextafter(bound, 0.0));
    histogram.observe(bound);
    histogram.observe(std::nextafter(bound, INFINITY));
    EXPECT_EQ(histogram.bucket(i), 2) << "bound " << bound;
    EXPECT_EQ(histogram.bucket(i + 1), 1) << "bound " << bound;
    EXPECT_EQ(num_observations(histogram), 3);
  }
}

TEST(LatencyHistogramTest, CountsZeroFirstAndLongTimesLast) {
  LatencyHistogram histogram;
  histogram.observe(0.0);
  histogram.observe(2401.0);
  histogram.observe(1e9);
  EXPECT_EQ(histogram.bucket(0), 1);
  EXPECT_EQ(histogram.bucket(kOverflow), 2);
}

TEST(LatencyHistogramTest, SumsTheSeconds) {
  LatencyHistogram histogram;
  histogram.observe(0.25);
  histogram.observe(1.5);
  EXPECT_DOUBLE_EQ(histogram.sum(), 1.75);
}

template <typename Kind>
class HistogramKindTest : public testing::Test {};
using Kinds = testing::Types<LatencyHistogram, CountHistogram, ByteHistogram>;
TYPED_TEST_SUITE(HistogramKindTest, Kinds);

TYPED_TEST(HistogramKindTest, HasAscendingBoundsThatFit) {
  const TypeParam histogram;
  const auto bounds = histogram.upper_bounds();
  ASSERT_EQ(bounds.size(), TypeParam::kUpperBounds.size());
  EXPECT_LE(bounds.size(), Histogram::kMaxBounds);
  for (size_t i = 1; i < bounds.size(); ++i) {
    EXPECT_LT(bounds[i - 1], bounds[i]);
  }
}

TEST(LatencyHistogramTest, LosesNothingWithSeveralWriters) {
  constexpr int kThreads = 4;
  constexpr int kPerThread = 1000;
  LatencyHistogram histogram;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&histogram] {
        for (int k = 0; k < kPerThread; ++k) {
          histogram.observe(0.5);
        }
      });
    }
  }
  EXPECT_EQ(num_observations(histogram), kThreads * kPerThread);
  EXPECT_DOUBLE_EQ(histogram.sum(), 0.5 * kThreads * kPerThread);
}

}  // namespace
}  // namespace tessera
