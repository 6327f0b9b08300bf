#include "engine/quality/quality.h"

#include <array>

#include <gtest/gtest.h>

#include "engine/quality/summary.h"
#include "tests/unit/engine/quality/quality_models.h"

namespace tessera {
namespace {

using test::QualityModels;

constexpr QualityLengths kLengths{.prefill_tokens = 40, .decode_tokens = 300};

class QualityTest : public ::testing::Test {
 protected:
  Result<std::vector<Quality>> measure(std::vector<MeasuredModel*> modes,
                                       const std::vector<TextWindow>& windows,
                                       const GreedyTokens* greedy) {
    const QualityTask task{.exact = *exact_,
                           .modes = modes,
                           .windows = windows,
                           .lengths = kLengths,
                           .greedy = greedy,
                           .threads = threads_};
    return measure_quality(task, [&](int64_t done, int64_t total) {
      EXPECT_GT(done, last_done_);
      last_done_ = done;
      total_ = total;
    });
  }

  const QualityModels models_;
  const std::unique_ptr<MeasuredModel> exact_ = models_.create({}, 2).value();
  RankGroup threads_{make_thread_communicators(2, 2)};
  int64_t last_done_ = 0;
  int64_t total_ = 0;
};

TEST_F(QualityTest, ExactModesDivergeByRoundingOnlyAndSlicedOnesByMore) {
  const auto windows = models_.windows(3, kLengths.window_tokens());
  const GreedyTokens greedy =
      continue_greedily(*exact_, windows, kLengths, [](int64_t, int64_t) {}).value();
  const auto replicated = models_.create(QualityModels::replicated(2)).value();
  const auto dcp = models_.create(QualityModels::dcp(2)).value();
  const auto tpla = models_.create(QualityModels::tpla(2)).value();
  const auto results = measure({replicated.get(), dcp.get(), tpla.get()}, windows, &greedy).value();
  ASSERT_EQ(results.size(), 3U);
  for (const size_t mode : {0U, 1U}) {
    const QualitySummary summary = summarize(results[mode]);
    EXPECT_LT(summary.kl.mean, 1e-11);
    EXPECT_NEAR(summary.perplexity_ratio.mean, 1.0, 1e-5);
    EXPECT_EQ(summary.num_fully_agreeing, 3);
    EXPECT_EQ(summary.agreement_length.mean, kLengths.decode_tokens);
  }
  EXPECT_GT(summarize(results[2]).kl.mean, 1e-9);  // random weights attend almost evenly
  EXPECT_EQ(last_done_, total_);
  EXPECT_EQ(total_, 3 * kLengths.decode_tokens);
}

TEST_F(QualityTest, AgreementEndsAtTheFirstOtherToken) {
  const auto windows = models_.windows(2, kLengths.window_tokens());
  GreedyTokens greedy =
      continue_greedily(*exact_, windows, kLengths, [](int64_t, int64_t) {}).value();
  // As if the exact model had chosen otherwise: a mode that equals it leaves the path there.
  constexpr size_t kFirst = 1;
  constexpr size_t kSecond = 200;
  greedy[0][kFirst] = (greedy[0][kFirst] + 1) % 97;
  greedy[1][kSecond] = (greedy[1][kSecond] + 1) % 97;
  const auto replicated = models_.create(QualityModels::replicated(1)).value();
  const auto results = measure({replicated.get()}, windows, &greedy).value();
  EXPECT_EQ(results[0].agreement_lengths, (std::vector<int64_t>{kFirst - 1, kSecond - 1}));
}

TEST_F(QualityTest, ContinuationIsThatOfAFreeRunningModel) {
  const auto windows = models_.windows(3, kLengths.window_tokens());  // more than run side by side
  const GreedyTokens greedy =
      continue_greedily(*exact_, windows, kLengths, [](int64_t, int64_t) {}).value();
  ASSERT_EQ(greedy.size(), 3U);
  const TextWindow& window = windows[2];
  const auto prompt = std::span(window).first(static_cast<size_t>(kLengths.prefill_tokens));
  const auto model = models_.create({}).value();
  int32_t id = top_id(model->prefill_logits_blocking(0, 0, prompt).last(97));
  for (int64_t i = 0; i <= kLengths.decode_tokens; ++i) {
    ASSERT_EQ(greedy[2][static_cast<size_t>(i)], id) << i;
    const MeasuredModel::Row row{.position = kLengths.prefill_tokens + i, .id = id};
    id = top_id(model->decode_blocking(std::span(&row, 1)));
  }
}

TEST_F(QualityTest, WindowsThatAreTooShortAreRefused) {
  const auto windows = models_.windows(1, kLengths.window_tokens() - 1);
  EXPECT_EQ(measure({exact_.get()}, windows, nullptr).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_FALSE(continue_greedily(*exact_, windows, kLengths, [](int64_t, int64_t) {}).is_ok());
}

}  // namespace
}  // namespace tessera
