#include "kernels/core/dtype.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tessera::kernels {
namespace {

constexpr float kFloat8Max = 448.0F;
constexpr int kFloat8MinExponent = -6;

}  // namespace

std::string_view dtype_name(DType dtype) noexcept {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
    case DType::kFloat8E4M3:
      return "float8_e4m3";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
    case DType::kUint8:
      return "uint8";
  }
  return "unknown";
}

float float16_to_float(uint16_t bits) noexcept {
  const float sign = (bits & 0x8000U) != 0 ? -1.0F : 1.0F;
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  if (exponent == 0x1f) {
    return mantissa != 0 ? std::numeric_limits<float>::quiet_NaN()
                         : sign * std::numeric_limits<float>::infinity();
  }
  if (exponent == 0) {
    return sign * std::ldexp(static_cast<float>(mantissa), -24);
  }
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

float float8_e4m3_to_float(uint8_t bits) noexcept {
  const float sign = (bits & 0x80U) != 0 ? -1.0F : 1.0F;
  const int exponent = (bits >> 3) & 0xf;
  const int mantissa = bits & 0x7;
  if (exponent == 0xf && mantissa == 0x7) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  if (exponent == 0) {
    return sign * std::ldexp(static_cast<float>(mantissa), -9);
  }
  return sign * std::ldexp(static_cast<float>(mantissa + 8), exponent - 10);
}

uint8_t float8_e4m3_from_float(float value) noexcept {
  const unsigned sign = std::signbit(value) ? 0x80U : 0U;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) {
    return static_cast<uint8_t>(sign | 0x7fU);
  }
  if (magnitude >= kFloat8Max) {
    return static_cast<uint8_t>(sign | 0x7eU);
  }
  const int exponent =
      magnitude == 0.0F ? kFloat8MinExponent : std::max(std::ilogb(magnitude), kFloat8MinExponent);
  // In steps of the last mantissa bit: 8 to 16 of them, below 8 for subnormal numbers.
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 3 - exponent)));
  // 16 steps carry into the exponent, 8 steps of a subnormal one make it normal.
  const int bits = (exponent - kFloat8MinExponent) * 8 + steps;
  return static_cast<uint8_t>(sign | static_cast<unsigned>(bits));
}

}  // namespace tessera::kernels
