// Parameters of the elementwise and row-wise operations.
#pragma once

#include "kernels/core/tensor_view.h"

namespace tessera::kernels {

/// out[t] = table[ids[t]], converted to float32. `table` is float32 or bfloat16.
struct EmbeddingParams {
  ConstTensorView ids;    ///< [T] int32, each in [0, V)
  ConstTensorView table;  ///< [V, D]
  TensorView out;         ///< [T, D] float32
};

/// x += add (when given), then out = x / sqrt(mean(x^2) + epsilon) * weight.
/// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", eq. 4.
struct RmsNormParams {
  TensorView x;            ///< [T, D] float32, row stride free; rewritten only when `add` is given
  ConstTensorView add;     ///< [T, D] float32, or empty
  ConstTensorView weight;  ///< [D] float32; nothing queued before may still write it
  float epsilon = 1e-6F;
  TensorView out;  ///< [T, D] float32 or bfloat16, row stride free
};

/// Rotates pairs in place by position: interleaved pairs (2i, 2i + 1) when `is_interleaved`, else
/// halves (i, i + dr/2). Source: RoFormer, eq. 34. cos and sin include YaRN's factor.
///
/// DeepSeek checkpoints are interleaved. The output keeps the input's order; the dot product of
/// two rotated vectors does not depend on it.
struct RopeParams {
  TensorView x;               ///< [T, H, dr] float32 or bfloat16, outer strides free
  ConstTensorView positions;  ///< [T] int32
  ConstTensorView cos;        ///< [max_positions, dr / 2] float32
  ConstTensorView sin;        ///< [max_positions, dr / 2] float32
  bool is_interleaved = true;
};

/// out = silu(x[:, :I]) * x[:, I:], silu(v) = v / (1 + exp(-v)).
struct SiluMulParams {
  ConstTensorView x;  ///< [T, 2 I] float32
  TensorView out;     ///< [T, I] float32 or bfloat16
};

/// out = x in out's dtype; float32 and bfloat16, both ways; rows may be strided.
struct CastParams {
  ConstTensorView x;  ///< [T, D]
  TensorView out;     ///< [T, D]
};

/// out[i] = x[rows[i]].
struct GatherRowsParams {
  ConstTensorView x;     ///< [T, D] float32
  ConstTensorView rows;  ///< [n] int32
  TensorView out;        ///< [n, D] float32
};

}  // namespace tessera::kernels
