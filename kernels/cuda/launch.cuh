// The only place that launches kernels: checks the error and names the kernel.
#pragma once

#include <cstdint>
#include <utility>

#include <cuda_runtime.h>

#include "kernels/cuda/cuda_check.h"

namespace tessera::kernels::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  int64_t shared_bytes = 0;  ///< dynamic shared memory
};

/// More dynamic shared memory than this has to be asked for.
inline constexpr int64_t kDefaultSharedBytes = 48 * 1024;
/// What one block of a Hopper GPU may have.
inline constexpr int64_t kMaxSharedBytes = 227 * 1024;

/// Waits until the kernel before has ended and what it wrote is seen, then lets the one after
/// start: launch and first instructions of a kernel pass while the one before it works, or the one
/// before that (let_next_kernel_start()). Before it a thread reads only what neither of them
/// writes, such as weights, and writes nothing; of every block with work one thread at least calls
/// it, so that no kernel ends before its predecessors. Source: CUDA Programming Guide,
/// "Programmatic Dependent Launch".
__device__ inline void wait_for_kernel_before() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/// Lets the kernel after start before wait_for_kernel_before() has returned in all blocks. That one
/// waits for the end of this kernel, which waits for the one before.
__device__ inline void let_next_kernel_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

namespace detail {

template <typename... Params, typename... Args>
void launch(const char* name,
            void (*kernel)(Params...),
            const LaunchShape& shape,
            bool is_early,
            cudaStream_t stream,
            Args&&... args) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) {
    return;
  }
  if (shape.shared_bytes > kDefaultSharedBytes) {
    check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shape.shared_bytes)),
               name);
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = is_early ? 1 : 0;
  check_cuda(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...), name);
}

}  // namespace detail

/// Nothing happens for an empty grid.
template <typename... Params, typename... Args>
void launch(const char* name,
            void (*kernel)(Params...),
            const LaunchShape& shape,
            cudaStream_t stream,
            Args&&... args) {
  detail::launch(name, kernel, shape, false, stream, std::forward<Args>(args)...);
}

/// As launch(), for a kernel that calls wait_for_kernel_before(): it may start before the kernel
/// before it has ended.
template <typename... Params, typename... Args>
void launch_early(const char* name,
                  void (*kernel)(Params...),
                  const LaunchShape& shape,
                  cudaStream_t stream,
                  Args&&... args) {
  detail::launch(name, kernel, shape, true, stream, std::forward<Args>(args)...);
}

[[nodiscard]] constexpr int64_t ceil_div(int64_t a, int64_t b) noexcept {
  return (a + b - 1) / b;
}

[[nodiscard]] inline unsigned to_grid(int64_t count) noexcept {
  return static_cast<unsigned>(count);
}

}  // namespace tessera::kernels::cuda
