#include "engine/quality/divergence.h"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

/// By the definition, in long double.
TokenDivergence by_definition(const std::vector<float>& exact,
                              const std::vector<float>& mode,
                              size_t next) {
  const auto log_softmax = [](const std::vector<float>& logits) {
    long double sum = 0.0L;
    for (const float logit : logits) {
      sum += std::exp(static_cast<long double>(logit));
    }
    std::vector<long double> logs;
    for (const float logit : logits) {
      logs.push_back(static_cast<long double>(logit) - std::log(sum));
    }
    return logs;
  };
  const auto p = log_softmax(exact);
  const auto q = log_softmax(mode);
  TokenDivergence divergence;
  long double kl = 0.0L;
  for (size_t v = 0; v < p.size(); ++v) {
    kl += std::exp(p[v]) * (p[v] - q[v]);
  }
  divergence.kl = static_cast<double>(kl);
  divergence.exact_nll = static_cast<double>(-p[next]);
  divergence.mode_nll = static_cast<double>(-q[next]);
  return divergence;
}

std::vector<float> random_logits(std::mt19937& random, size_t count, float spread) {
  std::normal_distribution<float> normal(0.0F, spread);
  std::vector<float> logits(count);
  for (float& logit : logits) {
    logit = normal(random);
  }
  return logits;
}

TEST(DivergenceTest, EqualsItsDefinition) {
  std::mt19937 random(5);
  for (const size_t width : {1U, 7U, 8U, 9U, 1000U}) {
    for (const float spread : {0.1F, 3.0F, 30.0F}) {
      const auto exact = random_logits(random, width, spread);
      const auto mode = random_logits(random, width, spread);
      const auto found = compare_logits(exact, mode, static_cast<int32_t>(width / 2));
      const auto expected = by_definition(exact, mode, width / 2);
      // Sums of doubles: a few last bits of the largest term.
      const double tolerance = 1e-12 * (1.0 + expected.kl + expected.mode_nll);
      EXPECT_NEAR(found.kl, expected.kl, tolerance) << width << " " << spread;
      EXPECT_NEAR(found.exact_nll, expected.exact_nll, tolerance);
      EXPECT_NEAR(found.mode_nll, expected.mode_nll, tolerance);
    }
  }
}

TEST(DivergenceTest, EqualDistributionsHaveNone) {
  std::mt19937 random(6);
  const auto logits = random_logits(random, 500, 4.0F);
  std::vector<float> shifted = logits;
  for (float& logit : shifted) {
    logit += 8.0F;  // changes no probability
  }
  const auto found = compare_logits(logits, shifted, 3);
  EXPECT_NEAR(found.kl, 0.0, 1e-6);  // the shift rounds
  EXPECT_NEAR(found.exact_nll, found.mode_nll, 1e-6);
  EXPECT_TRUE(found.is_same_top);
  EXPECT_NEAR(compare_logits(logits, logits, 3).kl, 0.0, 1e-14);
}

TEST(DivergenceTest, VeryUnlikelyTokensDoNotOverflow) {
  const std::vector<float> exact = {0.0F, -5000.0F};
  const std::vector<float> mode = {-5000.0F, 0.0F};
  const auto found = compare_logits(exact, mode, 0);
  EXPECT_NEAR(found.kl, 5000.0, 1e-9);
  EXPECT_NEAR(found.exact_nll, 0.0, 1e-9);
  EXPECT_NEAR(found.mode_nll, 5000.0, 1e-9);
  EXPECT_FALSE(found.is_same_top);
}

TEST(DivergenceTest, RowsAreComparedEachByItself) {
  std::mt19937 random(7);
  constexpr size_t kRows = 5;
  constexpr size_t kWidth = 33;
  const auto exact = random_logits(random, kRows * kWidth, 2.0F);
  const auto mode = random_logits(random, kRows * kWidth, 2.0F);
  const std::vector<int32_t> next = {0, 32, 5, 7, 11};
  RankGroup threads(make_thread_communicators(2, 2));
  std::vector<TokenDivergence> out(kRows);
  compare_rows_blocking(exact, mode, next, out, threads);
  for (size_t row = 0; row < kRows; ++row) {
    const auto expected = compare_logits(std::span(exact).subspan(row * kWidth, kWidth),
                                         std::span(mode).subspan(row * kWidth, kWidth),
                                         next[row]);
    EXPECT_EQ(out[row].kl, expected.kl);
    EXPECT_EQ(out[row].mode_nll, expected.mode_nll);
  }
}

TEST(DivergenceTest, FirstOfEqualLogitsIsTheTop) {
  EXPECT_EQ(top_id(std::vector<float>{1.0F, 4.0F, 4.0F, -2.0F}), 1);
}

}  // namespace
}  // namespace tessera
