#include "engine/quality/summary.h"

#include <cmath>

#include <gtest/gtest.h>

namespace tessera {
namespace {

/// Two windows of three tokens.
Quality example() {
  Quality quality;
  quality.lengths = {.prefill_tokens = 4, .decode_tokens = 3};
  quality.divergences = {{{.kl = 0.1, .exact_nll = 1.0, .mode_nll = 1.2, .is_same_top = true},
                          {.kl = 0.2, .exact_nll = 2.0, .mode_nll = 2.1, .is_same_top = true},
                          {.kl = 0.3, .exact_nll = 3.0, .mode_nll = 3.3, .is_same_top = false}},
                         {{.kl = 0.5, .exact_nll = 1.0, .mode_nll = 1.0, .is_same_top = true},
                          {.kl = 0.5, .exact_nll = 1.0, .mode_nll = 1.0, .is_same_top = true},
                          {.kl = 0.5, .exact_nll = 1.0, .mode_nll = 1.0, .is_same_top = true}}};
  quality.agreement_lengths = {1, 3};
  quality.bytes_per_token = 30.0;
  quality.exact_bytes_per_token = 40.0;
  return quality;
}

TEST(SummaryTest, MeansAreOverAllTokensAndErrorsOverWindows) {
  const QualitySummary summary = summarize(example());
  EXPECT_NEAR(summary.kl.mean, 0.35, 1e-12);
  // Window means 0.2 and 0.5: half their difference.
  EXPECT_NEAR(summary.kl.error, 0.15, 1e-12);
  EXPECT_NEAR(summary.exact_perplexity, std::exp(9.0 / 6.0), 1e-12);
  EXPECT_NEAR(summary.perplexity, std::exp(9.6 / 6.0), 1e-12);
  // Window means of the difference: 0.2 and 0.
  EXPECT_NEAR(summary.perplexity_ratio.mean, std::exp(0.1), 1e-12);
  EXPECT_NEAR(summary.perplexity_ratio.error, 0.1 * std::exp(0.1), 1e-12);
  EXPECT_NEAR(summary.top1_agreement.mean, 5.0 / 6.0, 1e-12);
  EXPECT_NEAR(summary.agreement_length.mean, 2.0, 1e-12);
  EXPECT_EQ(summary.num_fully_agreeing, 1);
  EXPECT_NEAR(summary.bytes_ratio, 0.75, 1e-12);
}

TEST(SummaryTest, OneWindowHasNoError) {
  Quality quality = example();
  quality.divergences.pop_back();
  quality.agreement_lengths.clear();
  EXPECT_EQ(summarize(quality).kl.error, 0.0);
  EXPECT_EQ(summarize(quality).num_fully_agreeing, 0);
}

TEST(SummaryTest, CurveHasAPointForEachPositionWhileTheyAreFew) {
  const auto curve = quality_curve(example());
  ASSERT_EQ(curve.size(), 3U);
  EXPECT_NEAR(curve[2].kl, 0.4, 1e-12);
  EXPECT_NEAR(curve[2].top1_agreement, 0.5, 1e-12);
  EXPECT_NEAR(curve[2].perplexity, std::exp(2.15), 1e-12);
  EXPECT_EQ(curve[2].begin, 2);
  EXPECT_EQ(curve[2].end, 3);
}

TEST(SummaryTest, CurveIsBucketedAndLosesNoPosition) {
  const auto curve = quality_curve(example(), 2);
  ASSERT_EQ(curve.size(), 2U);
  EXPECT_EQ(curve[0].end, 2);
  EXPECT_NEAR(curve[0].kl, (0.1 + 0.2 + 0.5 + 0.5) / 4.0, 1e-12);
  EXPECT_EQ(curve[1].begin, 2);
  EXPECT_EQ(curve[1].end, 3);
}

}  // namespace
}  // namespace tessera
