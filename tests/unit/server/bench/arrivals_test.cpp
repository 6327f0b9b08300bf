#include "server/bench/arrivals.h"

#include <cmath>

#include <gtest/gtest.h>

namespace tessera::bench {
namespace {

const std::vector<double> kNoTrace;

struct Gaps {
  double mean = 0.0;
  double variation = 0.0;  ///< deviation over mean
};

Gaps measure(const ArrivalSettings& settings, int count) {
  Arrivals arrivals(settings, 42, kNoTrace);
  double last = 0.0;
  double sum = 0.0;
  double squares = 0.0;
  for (int i = 0; i < count; ++i) {
    const double at = arrivals.next_s();
    EXPECT_GE(at, last);
    sum += at - last;
    squares += (at - last) * (at - last);
    last = at;
  }
  const double mean = sum / count;
  return {mean, std::sqrt(squares / count - mean * mean) / mean};
}

TEST(ArrivalsTest, ConstantTimesAreEvenlySpaced) {
  Arrivals arrivals({.kind = ArrivalKind::kConstant, .rate = 4.0}, 1, kNoTrace);
  EXPECT_DOUBLE_EQ(arrivals.next_s(), 0.0);
  EXPECT_DOUBLE_EQ(arrivals.next_s(), 0.25);
  EXPECT_DOUBLE_EQ(arrivals.next_s(), 0.5);
}

TEST(ArrivalsTest, PoissonGapsVaryAsMuchAsTheirMean) {
  const Gaps gaps = measure({.kind = ArrivalKind::kPoisson, .rate = 50.0}, 50'000);
  EXPECT_NEAR(gaps.mean, 0.02, 0.0006);  // five standard errors
  EXPECT_NEAR(gaps.variation, 1.0, 0.05);
}

TEST(ArrivalsTest, BurstinessSetsTheVariationOfGammaGaps) {
  const Gaps bursty =
      measure({.kind = ArrivalKind::kGamma, .rate = 50.0, .burstiness = 0.25}, 50'000);
  EXPECT_NEAR(bursty.mean, 0.02, 0.001);
  EXPECT_NEAR(bursty.variation, 2.0, 0.15);  // one over the root of the shape
  const Gaps steady =
      measure({.kind = ArrivalKind::kGamma, .rate = 50.0, .burstiness = 4.0}, 50'000);
  EXPECT_NEAR(steady.variation, 0.5, 0.05);
}

TEST(ArrivalsTest, SameSeedGivesTheSameTimes) {
  const ArrivalSettings settings{.kind = ArrivalKind::kPoisson, .rate = 3.0};
  Arrivals one(settings, 7, kNoTrace);
  Arrivals two(settings, 7, kNoTrace);
  Arrivals other(settings, 8, kNoTrace);
  const double first = one.next_s();
  EXPECT_EQ(first, two.next_s());
  EXPECT_NE(first, other.next_s());
}

TEST(ArrivalsTest, TraceIsReplayedFromItsFirstTimeAndRepeated) {
  const std::vector<double> trace = {1000.0, 1500.0, 3000.0};
  Arrivals arrivals({.kind = ArrivalKind::kTrace, .trace_speed = 2.0}, 1, trace);
  EXPECT_DOUBLE_EQ(arrivals.next_s(), 0.0);
  EXPECT_DOUBLE_EQ(arrivals.next_s(), 0.25);
  EXPECT_DOUBLE_EQ(arrivals.next_s(), 1.0);
  EXPECT_DOUBLE_EQ(arrivals.next_s(), 1.5);  // a mean gap of 1 s later, at twice the speed
  EXPECT_DOUBLE_EQ(arrivals.next_s(), 1.75);
}

TEST(ArrivalsTest, ClosedLoopWaitsForNoTime) {
  Arrivals arrivals({.kind = ArrivalKind::kClosed}, 1, kNoTrace);
  EXPECT_EQ(arrivals.next_s(), 0.0);
  EXPECT_EQ(arrivals.next_s(), 0.0);
}

}  // namespace
}  // namespace tessera::bench
