#include "engine/quality/measured_model.h"

#include <algorithm>
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/engine/quality/quality_models.h"

namespace tessera {
namespace {

using test::QualityModels;
using Row = MeasuredModel::Row;

constexpr int64_t kPrompt = 70;
constexpr int64_t kRows = 75;  // over the ends of blocks

class MeasuredModelTest : public ::testing::TestWithParam<ShardOptions> {
 protected:
  const QualityModels models_;
  const TextWindow window_ = models_.windows(1, kPrompt + kRows).front();

  [[nodiscard]] std::span<const int32_t> prompt() const {
    return std::span(window_).first(kPrompt);
  }
  [[nodiscard]] std::vector<Row> rows(int64_t sequence = 0) const {
    std::vector<Row> rows;
    for (int64_t i = 0; i < kRows; ++i) {
      rows.push_back({.sequence = sequence,
                      .position = kPrompt + i,
                      .id = window_[static_cast<size_t>(kPrompt + i)]});
    }
    return rows;
  }
};

double largest_difference(std::span<const float> left, std::span<const float> right) {
  EXPECT_EQ(left.size(), right.size());
  double largest = 0.0;
  for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(left[i]) - right[i]));
  }
  return largest;
}

// Sums in another order (a step's products have other shapes): float32 rounding on logits of about
// one.
constexpr double kRounding = 5e-6;

TEST_P(MeasuredModelTest, RowsOfOneStepEqualRowsOneByOne) {
  const auto model = models_.create(GetParam()).value();
  model->prefill_blocking(0, 0, prompt());
  const auto together = model->decode_blocking(rows());
  const std::vector<float> at_once(together.begin(), together.end());
  model->prefill_blocking(0, 0, prompt());
  std::vector<float> stepped;
  for (const Row& row : rows()) {
    const auto logits = model->decode_blocking(std::span(&row, 1));
    stepped.insert(stepped.end(), logits.begin(), logits.end());
  }
  EXPECT_LT(largest_difference(at_once, stepped), kRounding);
}

TEST_P(MeasuredModelTest, SequencesDoNotTouchEachOther) {
  const auto model = models_.create(GetParam(), 3).value();
  const TextWindow other = models_.windows(2, kPrompt).back();
  model->prefill_blocking(1, 0, prompt());
  const auto alone = model->decode_blocking(rows(1));
  const std::vector<float> expected(alone.begin(), alone.end());
  model->prefill_blocking(1, 0, prompt());
  model->prefill_blocking(0, 0, other);
  model->prefill_blocking(2, 0, other);
  EXPECT_LT(largest_difference(model->decode_blocking(rows(1)), expected), kRounding);
}

INSTANTIATE_TEST_SUITE_P(Modes,
                         MeasuredModelTest,
                         ::testing::Values(QualityModels::replicated(1),
                                           QualityModels::replicated(2),
                                           QualityModels::dcp(2),
                                           QualityModels::tpla(2),
                                           QualityModels::tpla(4),
                                           QualityModels::windowed(2, {0, 16}),
                                           QualityModels::windowed(4, {5, 1}),
                                           QualityModels::windowed(2, {80, 0})));

using MeasuredModelBytesTest = MeasuredModelTest;

TEST_F(MeasuredModelBytesTest, ExactRowsEqualReplicatedRows) {
  const auto exact = models_.create({}).value();
  const auto model = models_.create(QualityModels::replicated(2)).value();
  exact->prefill_blocking(0, 0, prompt());
  model->prefill_blocking(0, 0, prompt());
  const auto ids = std::span(window_).subspan(kPrompt, kRows);
  EXPECT_LT(largest_difference(exact->prefill_logits_blocking(0, kPrompt, ids),
                               model->decode_blocking(rows())),
            kRounding);
}

TEST_F(MeasuredModelBytesTest, CountsWhatARankKeepsOfAToken) {
  constexpr double kLayers = 2.0;
  EXPECT_EQ(models_.create({}).value()->bytes_per_token(), kLayers * (32 + 16) * 4);
  EXPECT_EQ(models_.create(QualityModels::tpla(2)).value()->bytes_per_token(),
            kLayers * (16 + 16) * 4);
  EXPECT_EQ(models_.create(QualityModels::dcp(2)).value()->bytes_per_token(),
            kLayers * (32 + 16) * 4 / 2);
  // 24 whole rows to 1,024 tokens of context, in the layer that is sliced.
  ShardOptions windowed = QualityModels::windowed(2, {8, 16});
  windowed.shared_columns = {32, 0};
  EXPECT_EQ(models_.create(windowed).value()->bytes_per_token(),
            (32 + 16) * 4 + (16 + 16) * 4 + 24.0 / 1024.0 * (32 + 16) * 4);
}

TEST_F(MeasuredModelBytesTest, AWindowThatCoversTheContextGivesExactRows) {
  const auto exact = models_.create({}).value();
  const auto model = models_.create(QualityModels::windowed(2, {10, 300})).value();
  exact->prefill_blocking(0, 0, prompt());
  model->prefill_blocking(0, 0, prompt());
  const auto ids = std::span(window_).subspan(kPrompt, kRows);
  EXPECT_LT(largest_difference(exact->prefill_logits_blocking(0, kPrompt, ids),
                               model->decode_blocking(rows())),
            kRounding);
}

TEST_F(MeasuredModelBytesTest, ASequenceGoesBackToItsPromptWithItsWindow) {
  const auto model = models_.create(QualityModels::windowed(2, {2, 16})).value();
  model->prefill_blocking(0, 0, prompt());
  const auto first = model->decode_blocking(rows());
  const std::vector<float> expected(first.begin(), first.end());
  EXPECT_EQ(largest_difference(model->decode_blocking(rows()), expected), 0.0);
}

TEST_F(MeasuredModelBytesTest, SequencesLongerThanTheModelAreRefused) {
  const auto model = MeasuredModel::create(models_.parts(), {.max_length = 513});
  EXPECT_EQ(model.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(model.status().message(), ::testing::HasSubstr("512"));
}

}  // namespace
}  // namespace tessera
