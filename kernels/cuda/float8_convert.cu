// Weights from float8 to bfloat16, and rows of x from bfloat16 to float8.

#include <cuda_fp8.h>

#include "kernels/cuda/float8_math.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kBlock = static_cast<int>(kScaleBlock);
constexpr int kThreads = 256;

/// A thread kCount adjacent columns, which are of one block.
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    dequantize(const __grid_constant__ Float8Product p, int64_t begin, int64_t count, Bf16* to) {
  wait_for_kernel_before();
  const int64_t threads_a_row = p.product.in_features / kCount;
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= count * threads_a_row) {
    return;
  }
  const int64_t feature = begin + at / threads_a_row;
  const int column = static_cast<int>(at % threads_a_row) * kCount;
  const float scale = scales_of(p, 0, feature)[(p.first_column + column) / kBlock];
  const auto values =
      *reinterpret_cast<const Pack<uint8_t, kCount>*>(weights_of(p, 0, feature) + column);
  Pack<Bf16, kCount> results;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    results.values[i] = from_float<Bf16>(float8_to_float(values.values[i]) * scale);
  }
  *reinterpret_cast<Pack<Bf16, kCount>*>(to + at * kCount) = results;
}

template <int kCount>
void launch_dequantize(
    const Float8Product& p, int64_t begin, int64_t count, void* to, cudaStream_t stream) {
  launch_early("dequantize (float8)",
               dequantize<kCount>,
               {to_grid(ceil_div(count * (p.product.in_features / kCount), kThreads)), kThreads},
               stream,
               p,
               begin,
               count,
               static_cast<Bf16*>(to));
}

constexpr int kRowThreads = 256;
constexpr int kRowWarps = kRowThreads / kWarp;
constexpr int kLaneColumns = kBlock / kWarp;
static_assert(kLaneColumns == kPackColumns);

/// A warp a row's part of one block of columns.
__global__ void __launch_bounds__(kRowThreads)
    quantize(const __grid_constant__ GroupedProduct p, Float8Rows to, int num_blocks) {
  wait_for_kernel_before();
  constexpr float kLargest = 448.0F;
  const int64_t part = int64_t{blockIdx.x} * kRowWarps + static_cast<int64_t>(threadIdx.x) / kWarp;
  if (part >= p.rows * num_blocks) {
    return;
  }
  const int64_t row = part / num_blocks;
  const int64_t block = part % num_blocks;
  const int column =
      static_cast<int>(block) * kBlock + static_cast<int>(threadIdx.x) % kWarp * kLaneColumns;
  const bool is_valid = column < p.in_features;
  float x[kLaneColumns] = {};
  if (is_valid) {
    const auto values = *reinterpret_cast<const Pack<Bf16, kLaneColumns>*>(
        static_cast<const Bf16*>(p.x) + row * p.x_stride + column);
#pragma unroll
    for (int i = 0; i < kLaneColumns; ++i) {
      x[i] = to_float(values.values[i]);
    }
  }
  float largest = 0.0F;
#pragma unroll
  for (int i = 0; i < kLaneColumns; ++i) {
    largest = fmaxf(largest, fabsf(x[i]));
  }
  largest = warp_max(largest);
  // Not below what has a reciprocal; rows of zeros have scales too.
  const float scale = fmaxf(largest / kLargest, 0x1p-100F);
  if (is_valid) {
    Pack<uint8_t, kLaneColumns> results;
#pragma unroll
    for (int i = 0; i < kLaneColumns; ++i) {
      results.values[i] = __nv_cvt_float_to_fp8(x[i] / scale, __NV_SATFINITE, __NV_E4M3);
    }
    *reinterpret_cast<Pack<uint8_t, kLaneColumns>*>(static_cast<uint8_t*>(to.values) +
                                                    row * p.in_features + column) = results;
  }
  if (threadIdx.x % kWarp == 0) {
    to.scales[block * p.rows + row] = scale;
  }
}

}  // namespace

void dequantize_float8(
    const Float8Product& p, int64_t begin, int64_t count, void* to, cudaStream_t stream) {
  const bool has_packs = p.product.in_features % 8 == 0 && p.first_column % 8 == 0;
  if (has_packs) {
    launch_dequantize<8>(p, begin, count, to, stream);
  } else {
    launch_dequantize<1>(p, begin, count, to, stream);
  }
}

void quantize_rows(const GroupedProduct& p, const Float8Rows& to, cudaStream_t stream) {
  const auto num_blocks = static_cast<int>(ceil_div(p.in_features, kBlock));
  launch_early("quantize_rows (float8)",
               quantize,
               {to_grid(ceil_div(p.rows * num_blocks, kRowWarps)), kRowThreads},
               stream,
               p,
               to,
               num_blocks);
}

}  // namespace tessera::kernels::cuda
