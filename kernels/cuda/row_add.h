// Adds one row to all rows of a matrix: the bias of a product.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/core/tensor_view.h"

namespace tessera::kernels::cuda {

/// matrix[t, n] += row[n]; `row` is float32, `matrix` float32 or bfloat16.
void add_to_rows(const float* row, const TensorView& matrix, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
