#include "engine/weights/float8_faults.h"

#include <algorithm>
#include <cmath>

#include "engine/base/check.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;
using kernels::DType;

constexpr uint8_t kMagnitude = 0x7f;  // of a code, without its sign; all ones is NaN

/// The largest magnitude tells whether there is a NaN: compilers make vectors of it (26 GB/s of a
/// core from memory, where a copy has 12), so that only rows with one are looked at by element.
bool has_float8_nan(const uint8_t* row, int64_t num_columns) {
  uint8_t largest = 0;
  for (int64_t column = 0; column < num_columns; ++column) {
    largest = std::max<uint8_t>(largest, row[column] & kMagnitude);
  }
  return largest == kMagnitude;
}

template <typename Element, typename IsBad>
void add_bad(const Element* elements,
             int64_t row,
             int64_t num_columns,
             const IsBad& is_bad,
             BadElements& bad) {
  for (int64_t column = 0; column < num_columns; ++column) {
    if (!is_bad(elements[column])) {
      continue;
    }
    if (bad.count == 0) {
      bad.first_row = row;
      bad.first_column = column;
    }
    ++bad.count;
  }
}

}  // namespace

BadElements find_float8_nan(const ConstTensorView& values) {
  TESSERA_CHECK(values.dtype == DType::kFloat8E4M3 && values.rank == 2, values.to_string());
  BadElements bad;
  for (int64_t row = 0; row < values.dim(0); ++row) {
    const auto* codes = values.as<uint8_t>() + row * values.stride[0];
    if (has_float8_nan(codes, values.dim(1))) {
      const auto is_nan = [](uint8_t code) { return (code & kMagnitude) == kMagnitude; };
      add_bad(codes, row, values.dim(1), is_nan, bad);
    }
  }
  return bad;
}

BadElements find_not_finite(const ConstTensorView& scales) {
  TESSERA_CHECK(scales.dtype == DType::kFloat32 && scales.rank == 2 && scales.is_contiguous(),
                scales.to_string());
  BadElements bad;
  for (int64_t row = 0; row < scales.dim(0); ++row) {
    const auto is_not_finite = [](float scale) { return !std::isfinite(scale); };
    add_bad(scales.as<float>() + row * scales.dim(1), row, scales.dim(1), is_not_finite, bad);
  }
  return bad;
}

}  // namespace tessera
