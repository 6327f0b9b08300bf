// Where the GPUs' time went, by kernel: what CUPTI records of this process, graphs included.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera::bench {

struct KernelTime {
  std::string name;  ///< without arguments
  int64_t count = 0;
  double seconds = 0.0;
};

class GpuKernelTimes final {
 public:
  /// From here on kernels of GPU `device` are recorded. One object at a time. Prints why and exits
  /// where CUPTI cannot.
  explicit GpuKernelTimes(int device);
  ~GpuKernelTimes();
  GpuKernelTimes(const GpuKernelTimes&) = delete;
  GpuKernelTimes& operator=(const GpuKernelTimes&) = delete;

  /// Those that have ended, most time first.
  [[nodiscard]] std::vector<KernelTime> finish_blocking();
};

/// "attention", "products", "collectives", "sampling" or "other".
[[nodiscard]] std::string kernel_class(const std::string& name);

}  // namespace tessera::bench
