// What a worker computes on: its device, its type of numbers, its memory. compute_device.cpp is the
// only file above kernels/ that names a backend.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/base/result.h"
#include "engine/config/memory_plan.h"
#include "engine/config/worker_config.h"
#include "engine/runner/parallel_runner.h"
#include "kernels/ops/backend.h"

namespace tessera {

enum class DeviceKind : uint8_t { kCpu, kCuda };

struct ComputeDevice {
  DeviceKind kind = DeviceKind::kCpu;
  kernels::DType dtype = kernels::DType::kFloat32;
  int num_threads = 1;          ///< of one rank, on the CPU
  int64_t context_tile = 512;   ///< of StepLimits
  int64_t available_bytes = 0;  ///< of each rank's device, or of the host for all ranks together
};

/// Follows --device, --dtype, --threads and --gpu-memory-utilization for this many ranks. `auto` is
/// the GPUs when there are enough of them and they can do what is asked. Errors: INVALID_ARGUMENT
/// for a device that is not there or cannot, and for a dtype that it does not multiply.
[[nodiscard]] Result<ComputeDevice> choose_compute_device(const WorkerConfig& worker,
                                                          int64_t num_ranks);

/// The type of latents in the cache of a worker that computes in `dtype`: --kv-cache-dtype.
[[nodiscard]] kernels::DType cache_dtype(const WorkerConfig& worker, kernels::DType dtype) noexcept;

/// What the ranks may take together.
[[nodiscard]] MemoryBudget memory_budget(const ComputeDevice& device, int64_t num_ranks) noexcept;

/// --threads, or one for each core of the machine.
[[nodiscard]] int compute_threads(const WorkerConfig& worker) noexcept;

/// The backend of one rank. Throws DeviceError when the device fails.
[[nodiscard]] std::unique_ptr<kernels::Backend> make_backend(const ComputeDevice& device,
                                                             int64_t rank);

/// How the ranks of a group on this device reach each other; null: as threads on host memory.
[[nodiscard]] CommunicatorFactory communicator_factory(const ComputeDevice& device,
                                                       const WorkerConfig& worker);

}  // namespace tessera
