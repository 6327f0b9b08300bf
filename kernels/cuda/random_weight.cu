// Random weights made where they stay: a thread an element.

#include <cuda_fp8.h>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_weight.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    fill_random(T* values, int64_t count, uint64_t counter, float half_width) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) {
    const float value = half_width * random_unit(counter + static_cast<uint64_t>(i));
    values[i] = from_float<T>(to_float(from_float<Bf16>(value)));
  }
}

__global__ void __launch_bounds__(kThreads)
    fill_random_float8(uint8_t* values, int64_t count, uint64_t counter) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) {
    const float value = kRandomFloat8 * random_unit(counter + static_cast<uint64_t>(i));
    values[i] = __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
  }
}
__global__ void __launch_bounds__(kThreads) fill_equal(float* values, int64_t count, float value) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) {
    values[i] = value;
  }
}

unsigned num_thread_blocks(int64_t count) {
  return to_grid(ceil_div(count, kThreads));
}

/// All parts are of one width.
void launch_fill_float8(const CudaLinearWeight& weight,
                        int64_t group,
                        std::span<const RandomRows> parts,
                        cudaStream_t stream) {
  auto* values = reinterpret_cast<uint8_t*>(weight.group(group));
  for (const RandomRows& part : parts) {
    const int64_t count = part.rows * weight.shape().in_features;
    launch("fill_random (float8)",
           fill_random_float8,
           {num_thread_blocks(count), kThreads},
           stream,
           values,
           count,
           part.counter);
    values += count;
  }
  launch("fill_random (scales)",
         fill_equal,
         {num_thread_blocks(weight.group_scales()), kThreads},
         stream,
         weight.scales(group),
         weight.group_scales(),
         random_float8_scale(parts.front().half_width));
}

template <typename T>
void launch_fill(const RandomRows& rows, int64_t count, char* values, cudaStream_t stream) {
  launch("fill_random",
         fill_random<T>,
         {to_grid((count + kThreads - 1) / kThreads), kThreads},
         stream,
         reinterpret_cast<T*>(values),
         count,
         rows.counter,
         rows.half_width);
}

}  // namespace

void CudaOps::do_fill_linear_weight(LinearWeight& weight,
                                    int64_t group,
                                    std::span<const RandomRows> parts) {
  const LinearShape& shape = weight.shape();
  char* values = static_cast<const CudaLinearWeight&>(weight).group(group);
  const cudaStream_t stream = device_.enter({});
  if (shape.scales) {
    launch_fill_float8(static_cast<const CudaLinearWeight&>(weight), group, parts, stream);
    return;
  }
  for (const RandomRows& part : parts) {
    const int64_t count = part.rows * shape.in_features;
    if (shape.dtype == DType::kFloat32) {
      launch_fill<float>(part, count, values, stream);
    } else {
      launch_fill<Bf16>(part, count, values, stream);
    }
    values += count * dtype_bytes(shape.dtype);
  }
  device_.synchronize_blocking(
      {});  // products read weights before the kernel before them has ended
}

}  // namespace tessera::kernels::cuda
