#include "kernels/ops/latent_row.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace tessera::kernels {
namespace {

TEST(LatentRowTest, PlainRowsHaveNothingButTheirNumbers) {
  EXPECT_EQ(latent_row_layout(DType::kBFloat16, 256, 64).rope, 512);
  EXPECT_EQ(latent_row_layout(DType::kBFloat16, 256, 64).row_bytes, 640);
  EXPECT_EQ(latent_row_layout(DType::kFloat32, 5, 2).row_bytes, 28);
}

TEST(LatentRowTest, Float8RowsOfModels) {
  const auto row_bytes = [](int64_t width, int64_t rope) {
    return latent_row_layout(DType::kFloat8E4M3, width, rope).row_bytes;
  };
  EXPECT_EQ(row_bytes(512, 64), 512 + 16 + 128);
  EXPECT_EQ(row_bytes(256, 64), 256 + 16 + 128);
  EXPECT_EQ(row_bytes(128, 64), 128 + 16 + 128);
  EXPECT_EQ(row_bytes(40, 8), 48 + 16);
}

TEST(LatentRowTest, PartsOfFloat8RowsAreAlignedAndDoNotOverlap) {
  for (int64_t width = 1; width < 70; ++width) {
    for (int64_t rope = 0; rope < 40; ++rope) {
      const LatentRowLayout layout = latent_row_layout(DType::kFloat8E4M3, width, rope);
      ASSERT_GE(layout.scale, width);
      ASSERT_GE(layout.rope, layout.scale + 4);
      ASSERT_GE(layout.row_bytes, layout.rope + 2 * rope);
      ASSERT_EQ(layout.scale % 4 + layout.rope % 16 + layout.row_bytes % 16, 0);
      ASSERT_LT(layout.row_bytes, width + 4 + 2 * rope + 3 + 15 + 15);
    }
  }
}

TEST(LatentRowTest, TheScaleIsTheSmallestThatHoldsTheLargestLatent) {
  EXPECT_EQ(float8_scale_exponent(448.0F), 0);
  EXPECT_EQ(float8_scale_exponent(std::nextafter(448.0F, 500.0F)), 1);
  EXPECT_EQ(float8_scale_exponent(std::nextafter(224.0F, 500.0F)), 0);
  EXPECT_EQ(float8_scale_exponent(224.0F), -1);
  EXPECT_EQ(float8_scale_exponent(1.0F), -8);
  for (float largest = 1e-30F; largest < 1e30F; largest *= 1.37F) {
    const float scale = float8_scale(float8_scale_exponent(largest));
    ASSERT_LE(largest, 448.0F * scale);
    ASSERT_GT(largest, 224.0F * scale);
    ASSERT_EQ(float8_scale(-float8_scale_exponent(largest)) * scale, 1.0F);
  }
}

TEST(LatentRowTest, ScalesStayAmongNormalNumbers) {
  EXPECT_EQ(float8_scale_exponent(0.0F), kMinScaleExponent);
  EXPECT_EQ(float8_scale_exponent(std::numeric_limits<float>::denorm_min()), kMinScaleExponent);
  EXPECT_EQ(float8_scale_exponent(std::numeric_limits<float>::max()), kMaxScaleExponent);
  EXPECT_EQ(float8_scale_exponent(std::numeric_limits<float>::infinity()), kMaxScaleExponent);
  EXPECT_TRUE(std::isnormal(float8_scale(kMinScaleExponent) * 0x1.0p-9F));
  EXPECT_TRUE(std::isfinite(float8_scale(kMaxScaleExponent) * 448.0F));
}

}  // namespace
}  // namespace tessera::kernels
