// Functions of the CUDA driver that the runtime has no name for. Found at run time: nothing links
// against the driver, which machines without a GPU do not have.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "kernels/core/check.h"
#include "kernels/cuda/cuda_check.h"

namespace tessera::kernels::cuda {

/// `name` as of CUDA `version`, which counts as CUDA_VERSION does.
template <typename Function>
[[nodiscard]] Function driver_function(const char* name, unsigned version) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  TESSERA_CUDA(
      cudaGetDriverEntryPointByVersion(name, &function, version, cudaEnableDefault, &result));
  TESSERA_CHECK(result == cudaDriverEntryPointSuccess, name);
  return reinterpret_cast<Function>(function);
}

}  // namespace tessera::kernels::cuda
