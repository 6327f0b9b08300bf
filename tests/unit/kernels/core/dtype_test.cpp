#include "kernels/core/dtype.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace tessera::kernels {
namespace {

uint16_t rounded(uint32_t word) {
  return BFloat16::from_float(std::bit_cast<float>(word)).bits;
}

TEST(BFloat16Test, RoundsToNearest) {
  EXPECT_EQ(rounded(0x3f807fff), 0x3f80);  // just under half a step
  EXPECT_EQ(rounded(0x3f808001), 0x3f81);  // just over
  EXPECT_EQ(rounded(0xbf808001), 0xbf81);
}

TEST(BFloat16Test, RoundsTiesToEven) {
  EXPECT_EQ(rounded(0x3f808000), 0x3f80);
  EXPECT_EQ(rounded(0x3f818000), 0x3f82);
  EXPECT_EQ(rounded(0xbf818000), 0xbf82);
  EXPECT_EQ(rounded(0x00008000), 0x0000);  // a denormal tie
  EXPECT_EQ(rounded(0x00018000), 0x0002);
}

TEST(BFloat16Test, KeepsSpecialValues) {
  EXPECT_EQ(rounded(0x00000000), 0x0000);
  EXPECT_EQ(rounded(0x80000000), 0x8000);
  EXPECT_EQ(rounded(0x7f800000), 0x7f80);
  EXPECT_EQ(rounded(0xff800000), 0xff80);
  EXPECT_EQ(rounded(0x7f7fffff), 0x7f80);  // beyond the largest bfloat16: infinity
}

TEST(BFloat16Test, NanStaysNanWithItsSign) {
  for (const uint32_t word : {0x7f800001U, 0x7fc00000U, 0x7fffffffU, 0xff800001U, 0xffffffffU}) {
    const BFloat16 value = BFloat16::from_float(std::bit_cast<float>(word));
    EXPECT_TRUE(std::isnan(value.to_float())) << std::hex << word;
    EXPECT_EQ(value.bits >> 15, word >> 31) << std::hex << word;
  }
}

TEST(BFloat16Test, EveryCodeSurvivesARoundTrip) {
  for (uint32_t code = 0; code <= 0xffff; ++code) {
    const BFloat16 value{static_cast<uint16_t>(code)};
    if (!std::isnan(value.to_float())) {
      ASSERT_EQ(BFloat16::from_float(value.to_float()).bits, code);
    }
  }
}

/// The value of an IEEE-like code: (-1)^s 2^(e - bias) 1.m, or 2^(1 - bias) 0.m when e is 0.
double decoded(uint32_t code, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const uint32_t mantissa = code & ((1U << mantissa_bits) - 1);
  const auto exponent = static_cast<int>((code >> mantissa_bits) & ((1U << exponent_bits) - 1));
  const double sign = ((code >> (exponent_bits + mantissa_bits)) & 1U) != 0 ? -1.0 : 1.0;
  const double fraction = static_cast<double>(mantissa) / static_cast<double>(1U << mantissa_bits);
  return exponent == 0 ? sign * fraction * std::exp2(1 - bias)
                       : sign * (1.0 + fraction) * std::exp2(exponent - bias);
}

TEST(Float16Test, EveryCodeHasItsValue) {
  for (uint32_t code = 0; code <= 0xffff; ++code) {
    const float value = float16_to_float(static_cast<uint16_t>(code));
    if ((code & 0x7c00U) != 0x7c00U) {
      ASSERT_EQ(static_cast<double>(value), decoded(code, 5, 10)) << std::hex << code;
      ASSERT_EQ(std::signbit(value), (code & 0x8000U) != 0) << std::hex << code;
    } else if ((code & 0x3ffU) == 0) {
      ASSERT_TRUE(std::isinf(value)) << std::hex << code;
    } else {
      ASSERT_TRUE(std::isnan(value)) << std::hex << code;
    }
  }
}

TEST(Float16Test, KnownValues) {
  EXPECT_EQ(float16_to_float(0x3c00), 1.0F);
  EXPECT_EQ(float16_to_float(0xc000), -2.0F);
  EXPECT_EQ(float16_to_float(0x7bff), 65504.0F);
  EXPECT_EQ(float16_to_float(0x0001), 0x1.0p-24F);
  EXPECT_EQ(float16_to_float(0xfc00), -std::numeric_limits<float>::infinity());
}

TEST(Float8E4M3Test, EveryCodeHasItsValue) {
  for (uint32_t code = 0; code <= 0xff; ++code) {
    const float value = float8_e4m3_to_float(static_cast<uint8_t>(code));
    if ((code & 0x7fU) == 0x7fU) {
      EXPECT_TRUE(std::isnan(value)) << std::hex << code;
    } else {
      EXPECT_EQ(static_cast<double>(value), decoded(code, 4, 3)) << std::hex << code;
    }
  }
}

TEST(Float8E4M3Test, LargestAndSmallestMagnitudes) {
  EXPECT_EQ(float8_e4m3_to_float(0x7e), 448.0F);
  EXPECT_EQ(float8_e4m3_to_float(0xfe), -448.0F);
  EXPECT_EQ(float8_e4m3_to_float(0x01), 0x1.0p-9F);
  EXPECT_TRUE(std::signbit(float8_e4m3_to_float(0x80)));
}

TEST(Float8E4M3Test, EveryCodeSurvivesARoundTrip) {
  for (uint32_t code = 0; code <= 0xff; ++code) {
    const float value = float8_e4m3_to_float(static_cast<uint8_t>(code));
    const uint32_t again = float8_e4m3_from_float(value);
    EXPECT_EQ(std::isnan(value) ? again & 0x7fU : again, std::isnan(value) ? 0x7fU : code)
        << std::hex << code;
  }
}

TEST(Float8E4M3Test, RoundsToNearestAndTiesToEven) {
  for (uint32_t code = 0; code < 0x7e; ++code) {
    const float low = float8_e4m3_to_float(static_cast<uint8_t>(code));
    const float high = float8_e4m3_to_float(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2.0F;
    const uint32_t even = code + code % 2;
    EXPECT_EQ(float8_e4m3_from_float(middle), even) << std::hex << code;
    EXPECT_EQ(float8_e4m3_from_float(std::nextafter(middle, 0.0F)), code) << std::hex << code;
    EXPECT_EQ(float8_e4m3_from_float(std::nextafter(middle, 1e9F)), code + 1) << std::hex << code;
    EXPECT_EQ(float8_e4m3_from_float(-middle), even | 0x80U) << std::hex << code;
  }
}

TEST(Float8E4M3Test, WhatIsTooLargeBecomesTheLargest) {
  EXPECT_EQ(float8_e4m3_from_float(449.0F), 0x7e);
  EXPECT_EQ(float8_e4m3_from_float(-std::numeric_limits<float>::infinity()), 0xfe);
}

TEST(DTypeTest, NamesAndSizes) {
  EXPECT_EQ(dtype_name(DType::kFloat32), "float32");
  EXPECT_EQ(dtype_name(DType::kBFloat16), "bfloat16");
  EXPECT_EQ(dtype_name(DType::kFloat16), "float16");
  EXPECT_EQ(dtype_name(DType::kFloat8E4M3), "float8_e4m3");
  EXPECT_EQ(dtype_name(DType::kInt32), "int32");
  EXPECT_EQ(dtype_name(DType::kInt64), "int64");
  EXPECT_EQ(dtype_name(DType::kUint8), "uint8");
  EXPECT_EQ(dtype_bytes(DType::kInt64), 8);
  EXPECT_EQ(dtype_bytes(DType::kFloat32), 4);
  EXPECT_EQ(dtype_bytes(DType::kInt32), 4);
  EXPECT_EQ(dtype_bytes(DType::kBFloat16), 2);
  EXPECT_EQ(dtype_bytes(DType::kFloat16), 2);
  EXPECT_EQ(dtype_bytes(DType::kFloat8E4M3), 1);
  EXPECT_EQ(dtype_bytes(DType::kUint8), 1);
}

}  // namespace
}  // namespace tessera::kernels
