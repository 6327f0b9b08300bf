#include "kernels/cuda/launch.cuh"
#include "tools/bench/gpu_read_kernel.h"

namespace tessera::bench {
namespace {

constexpr int kThreads = 512;
constexpr int kLoads = 8;  ///< of 16 bytes in flight in a thread

__global__ void __launch_bounds__(kThreads)
    read_kernel(const uint4* data, int64_t count, uint32_t* sums) {
  uint32_t sum = 0;
  const int64_t tile = int64_t{kThreads} * kLoads;
  for (int64_t begin = blockIdx.x * tile; begin < count; begin += gridDim.x * tile) {
    uint4 words[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int64_t at = begin + i * kThreads + threadIdx.x;
      words[i] = at < count ? __ldcs(data + at) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (const uint4& word : words) {
      sum += word.x ^ word.y ^ word.z ^ word.w;
    }
  }
  if (sum == 0x9E3779B9U) {
    *sums = sum;
  }
}

}  // namespace

void launch_read_kernel(const void* data, int64_t num_bytes, void* sums, cudaStream_t stream) {
  int num_multiprocessors = 0;
  kernels::cuda::check_cuda(
      cudaDeviceGetAttribute(&num_multiprocessors, cudaDevAttrMultiProcessorCount, 0),
      "cudaDeviceGetAttribute");
  kernels::cuda::launch("read_kernel",
                        read_kernel,
                        {static_cast<unsigned>(num_multiprocessors * 4), kThreads},
                        stream,
                        static_cast<const uint4*>(data),
                        num_bytes / 16,
                        static_cast<uint32_t*>(sums));
}

}  // namespace tessera::bench
