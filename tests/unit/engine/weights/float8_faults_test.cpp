#include "engine/weights/float8_faults.h"

#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

using kernels::ConstTensorView;
using kernels::DType;

ConstTensorView view_of(const std::vector<uint8_t>& codes, int64_t rows, int64_t columns) {
  return {static_cast<const void*>(codes.data()), DType::kFloat8E4M3, {rows, columns}};
}

TEST(Float8FaultsTest, TwoCodesOf256AreNan) {
  std::vector<uint8_t> codes(256);
  for (size_t code = 0; code < codes.size(); ++code) {
    codes[code] = static_cast<uint8_t>(code);
  }
  const BadElements bad = find_float8_nan(view_of(codes, 2, 128));
  EXPECT_EQ(bad.count, 2);
  EXPECT_EQ(bad.first_row, 0);
  EXPECT_EQ(bad.first_column, 127);
  codes[0x7f] = 0x7e;  // 448
  codes[0xff] = 0xfe;
  EXPECT_EQ(find_float8_nan(view_of(codes, 2, 128)).count, 0);
}

/// Widths around those of vectors.
TEST(Float8FaultsTest, FindsNanAtEveryPlace) {
  for (const int64_t columns : {1, 15, 16, 17, 31, 32, 33, 65}) {
    for (int64_t place = 0; place < 2 * columns; ++place) {
      std::vector<uint8_t> codes(static_cast<size_t>(2 * columns), 0x38);
      codes[static_cast<size_t>(place)] = place % 2 == 0 ? 0x7f : 0xff;
      const BadElements bad = find_float8_nan(view_of(codes, 2, columns));
      EXPECT_EQ(bad.count, 1);
      EXPECT_EQ(bad.first_row, place / columns);
      EXPECT_EQ(bad.first_column, place % columns);
    }
  }
}

TEST(Float8FaultsTest, LooksAtAPartOnly) {
  std::vector<uint8_t> codes(5 * 7, 0xff);
  for (size_t row = 1; row < 4; ++row) {
    for (size_t column = 2; column < 5; ++column) {
      codes[row * 7 + column] = 0x38;
    }
  }
  const ConstTensorView part = view_of(codes, 5, 7).slice(0, 1, 3).slice(1, 2, 3);
  EXPECT_EQ(find_float8_nan(part).count, 0);
  EXPECT_EQ(find_float8_nan(part.slice(0, 0, 0)).count, 0);
}

TEST(Float8FaultsTest, ScalesMustBeFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> scales = {0.0F,
                                     -1.0F,
                                     std::numeric_limits<float>::max(),
                                     std::numeric_limits<float>::denorm_min(),
                                     -kInfinity,
                                     std::numeric_limits<float>::quiet_NaN()};
  const BadElements bad =
      find_not_finite({static_cast<const void*>(scales.data()), DType::kFloat32, {2, 3}});
  EXPECT_EQ(bad.count, 2);
  EXPECT_EQ(bad.first_row, 1);
  EXPECT_EQ(bad.first_column, 1);
}

}  // namespace
}  // namespace tessera
