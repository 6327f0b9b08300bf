#include "engine/calibration/calibrator.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/json_reader.h"
#include "tests/support/step_input.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/engine/calibration/dummy_calibration_model.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

std::vector<std::vector<int32_t>> windows(size_t count, int64_t length, uint32_t seed) {
  std::vector<std::vector<int32_t>> result;
  for (size_t i = 0; i < count; ++i) {
    result.push_back(test::make_ids(length, 97, seed + static_cast<uint32_t>(i)));
  }
  return result;
}

class CalibratorTest : public ::testing::Test {
 protected:
  CalibratorTest() {
    options_.lengths = {.prefill_tokens = 8, .decode_tokens = 24};
    text_ = {.name = "random",
             .windows = windows(4, 60, 1),
             .harm_windows = windows(2, 33, 11),
             .held_out = windows(2, 33, 21)};
  }
  Result<CalibrationResult> run(const std::string& path = "") {
    return calibrate({.model = model_.model(),
                      .text = text_,
                      .options = options_,
                      .statistics_path = path,
                      .statistics_key = "key",
                      .progress = [](std::string_view, int64_t, int64_t) {}});
  }

  const test::DummyCalibrationModel model_;
  CalibrationOptions options_;
  CalibrationText text_;
};

TEST_F(CalibratorTest, WritesWhatIsReadBack) {
  const test::TempFolder folder;
  const CalibrationResult result = run().value();
  const std::string path = folder.file("calibration.safetensors");
  ASSERT_TRUE(write_tpla_calibration(path, model_.config(), result.calibration).is_ok());
  const TplaCalibration read = read_tpla_calibration(path, model_.config()).value();
  EXPECT_EQ(read.basis, "balanced");
  EXPECT_EQ(read.dealing, "fold+gradient");
  EXPECT_EQ(read.num_slices, 2);
  ASSERT_EQ(read.layers.size(), 2U);
  for (size_t layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(read.layers[layer].keys, result.calibration.layers[layer].keys);
    EXPECT_EQ(read.layers[layer].num_shared, result.layers[layer].num_shared);
  }
  auto report = JsonReader::parse(read.report).value();
  auto quality = report.get_object("quality").value();
  EXPECT_EQ(quality.get_number("kl"), result.quality.kl.mean);
  EXPECT_EQ(quality.get_int("decode_tokens"), 24);
}

TEST_F(CalibratorTest, KeepsTheBudget) {
  options_.window = 0;
  for (const double budget : {1.0, 1.125, 1.3}) {
    options_.budget = budget;
    const CalibrationResult result = run().value();
    EXPECT_LE(result.bytes_ratio, budget + 1e-9);
    double ratio = 0.0;
    for (const LayerChoice& layer : result.layers) {
      ratio += layer.bytes_ratio / 2.0;
    }
    EXPECT_NEAR(ratio, result.bytes_ratio, 1e-9);
    EXPECT_EQ(result.layers[0].num_shared == 0 && result.layers[1].num_shared == 0, budget == 1.0);
  }
}

TEST_F(CalibratorTest, IsExactWhenEveryColumnIsPaidFor) {
  options_.budget = 2.0;
  const CalibrationResult result = run().value();
  EXPECT_LT(result.quality.kl.mean, 1e-6);
  EXPECT_EQ(result.calibration.layers[0].num_shared, 32);
  EXPECT_EQ(result.calibration.layers[1].num_shared, 32);
}

TEST_F(CalibratorTest, GoesOnFromStatisticsToTheSameBits) {
  const test::TempFolder folder;
  const CalibrationResult whole = run(folder.file("statistics")).value();
  const CalibrationResult again = run(folder.file("statistics")).value();
  for (size_t layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(again.calibration.layers[layer].basis, whole.calibration.layers[layer].basis);
    EXPECT_EQ(again.calibration.layers[layer].keys, whole.calibration.layers[layer].keys);
  }
  EXPECT_EQ(again.calibration.report, whole.calibration.report);
}

