// Move-only owners of what CUDA's libraries create: streams, events, pinned memory, a cuBLASLt
// handle. Their work on the device is done before they die, or the device is gone.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "kernels/cuda/cuda_check.h"

namespace tessera::kernels::cuda {

struct HandleDeleter {
  void operator()(cudaStream_t stream) const noexcept { ignore_cuda(cudaStreamDestroy(stream)); }
  void operator()(cudaEvent_t event) const noexcept { ignore_cuda(cudaEventDestroy(event)); }
  void operator()(cublasLtHandle_t handle) const noexcept {
    static_cast<void>(cublasLtDestroy(handle));
  }
  void operator()(cudaGraph_t graph) const noexcept { ignore_cuda(cudaGraphDestroy(graph)); }
  void operator()(cudaGraphExec_t graph) const noexcept {
    ignore_cuda(cudaGraphExecDestroy(graph));
  }
  void operator()(char* pinned) const noexcept { ignore_cuda(cudaFreeHost(pinned)); }
};

template <typename Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, HandleDeleter>;

using Stream = Owned<cudaStream_t>;
using Event = Owned<cudaEvent_t>;
using Graph = Owned<cudaGraph_t>;
using GraphExec = Owned<cudaGraphExec_t>;
using BlasHandle = Owned<cublasLtHandle_t>;
using PinnedMemory = Owned<char*>;

/// On the calling thread's current device; does not wait for the legacy default stream.
[[nodiscard]] inline Stream make_stream() {
  cudaStream_t stream = nullptr;
  TESSERA_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

/// Without timing.
[[nodiscard]] inline Event make_event() {
  cudaEvent_t event = nullptr;
  TESSERA_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return Event(event);
}

[[nodiscard]] inline PinnedMemory make_pinned(int64_t num_bytes) {
  void* data = nullptr;
  TESSERA_CUDA(cudaMallocHost(&data, static_cast<size_t>(num_bytes)));
  return PinnedMemory(static_cast<char*>(data));
}

[[nodiscard]] inline BlasHandle make_blas_handle() {
  cublasLtHandle_t handle = nullptr;
  TESSERA_CUBLAS(cublasLtCreate(&handle));
  return BlasHandle(handle);
}

}  // namespace tessera::kernels::cuda
