// Parameters of dense, batched and grouped matrix products. Letters: kernels/README.md.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/core/tensor_view.h"

namespace tessera::kernels {

/// Rows and columns of a block of a float8 weight that share a scale.
inline constexpr int64_t kScaleBlock = 128;

/// How a weight that is held in float8_e4m3 is scaled: its element (n, k) stands for
/// value[n, k] * scale[n / rows, (first_column + k) / kScaleBlock].
/// Source: DeepSeek-V3 (arXiv 2412.19437) section 3.3.2.
struct BlockScales {
  int64_t rows = kScaleBlock;  ///< that share a scale: kScaleBlock, or 1 where rows cut its blocks
  int64_t first_column = 0;    ///< columns of the first block that are not in the weight
};

/// Sizes of a packed weight: `num_groups` matrices [out_features, in_features] (heads or experts; 1
/// for a plain linear).
struct LinearShape {
  int64_t num_groups = 1;
  int64_t out_features = 0;
  int64_t in_features = 0;
  DType dtype = DType::kFloat32;  ///< element type of the products' inputs: float32 or bfloat16
  /// The weight is held in float8_e4m3, so scaled (dtype is bfloat16 then); none: in `dtype`.
  std::optional<BlockScales> scales = std::nullopt;

  /// Of one group, where there are scales.
  [[nodiscard]] int64_t scale_rows() const noexcept {
    return (out_features + scales->rows - 1) / scales->rows;
  }
  [[nodiscard]] int64_t scale_columns() const noexcept {
    return (scales->first_column + in_features + kScaleBlock - 1) / kScaleBlock;
  }
};

/// A matrix [N, K] in float8_e4m3 with its scales, in host memory.
struct Float8Matrix {
  ConstTensorView values;  ///< [N, K] float8_e4m3, contiguous
  ConstTensorView scales;  ///< [scale_rows(), scale_columns()] float32, contiguous
};

/// A weight in the layout its backend multiplies fastest. Made by Ops::make_linear_weight, filled
/// by Ops::load_linear_weight or Ops::load_float8_weight, group by group, before its first use;
/// immutable after.
class LinearWeight {
 public:
  explicit LinearWeight(const LinearShape& shape) : shape_(shape) {}
  virtual ~LinearWeight() = default;
  LinearWeight(const LinearWeight&) = delete;
  LinearWeight& operator=(const LinearWeight&) = delete;
  [[nodiscard]] const LinearShape& shape() const noexcept { return shape_; }
  /// Device bytes held, padding included.
  [[nodiscard]] virtual int64_t num_bytes() const noexcept = 0;

 private:
  LinearShape shape_;
};

/// out[t, n] = sum_k x[t, k] * weight[n, k] + bias[n], accumulated in float32. `out` does not
/// overlap `x`: threads write some columns of it while others still read.
struct LinearParams {
  ConstTensorView x;                     ///< [T, K], the weight's dtype, row stride free
  const LinearWeight* weight = nullptr;  ///< one group [N, K]
  ConstTensorView bias;                  ///< [N] float32, or empty
  TensorView out;                        ///< [T, N], float32 or the weight's dtype, row stride free
};

/// out[t, g, n] = sum_k x[t, g, k] * weight[g, n, k]: one matrix per head.
struct BatchedLinearParams {
  ConstTensorView x;                     ///< [T, G, K], outer strides free
  const LinearWeight* weight = nullptr;  ///< without scales
  TensorView out;                        ///< [T, G, N], outer strides free
};

/// Rows sorted by group (expert): rows [offsets[g], offsets[g + 1]) use weight group g. `offsets`
/// may be a window of a longer list (the experts of one rank): rows of x outside of [offsets[0],
/// offsets[G]) are not read, and the same rows of `out` stay as they were.
struct GroupedLinearParams {
  ConstTensorView x;        ///< [M, K]
  ConstTensorView offsets;  ///< [G + 1] int32, on the device
  const LinearWeight* weight = nullptr;
  TensorView out;  ///< [M, N]
};

}  // namespace tessera::kernels
