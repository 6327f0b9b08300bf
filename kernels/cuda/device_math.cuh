// What kernels share: conversions to and from float32, and sums over a warp or a block.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "kernels/core/tensor_view.h"

namespace tessera::kernels::cuda {

using Bf16 = __nv_bfloat16;

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

__device__ inline float to_float(float value) {
  return value;
}
__device__ inline float to_float(Bf16 value) {
  return __bfloat162float(value);
}

template <typename T>
__device__ inline T from_float(float value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    return __float2bfloat16_rn(value);
  }
}

template <typename Value>
__device__ inline Value warp_sum(Value value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

__device__ inline float warp_max(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

/// Adds 1 to a number in global memory, behind what the calling thread has written or has seen
/// written: who finds it so by wait_for_count() sees that too.
__device__ inline void count_up(uint32_t* number) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(number) : "memory");
}
/// By all threads of a warp together: one that loops alone would cost what follows its uniform
/// registers. Who waits for seconds waits for ever: that is an error of the device then.
__device__ inline void wait_for_count(const uint32_t* number, uint32_t count) {
  constexpr long long kMaxCycles = 1LL << 35;  // some 20 s
  const long long begin = clock64();
  while (true) {
    uint32_t found = 0;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(found) : "l"(number) : "memory");
    if (!__any_sync(kAllLanes, found < count)) {
      return;
    }
    if (clock64() - begin > kMaxCycles) {
      __trap();
    }
  }
}

/// 2^x to 2 units in the last place; results below 2^-126 are 0.
__device__ inline float exp2_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// The sum over the block's threads, on every one of them; kThreads is blockDim.x. `shared` holds a
/// value per warp, and may be used again at once.
template <int kThreads, typename Value>
__device__ inline Value block_sum(Value value, Value* shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) {
    shared[warp] = value;
  }
  __syncthreads();
  Value total = Value(0);
  for (int i = 0; i < kThreads / kWarp; ++i) {
    total += shared[i];
  }
  __syncthreads();
  return total;
}

/// Rows of adjacent elements.
template <typename T>
struct DeviceRows {
  T* data = nullptr;
  int64_t stride = 0;  ///< in elements

  __device__ T* row(int64_t i) const { return data + i * stride; }
};

/// [rows, heads, width] with free outer strides.
template <typename T>
struct DeviceHeads {
  T* data = nullptr;
  int64_t stride = 0;
  int64_t head_stride = 0;

  __device__ T* row(int64_t i, int64_t head) const {
    return data + i * stride + head * head_stride;
  }
};

template <typename T>
[[nodiscard]] DeviceRows<T> rows_of(const TensorView& view) {
  return {static_cast<T*>(view.data), view.stride[0]};
}
template <typename T>
[[nodiscard]] DeviceRows<const T> rows_of(const ConstTensorView& view) {
  return {static_cast<const T*>(view.data), view.stride[0]};
}
template <typename T>
[[nodiscard]] DeviceHeads<T> heads_of(const TensorView& view) {
  return {static_cast<T*>(view.data), view.stride[0], view.stride[1]};
}
template <typename T>
[[nodiscard]] DeviceHeads<const T> heads_of(const ConstTensorView& view) {
  return {static_cast<const T*>(view.data), view.stride[0], view.stride[1]};
}

/// kCount adjacent elements, moved by one access.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};
/// Columns that kernels over rows take at a time where all rows allow it.
inline constexpr int kPackColumns = 4;

/// Whether rows can be read and written in packs.
[[nodiscard]] inline bool is_packable(const ConstTensorView& rows, int64_t width) {
  const int64_t pack_bytes = kPackColumns * dtype_bytes(rows.dtype);
  return width % kPackColumns == 0 && rows.stride[0] % kPackColumns == 0 &&
         static_cast<int64_t>(reinterpret_cast<uintptr_t>(rows.data)) % pack_bytes == 0;
}

/// Calls visit(T{}) with the element type of `dtype`, float32 or bfloat16.
template <typename Visit>
void visit_dtype(DType dtype, Visit&& visit) {
  if (dtype == DType::kFloat32) {
    visit(float{});
  } else {
    visit(Bf16{});
  }
}

}  // namespace tessera::kernels::cuda
