#include "kernels/cuda/cuda_check.h"

#include <string>

#include "kernels/core/check.h"

namespace tessera::kernels::cuda {
namespace {

[[noreturn]] void fail(const char* call, const std::string& reason) {
  int device = -1;
  ignore_cuda(cudaGetDevice(&device));
  throw DeviceError("cuda device " + std::to_string(device) + ": " + call + ": " + reason);
}

}  // namespace

void check_cuda(cudaError_t code, const char* call) {
  if (code == cudaSuccess) {
    return;
  }
  ignore_cuda(cudaGetLastError());  // a failed launch is reported once
  fail(call, std::string(cudaGetErrorName(code)) + ": " + cudaGetErrorString(code));
}

void check_cublas(cublasStatus_t code, const char* call) {
  if (code != CUBLAS_STATUS_SUCCESS) {
    fail(call, cublasLtGetStatusString(code));
  }
}

}  // namespace tessera::kernels::cuda
