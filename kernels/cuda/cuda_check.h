// Turns CUDA and cuBLASLt error codes into DeviceError that names the device and the call.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

namespace tessera::kernels::cuda {

/// Throws DeviceError "cuda device 0: cudaMalloc(...): out of memory" unless `code` is a success.
void check_cuda(cudaError_t code, const char* call);
void check_cublas(cublasStatus_t code, const char* call);

/// For destructors: a device that is shutting down has nothing left to return.
inline void ignore_cuda(cudaError_t) noexcept {}

}  // namespace tessera::kernels::cuda

#define TESSERA_CUDA(call) ::tessera::kernels::cuda::check_cuda((call), #call)
#define TESSERA_CUBLAS(call) ::tessera::kernels::cuda::check_cublas((call), #call)
