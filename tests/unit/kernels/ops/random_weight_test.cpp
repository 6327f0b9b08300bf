#include "kernels/ops/random_weight.h"

#include <cmath>

#include <gtest/gtest.h>

namespace tessera::kernels {
namespace {

// The first words of the published generator (splitmix64.c, Vigna 2015) from state 0, whose n-th
// call mixes n times the increment.
TEST(RandomWordTest, IsSplitMix64) {
  EXPECT_EQ(random_word(1), 0xe220a8397b1dcdafU);
  EXPECT_EQ(random_word(2), 0x6e789e6aa1b965f4U);
  EXPECT_EQ(random_word(3), 0x06c45d188009454fU);
}

TEST(RandomUnitTest, StaysInItsIntervalAroundZero) {
  double sum = 0.0;
  constexpr uint64_t kDraws = 20'000;
  for (uint64_t counter = 0; counter < kDraws; ++counter) {
    const float value = random_unit(counter);
    ASSERT_GE(value, -1.0F);
    ASSERT_LT(value, 1.0F);
    sum += static_cast<double>(value);
  }
  // Five standard deviations of the mean of kDraws numbers uniform in [-1, 1).
  EXPECT_NEAR(sum / kDraws, 0.0, 5.0 / std::sqrt(3.0 * kDraws));
}

}  // namespace
}  // namespace tessera::kernels
