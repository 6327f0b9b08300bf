// Memory of one GPU that several GPUs reach. Other allocations stay as they are: with
// cudaDeviceEnablePeerAccess each of them, also of libraries and of modules that are loaded late,
// would be mapped on all GPUs and wait for kernels there, which may be waiting for this GPU.
#pragma once

#include <cstdint>
#include <span>

namespace tessera::kernels::cuda {

class PeerMemory final {
 public:
  /// Of GPU `owner`, for all of `devices` (CUDA ordinals, the owner among them), every byte `fill`.
  /// Throws DeviceError.
  PeerMemory(int owner, std::span<const int> devices, int64_t num_bytes, int fill);
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;
  PeerMemory(PeerMemory&& other) noexcept;
  PeerMemory& operator=(PeerMemory&&) = delete;

  [[nodiscard]] char* data() const noexcept { return data_; }

 private:
  void map(int owner, std::span<const int> devices, int64_t num_bytes, int fill);
  void release() noexcept;

  char* data_ = nullptr;
  int64_t num_bytes_ = 0;          // of whole pages
  unsigned long long handle_ = 0;  // NOLINT(google-runtime-int): CUmemGenericAllocationHandle
};

}  // namespace tessera::kernels::cuda
