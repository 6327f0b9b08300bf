// What the benches of the CUDA backend share: a backend on GPU 0 with a stream, buffers of random
// numbers, medians over CUDA events, and the ceilings that times are compared with, measured in the
// same run. Errors of CUDA are DeviceError.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <cuda_runtime_api.h>

#include "kernels/core/check.h"
#include "kernels/ops/backend.h"

namespace tessera::bench {

/// Throws DeviceError.
void check_cuda_call(cudaError_t code);

/// The backend's operation, cuBLASLt, the operation with weights in float8.
enum class LinearWay { kOps, kCuBlasLt, kFloat8 };

/// x[rows, in] W[out, in]^T
struct LinearProduct {
  int64_t rows, out, in;
  LinearWay way = LinearWay::kOps;
};

class GpuBench final {
 public:
  /// The random numbers are those of `seed`.
  explicit GpuBench(uint64_t seed);
  ~GpuBench();
  GpuBench(const GpuBench&) = delete;
  GpuBench& operator=(const GpuBench&) = delete;

  [[nodiscard]] kernels::Ops& ops() { return backend_->ops(); }
  [[nodiscard]] kernels::Device& device() { return backend_->device(); }
  [[nodiscard]] kernels::StreamView stream() const { return {stream_}; }

  /// Random bfloat16 numbers in [-1, 1), in pieces that repeat at random distances.
  [[nodiscard]] kernels::DeviceBuffer random_bytes(int64_t num_bytes);
  template <typename T>
  [[nodiscard]] kernels::DeviceBuffer upload(const std::vector<T>& values) {
    return upload_bytes(values.data(), static_cast<int64_t>(values.size() * sizeof(T)));
  }

  using Work = std::function<void(int)>;
  /// Runs of a work in a measurement: work(0) to work(kRuns - 1).
  static constexpr int kRuns = 4;
  /// Median microseconds of a run; their launches are captured into a graph if they are kernels of
  /// ours.
  [[nodiscard]] double median_us(const Work& work, bool in_graph = true);
  /// The same of each, measured in turns: a GPU slows down as it gets warm, and no work is to have
  /// the cool one to itself.
  [[nodiscard]] std::vector<double> medians_us(const std::vector<Work>& works,
                                               bool in_graph = true);

  /// Bytes a second, read and written, of a copy within the device.
  [[nodiscard]] double copy_bandwidth();
  /// Bytes a second that a kernel reads that does nothing else.
  [[nodiscard]] double read_bandwidth();
  /// Operations a second of a bfloat16 product of 8192 x 8192 x 8192.
  [[nodiscard]] double product_rate();
  /// Microseconds of one of many products in a row, each with another weight: together the weights
  /// do not fit the L2 cache.
  [[nodiscard]] double linear_us(const LinearProduct& product);

 private:
  [[nodiscard]] kernels::DeviceBuffer upload_bytes(const void* data, int64_t num_bytes);

  std::unique_ptr<kernels::Backend> backend_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t before_ = nullptr;
  cudaEvent_t after_ = nullptr;
  uint64_t state_;  // of the places that random_bytes() takes pieces from
  kernels::DeviceBuffer noise_;
};

}  // namespace tessera::bench
