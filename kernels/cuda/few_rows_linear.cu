// A block is 16 output features of one matrix; its warps share the input features among them, and
// add up at the end. Weights are operand A of the tensor cores, straight from memory into
// registers: the order of a sum's terms is free, so a thread's 16 adjacent bytes are its part of
// two products. Rows of x, up to eight a product, are operand B in the same order.

#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kFeatures = 16;
constexpr int kTileRows = 8;
/// Input features of a step: four threads of eight each.
constexpr int kStepColumns = 32;
/// Steps whose loads a warp issues together.
constexpr int kChunkSteps = 4;
constexpr int kChunkStepColumns = kChunkSteps * kStepColumns;
constexpr int kMaxWarps = 8;

struct FewRows {
  const Bf16* x = nullptr;
  int64_t x_stride = 0;
  int64_t x_batch_stride = 0;
  const Bf16* weight = nullptr;
  void* out = nullptr;
  int64_t out_stride = 0;
  int64_t out_batch_stride = 0;
  int32_t rows = 0;
  int32_t out_features = 0;
  int32_t in_features = 0;
};

/// 16 bytes that nobody reads again on this multiprocessor.
__device__ inline uint4 load_once(const Bf16* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

/// A warp's part of kChunkSteps steps of the weight: rows g and g + 8 of its 16.
struct WeightChunk {
  uint4 low[kChunkSteps];
  uint4 high[kChunkSteps];

  /// `column` is this thread's first; beyond `end` are zeros.
  __device__ void load(const Bf16* low_row, const Bf16* high_row, int column, int end) {
#pragma unroll
    for (int s = 0; s < kChunkSteps; ++s) {
      const int at = column + s * kStepColumns;
      low[s] = at < end ? load_once(low_row + at) : uint4{};
      high[s] = at < end ? load_once(high_row + at) : uint4{};
    }
  }
};

__device__ inline void multiply_step(float (&sums)[4],
                                     const uint4& low,
                                     const uint4& high,
                                     const uint4& x) {
  multiply_add(sums, Fragment4{{low.x, high.x, low.y, high.y}}, x.x, x.y);
  multiply_add(sums, Fragment4{{low.z, high.z, low.w, high.w}}, x.z, x.w);
}

/// kTiles tiles of eight rows.
template <int kWarps, int kTiles, typename Out>
__global__ void __launch_bounds__(kWarps* kWarp, kMaxWarps / kWarps * 2)
    multiply_few_rows(const __grid_constant__ FewRows p) {
  __shared__ float partial[kWarps][kTiles * kTileRows][kFeatures];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first_feature = static_cast<int>(blockIdx.x) * kFeatures;
  const int last = p.out_features - 1;
  const Bf16* weight = p.weight + static_cast<int64_t>(blockIdx.y) * p.out_features * p.in_features;
  // Features beyond the last are computed from the last's weights and not stored.
  const int64_t low_feature = min(first_feature + lane / 4, last);
  const int64_t high_feature = min(first_feature + lane / 4 + kFeatures / 2, last);
  const Bf16* low_row = weight + low_feature * p.in_features;
  const Bf16* high_row = weight + high_feature * p.in_features;
  const int num_chunks = (p.in_features + kChunkStepColumns - 1) / kChunkStepColumns;
  const int own_column = lane % 4 * 8;

  WeightChunk chunk;
  chunk.load(low_row, high_row, warp * kChunkStepColumns + own_column, p.in_features);
  WeightChunk next;
  next.load(low_row, high_row, (warp + kWarps) * kChunkStepColumns + own_column, p.in_features);
  wait_for_kernel_before();

  const Bf16* x_rows[kTiles];
  bool has_row[kTiles];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int row = i * kTileRows + lane / 4;
    has_row[i] = row < p.rows;
    x_rows[i] = p.x + blockIdx.y * p.x_batch_stride + (has_row[i] ? row : 0) * p.x_stride;
  }
  float sums[kTiles][4] = {};
  for (int c = warp; c < num_chunks; c += kWarps) {
    const int column = c * kChunkStepColumns + own_column;
#pragma unroll
    for (int s = 0; s < kChunkSteps; ++s) {
      const int at = column + s * kStepColumns;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const bool is_valid = has_row[i] && at < p.in_features;
        const uint4 x = is_valid ? *reinterpret_cast<const uint4*>(x_rows[i] + at) : uint4{};
        multiply_step(sums[i], chunk.low[s], chunk.high[s], x);
      }
    }
    chunk = next;
    next.load(low_row, high_row, column + 2 * kWarps * kChunkStepColumns, p.in_features);
  }
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      partial[warp][i * kTileRows + lane % 4 * 2 + e % 2][lane / 4 + e / 2 * 8] = sums[i][e];
    }
  }
  __syncthreads();
  Out* out = static_cast<Out*>(p.out) + blockIdx.y * p.out_batch_stride;
  for (int at = static_cast<int>(threadIdx.x); at < p.rows * kFeatures; at += kWarps * kWarp) {
    const int row = at / kFeatures;
    const int feature = at % kFeatures;
    float sum = 0.0F;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      sum += partial[w][row][feature];
    }
    if (first_feature + feature < p.out_features) {
      out[row * p.out_stride + first_feature + feature] = from_float<Out>(sum);
    }
  }
}

template <int kWarps, int kTiles>
void launch_tiles(const BlasProblem& problem, const FewRows& params, cudaStream_t stream) {
  const dim3 grid{to_grid(ceil_div(problem.out_features, kFeatures)), to_grid(problem.batch)};
  visit_dtype(problem.out_dtype, [&](auto tag) {
    launch_early("linear (few rows)",
                 multiply_few_rows<kWarps, kTiles, decltype(tag)>,
                 {grid, kWarps * kWarp},
                 stream,
                 params);
  });
}

template <int kWarps>
void launch_warps(const BlasProblem& problem, const FewRows& params, cudaStream_t stream) {
  if (problem.rows <= kTileRows) {
    launch_tiles<kWarps, 1>(problem, params, stream);
  } else {
    launch_tiles<kWarps, 2>(problem, params, stream);
  }
}

bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

}  // namespace

bool can_use_few_rows(const BlasProblem& problem) {
  return problem.dtype == DType::kBFloat16 && problem.rows > 0 && problem.rows <= kMaxFewRows &&
         problem.in_features % 8 == 0 && problem.x_stride % 8 == 0 &&
         problem.x_batch_stride % 8 == 0 && is_aligned(problem.x) && is_aligned(problem.weight);
}

void launch_few_rows(const BlasProblem& problem, cudaStream_t stream) {
  const FewRows params{.x = static_cast<const Bf16*>(problem.x),
                       .x_stride = problem.x_stride,
                       .x_batch_stride = problem.x_batch_stride,
                       .weight = static_cast<const Bf16*>(problem.weight),
                       .out = problem.out,
                       .out_stride = problem.out_stride,
                       .out_batch_stride = problem.out_batch_stride,
                       .rows = static_cast<int32_t>(problem.rows),
                       .out_features = static_cast<int32_t>(problem.out_features),
                       .in_features = static_cast<int32_t>(problem.in_features)};
  // Few warps are without a chunk; those add zeros.
  if (problem.in_features <= 2 * kChunkStepColumns) {
    launch_warps<2>(problem, params, stream);
  } else if (problem.in_features <= 4 * kChunkStepColumns) {
    launch_warps<4>(problem, params, stream);
  } else {
    launch_warps<8>(problem, params, stream);
  }
}

}  // namespace tessera::kernels::cuda
