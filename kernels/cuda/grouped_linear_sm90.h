// Grouped products by Hopper's own instructions: bfloat16, many rows a group.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/grouped_linear.h"

namespace tessera::kernels::cuda {

/// Whether x and weight are bfloat16, aligned as the copy engine needs (16 bytes), and `out` takes
/// two results at a time.
[[nodiscard]] bool can_use_sm90_grouped(const GroupedProduct& product);

void launch_sm90_grouped(const GroupedProduct& product, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
