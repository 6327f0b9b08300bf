// Element types and their host conversions. bf16 and fp8 have no arithmetic here: convert to float.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace tessera::kernels {

enum class DType : uint8_t { kFloat32, kBFloat16, kFloat16, kFloat8E4M3, kInt32, kInt64, kUint8 };

/// Bytes of one element.
[[nodiscard]] constexpr int64_t dtype_bytes(DType dtype) noexcept {
  switch (dtype) {
    case DType::kInt64:
      return 8;
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kBFloat16:
    case DType::kFloat16:
      return 2;
    case DType::kFloat8E4M3:
    case DType::kUint8:
      return 1;
  }
  return 0;
}

/// Lower-case name as in configs: "float32", "bfloat16", …
[[nodiscard]] std::string_view dtype_name(DType dtype) noexcept;

/// Storage of a bfloat16: the upper half of a float32.
struct BFloat16 {
  uint16_t bits = 0;

  [[nodiscard]] static BFloat16 from_float(float value) noexcept {
    uint32_t word = std::bit_cast<uint32_t>(value);
    if ((word & 0x7fffffffU) > 0x7f800000U) {  // NaN: keep it one
      return {static_cast<uint16_t>((word >> 16) | 0x40U)};
    }
    word += 0x7fffU + ((word >> 16) & 1U);  // round to nearest, ties to even
    return {static_cast<uint16_t>(word >> 16)};
  }
  [[nodiscard]] float to_float() const noexcept {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};
static_assert(sizeof(BFloat16) == 2);

/// IEEE half precision bits to float.
[[nodiscard]] float float16_to_float(uint16_t bits) noexcept;

/// FP8 e4m3 ("fn" flavour: no infinities, 0x7f and 0xff are NaN, maximum 448; OCP FP8 specification
/// 1.0, section 5.2) to float.
[[nodiscard]] float float8_e4m3_to_float(uint8_t bits) noexcept;

/// The nearest FP8 e4m3, ties to even; beyond the maximum the maximum. NaN stays NaN.
[[nodiscard]] uint8_t float8_e4m3_from_float(float value) noexcept;

}  // namespace tessera::kernels
