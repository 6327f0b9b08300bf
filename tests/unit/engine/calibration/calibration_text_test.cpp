#include "engine/calibration/calibration_text.h"

#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tessera {
namespace {

using ::testing::HasSubstr;

/// Ids that tell where in their text a token stands.
std::vector<int32_t> counted(int32_t first, size_t count) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

constexpr CalibrationTextOptions kOptions = {
    .num_tokens = 600,
    .window_tokens = 100,
    .num_quality_windows = 2,
    .lengths = {.prefill_tokens = 10, .decode_tokens = 20}};

TEST(CalibrationTextTest, NothingThatIsHeldOutIsLookedAt) {
  const auto text = cut_calibration_text({counted(0, 1000)}, std::nullopt, kOptions).value();
  EXPECT_EQ(text.windows.size(), 6U);
  EXPECT_EQ(text.harm_windows.size(), 2U);
  EXPECT_EQ(text.held_out.size(), 2U);
  for (const auto* windows : {&text.windows, &text.harm_windows}) {
    for (const auto& window : *windows) {
      EXPECT_LT(window.back(), 900);
    }
  }
  for (const auto& window : text.held_out) {
    EXPECT_GE(window.front(), 900);
    EXPECT_EQ(window.size(), 31U);
  }
}

TEST(CalibrationTextTest, TextsHaveEqualParts) {
  const auto text =
      cut_calibration_text({counted(0, 1000), counted(10'000, 5000)}, 7, kOptions).value();
  size_t second = 0;
  for (const auto& window : text.windows) {
    EXPECT_EQ(window.front(), 7);  // BOS
    second += window.back() >= 10'000 ? 1 : 0;
  }
  EXPECT_EQ(text.windows.size(), 6U);
  EXPECT_EQ(second, 3U);
}

TEST(CalibrationTextTest, RefusesATextThatIsTooShort) {
  const auto text = cut_calibration_text({counted(0, 500)}, std::nullopt, kOptions);
  EXPECT_EQ(text.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(text.status().message(), HasSubstr("500 tokens, expected 620 or more"));
  EXPECT_FALSE(cut_calibration_text({{}}, std::nullopt, kOptions).is_ok());
}

}  // namespace
}  // namespace tessera