TEST_F(CalibratorTest, EveryBasisAndDealingRuns) {
  for (const BasisKind basis : {BasisKind::kNone, BasisKind::kHadamard, BasisKind::kPca}) {
    for (const DealingKind dealing :
         {DealingKind::kContiguous, DealingKind::kSnake, DealingKind::kRandomMix}) {
      options_.basis = basis;
      options_.dealing = dealing;
      options_.refit = RefitKind::kNone;
      const CalibrationResult result = run().value();
      EXPECT_TRUE(result.calibration.layers[0].keys.empty());
      EXPECT_GE(result.quality.kl.mean, 0.0);
    }
  }
}

TEST_F(CalibratorTest, FitsKeysByGradientToTheSameBits) {
  options_.refit = RefitKind::kLeastSquares;
  const CalibrationResult start = run().value();
  options_.refit = RefitKind::kGradient;
  const CalibrationResult first = run().value();
  const CalibrationResult second = run().value();
  EXPECT_EQ(first.calibration.dealing, "fold+gradient");
  int64_t num_fitted = 0;
  for (size_t layer = 0; layer < 2; ++layer) {
    const auto& fit = first.layers[layer].fit;
    ASSERT_EQ(fit.has_value(), first.layers[layer].num_shared < 32);
    EXPECT_EQ(first.calibration.layers[layer].keys, second.calibration.layers[layer].keys);
    if (fit.has_value()) {
      num_fitted += fit->num_fitted_heads;
      EXPECT_LE(fit->error_after, fit->error_before);
      EXPECT_EQ(first.calibration.layers[layer].keys == start.calibration.layers[layer].keys,
                fit->num_fitted_heads == 0);
    }
    EXPECT_FALSE(start.layers[layer].fit.has_value());
  }
  EXPECT_GT(num_fitted, 0);
}

TEST_F(CalibratorTest, TriesWindowsWithinTheBudget) {
  options_.budget = 1.15;
  const CalibrationResult result = run().value();
  // 16 of 32 columns and a rope part of 16: a window of 32 tokens takes 5 % of the bytes.
  ASSERT_EQ(result.windows.size(), 4U);
  EXPECT_NEAR(result.windows.back().bytes_ratio, 32.0 / 1024.0 * 48.0 / 32.0, 1e-9);
  EXPECT_LE(result.bytes_ratio, 1.15 + 1e-9);
  const auto best = std::min_element(
      result.windows.begin(), result.windows.end(), [](const auto& left, const auto& right) {
        return left.kl < right.kl;
      });
  EXPECT_EQ(result.calibration.window, best->window);
  EXPECT_THAT(render_calibration(result), HasSubstr("chosen"));
  options_.budget = 1.0;
  const CalibrationResult tight = run().value();
  EXPECT_TRUE(tight.windows.empty());
  EXPECT_TRUE(tight.calibration.window.is_empty());
}

TEST_F(CalibratorTest, TakesTheWindowThatItIsGiven) {
  options_.window = 8;
  options_.sinks = 2;
  const CalibrationResult result = run().value();
  EXPECT_EQ(result.calibration.window, (kernels::LatentWindow{2, 8}));
  EXPECT_TRUE(result.windows.empty());
  options_.window = 40;
  options_.sinks = 0;
  EXPECT_LT(run().value().quality.kl.mean, 1e-6);  // longer than any context
  options_.budget = 1.0;
  EXPECT_THAT(run().status().message(), HasSubstr("needs a budget of"));
}

TEST_F(CalibratorTest, RefusesWhatCannotBe) {
  options_.budget = 0.9;
  EXPECT_THAT(run().status().message(), HasSubstr("the budget is 0.9"));
  options_.budget = 1.1;
  options_.num_slices = 3;
  EXPECT_EQ(run().status().code(), StatusCode::kInvalidArgument);
  options_.num_slices = 2;
  const CalibrationText text = text_;
  text_.windows.resize(1);
  EXPECT_THAT(run().status().message(), HasSubstr("2 or more windows of text, there are 1"));
  text_ = text;
  text_.held_out.clear();
  EXPECT_THAT(run().status().message(), HasSubstr("too short"));
}

TEST_F(CalibratorTest, TableHasALineForEveryLayer) {
  const std::string table = render_calibration(run().value());
  EXPECT_THAT(table, HasSubstr("    0"));
  EXPECT_THAT(table, HasSubstr("    1"));
  EXPECT_THAT(table, HasSubstr("bytes per token and rank"));
  EXPECT_THAT(table, HasSubstr("on text held out"));
}

}  // namespace
}  // namespace tessera
