#include "kernels/cuda/cuda_backend.h"

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_ops.h"

namespace tessera::kernels::cuda {
namespace {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int index) : device_(index), ops_(device_) {}
  [[nodiscard]] Device& device() noexcept override { return device_; }
  [[nodiscard]] Ops& ops() noexcept override { return ops_; }
  [[nodiscard]] DType preferred_dtype() const noexcept override { return DType::kBFloat16; }

 private:
  CudaDevice device_;
  CudaOps ops_;  // uses device_
};

constexpr int kHopper = 9;  ///< major compute capability

}  // namespace

int num_cuda_devices() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    ignore_cuda(cudaGetLastError());
    return 0;
  }
  for (int index = 0; index < count; ++index) {
    int major = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index) != cudaSuccess ||
        major != kHopper) {
      ignore_cuda(cudaGetLastError());
      return index;
    }
  }
  return count;
}

DeviceMemory device_memory(int index) {
  TESSERA_CUDA(cudaSetDevice(index));
  size_t free = 0;
  size_t total = 0;
  TESSERA_CUDA(cudaMemGetInfo(&free, &total));
  return {static_cast<int64_t>(free), static_cast<int64_t>(total)};
}

std::unique_ptr<Backend> create_cuda_backend(int index) {
  return std::make_unique<CudaBackend>(index);
}

bool multiplies_rows_in_float8(Backend& backend) {
  return static_cast<CudaOps&>(backend.ops()).multiplies_rows_in_float8();
}

int device_index(const Device& device) noexcept {
  return static_cast<const CudaDevice&>(device).index();
}

void* native_stream(const Device& device, StreamView stream) {
  return static_cast<const CudaDevice&>(device).enter(stream);
}

}  // namespace tessera::kernels::cuda
