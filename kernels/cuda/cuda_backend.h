// An NVIDIA GPU (Hopper) as a backend: cuBLASLt for matrix products, own kernels for the rest. No
// CUDA header is needed to include this one.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/ops/backend.h"

namespace tessera::kernels::cuda {

/// GPUs that this process sees, up to the first that is not of the Hopper kind; 0 where there is no
/// driver.
[[nodiscard]] int num_cuda_devices() noexcept;

struct DeviceMemory {
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
};
/// Of device `index`, now. Throws DeviceError.
[[nodiscard]] DeviceMemory device_memory(int index);

/// A backend on device `index`. Its ops are called by one thread at a time and share scratch
/// memory: all on one stream, or on streams that wait for each other. They allocate nothing and do
/// not wait for the device. Throws DeviceError.
[[nodiscard]] std::unique_ptr<Backend> create_cuda_backend(int index);

/// Whether products of many rows with weights in float8 round their rows to float8 too, by
/// cuBLASLt; else such weights become bfloat16 on their way. `backend`: made by
/// create_cuda_backend(). Start-up only.
[[nodiscard]] bool multiplies_rows_in_float8(Backend& backend);

// For libraries that work on the same GPU, in the order of its streams. `device`: of a backend made
// by create_cuda_backend().

[[nodiscard]] int device_index(const Device& device) noexcept;
/// The cudaStream_t that `stream` names.
[[nodiscard]] void* native_stream(const Device& device, StreamView stream);

}  // namespace tessera::kernels::cuda
