// What no weight can be made of in a matrix that is stored in FP8: NaN codes among its values,
// scales that are not finite. A product of such a weight would be NaN on one backend and a number
// on another.
#pragma once

#include <cstdint>

#include "kernels/core/tensor_view.h"

namespace tessera {

struct BadElements {
  int64_t count = 0;
  int64_t first_row = 0;  ///< of the first one, in the order of rows; 0 when there are none
  int64_t first_column = 0;
};

/// Elements with the codes 0x7F and 0xFF, which are NaN, of a float8_e4m3 matrix whose rows may lie
/// apart. Source: OCP 8-bit Floating Point Specification (OFP8) 1.0, table 1.
[[nodiscard]] BadElements find_float8_nan(const kernels::ConstTensorView& values);

/// Elements that are infinite or NaN of a contiguous float32 matrix.
[[nodiscard]] BadElements find_not_finite(const kernels::ConstTensorView& scales);

}  // namespace tessera
