#include "kernels/cuda/cuda_device.h"

#include <utility>

#include "kernels/core/check.h"
#include "kernels/cuda/image_mover.h"
#include "kernels/cuda/pinned_staging.h"

namespace tessera::kernels::cuda {
namespace {

class CudaGraph final : public DeviceGraph {
 public:
  CudaGraph(const CudaDevice& device, GraphExec graph)
      : device_(device), graph_(std::move(graph)) {}
  void launch(StreamView stream) override {
    TESSERA_CUDA(cudaGraphLaunch(graph_.get(), device_.enter(stream)));
  }

 private:
  const CudaDevice& device_;  // outlives what it recorded
  GraphExec graph_;
};

}  // namespace

CudaDevice::CudaDevice(int index) : index_(index) {
  TESSERA_CUDA(cudaSetDevice(index));
  cudaDeviceProp properties;
  TESSERA_CUDA(cudaGetDeviceProperties(&properties, index));
  // The kernels are compiled for one architecture (sm_90a), which no other one runs.
  if (properties.major != 9 || properties.minor != 0) {
    throw DeviceError("cuda device " + std::to_string(index) + ": " + properties.name +
                      " has compute capability " + std::to_string(properties.major) + "." +
                      std::to_string(properties.minor) + ", and this build is for 9.0 (Hopper)");
  }
  num_multiprocessors_ = properties.multiProcessorCount;
  description_ = "cuda:" + std::to_string(index) + ": " + properties.name + ", " +
                 std::to_string(properties.totalGlobalMem >> 20U) + " MiB";
  default_stream_ = make_stream();
  staging_ = std::make_unique<PinnedStaging>();
}

CudaDevice::~CudaDevice() {
  ignore_cuda(cudaSetDevice(index_));  // for the members' deleters
}

cudaStream_t CudaDevice::enter(StreamView stream) const {
  TESSERA_CUDA(cudaSetDevice(index_));
  return stream.handle == nullptr ? default_stream_.get()
                                  : static_cast<cudaStream_t>(stream.handle);
}

DeviceBuffer CudaDevice::allocate(int64_t num_bytes) {
  TESSERA_CHECK(num_bytes >= 0, "negative allocation");
  static_cast<void>(enter({}));
  void* data = nullptr;
  const cudaError_t code = cudaMalloc(&data, static_cast<size_t>(num_bytes > 0 ? num_bytes : 1));
  if (code == cudaErrorMemoryAllocation) {
    ignore_cuda(cudaGetLastError());
    throw DeviceError("cuda device " + std::to_string(index_) + ": no memory for " +
                      std::to_string(num_bytes) + " bytes, " + std::to_string(free_bytes()) +
                      " are free");
  }
  check_cuda(code, "cudaMalloc");
  return {this, data, num_bytes};
}

void CudaDevice::deallocate(void* data) noexcept {
  ignore_cuda(cudaSetDevice(index_));
  ignore_cuda(cudaFree(data));
}

void CudaDevice::copy_from_host(void* destination,
                                const void* source,
                                int64_t num_bytes,
                                StreamView stream) {
  staging_->copy_in(destination, source, num_bytes, enter(stream));
}

void CudaDevice::copy_to_host(void* destination,
                              const void* source,
                              int64_t num_bytes,
                              StreamView stream) {
  staging_->copy_out(destination, source, num_bytes, enter(stream));
}

void CudaDevice::copy(void* destination, const void* source, int64_t num_bytes, StreamView stream) {
  TESSERA_CUDA(cudaMemcpyAsync(destination,
                               source,
                               static_cast<size_t>(num_bytes),
                               cudaMemcpyDeviceToDevice,
                               enter(stream)));
}

void CudaDevice::synchronize_blocking(StreamView stream) {
  staging_->finish_blocking(enter(stream));
}

std::unique_ptr<DeviceGraph> CudaDevice::record(StreamView stream,
                                                const std::function<void()>& work) {
  const cudaStream_t on = enter(stream);
  // Other threads may allocate meanwhile.
  TESSERA_CUDA(cudaStreamBeginCapture(on, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t recorded = nullptr;
  try {
    work();
  } catch (...) {
    ignore_cuda(cudaStreamEndCapture(on, &recorded));
    const Graph broken(recorded);
    throw;
  }
  TESSERA_CUDA(cudaStreamEndCapture(on, &recorded));
  const Graph graph(recorded);
  cudaGraphExec_t executable = nullptr;
  TESSERA_CUDA(cudaGraphInstantiate(&executable, graph.get(), 0));
  return std::make_unique<CudaGraph>(*this, GraphExec(executable));
}

std::unique_ptr<ImageMover> CudaDevice::make_image_mover() {
  return create_cuda_image_mover(*this);
}

int64_t CudaDevice::free_bytes() const {
  static_cast<void>(enter({}));
  size_t free = 0;
  size_t total = 0;
  TESSERA_CUDA(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

}  // namespace tessera::kernels::cuda
