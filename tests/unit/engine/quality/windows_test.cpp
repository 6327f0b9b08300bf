#include "engine/quality/windows.h"

#include <numeric>

#include <gtest/gtest.h>

namespace tessera {
namespace {

std::vector<int32_t> counting(int32_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 10);
  return ids;
}

TEST(WindowsTest, AreEvenlySpacedAndBeginWithBos) {
  const auto windows = choose_windows(counting(100), 1, 4, 6).value();
  ASSERT_EQ(windows.size(), 4U);
  EXPECT_EQ(windows[0], (TextWindow{1, 10, 11, 12, 13, 14}));
  EXPECT_EQ(windows[3], (TextWindow{1, 85, 86, 87, 88, 89}));
}

TEST(WindowsTest, BeginAtTheSamePlacesForEveryLength) {
  const auto short_ones = choose_windows(counting(100), std::nullopt, 5, 3).value();
  const auto long_ones = choose_windows(counting(100), std::nullopt, 5, 20).value();
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(short_ones[i].front(), long_ones[i].front());
  }
}

TEST(WindowsTest, ThatWouldOverlapAreRefused) {
  EXPECT_TRUE(choose_windows(counting(100), 1, 5, 21).is_ok());
  const auto status = choose_windows(counting(100), 1, 5, 22).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("100 tokens"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace tessera
