// Grouped products. In bfloat16 with aligned rows on tensor cores, else on the float32 units. A
// block computes one tile of one group's rows; which one, it finds in the offsets, so that the
// launch does not depend on them.

#include <algorithm>

#include "kernels/cuda/grouped_linear.h"
#include "kernels/cuda/grouped_linear_sm90.h"
#include "kernels/cuda/grouped_tiles.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace tessera::kernels::cuda {
namespace {

// --- float32 units: any sizes and strides ---

constexpr int kSimtTile = 64;
constexpr int kSimtDepth = 16;
constexpr int kSimtThreads = 256;
constexpr int kSimtOwn = 4;  ///< a thread computes 4 x 4 results

template <typename T, typename Out>
__global__ void __launch_bounds__(kSimtThreads)
    multiply_simt(const __grid_constant__ GroupedProduct p) {
  wait_for_kernel_before();
  __shared__ float x_tile[kSimtDepth][kSimtTile + 1];
  __shared__ float weight_tile[kSimtDepth][kSimtTile + 1];
  const RowTile tile = find_tile<kSimtTile>(p, static_cast<int>(blockIdx.y));
  if (tile.begin >= tile.end) {
    return;
  }
  const int thread = static_cast<int>(threadIdx.x);
  const int column_begin = static_cast<int>(blockIdx.x) * kSimtTile;
  const T* x = static_cast<const T*>(p.x);
  const T* weight = static_cast<const T*>(p.weight) +
                    static_cast<int64_t>(tile.group) * p.out_features * p.in_features;
  const int own_row = thread / 16 * kSimtOwn;
  const int own_column = thread % 16 * kSimtOwn;
  float sums[kSimtOwn][kSimtOwn] = {};
  for (int depth = 0; depth < p.in_features; depth += kSimtDepth) {
    for (int i = thread; i < kSimtTile * kSimtDepth; i += kSimtThreads) {
      const int k = i % kSimtDepth;
      const int at = i / kSimtDepth;
      const bool has_k = depth + k < p.in_features;
      const int row = tile.begin + at;
      const int column = column_begin + at;
      x_tile[k][at] = has_k && row < tile.end ? to_float(x[row * p.x_stride + depth + k]) : 0.0F;
      weight_tile[k][at] =
          has_k && column < p.out_features
              ? to_float(weight[static_cast<int64_t>(column) * p.in_features + depth + k])
              : 0.0F;
    }
    __syncthreads();
    for (int k = 0; k < kSimtDepth; ++k) {
      for (int i = 0; i < kSimtOwn; ++i) {
        for (int j = 0; j < kSimtOwn; ++j) {
          sums[i][j] += x_tile[k][own_row + i] * weight_tile[k][own_column + j];
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < kSimtOwn; ++i) {
    for (int j = 0; j < kSimtOwn; ++j) {
      const int row = tile.begin + own_row + i;
      const int column = column_begin + own_column + j;
      if (row < tile.end && column < p.out_features) {
        static_cast<Out*>(p.out)[row * p.out_stride + column] = from_float<Out>(sums[i][j]);
      }
    }
  }
}

// --- tensor cores ---

/// kWarpsM x kWarpsN warps, of which each computes 16 * kTilesM rows by 8 * kTilesN columns.
template <int kWarpsM_, int kWarpsN_, int kTilesM_, int kTilesN_, int kStages_>
struct TileShape {
  static constexpr int kWarpsM = kWarpsM_;
  static constexpr int kWarpsN = kWarpsN_;
  static constexpr int kTilesM = kTilesM_;
  static constexpr int kTilesN = kTilesN_;
  static constexpr int kStages = kStages_;
  static constexpr int kThreads = kWarpsM * kWarpsN * kWarp;
  static constexpr int kRows = kWarpsM * kTilesM * 16;
  static constexpr int kColumns = kWarpsN * kTilesN * 8;
  static constexpr int kStageBytes = (kRows + kColumns) * static_cast<int>(kPanelBytes);
  static_assert(kTilesN % 2 == 0, "operand B is loaded for two products at once");
};
/// Few rows a group: a stream of weights.
using SmallTile = TileShape<1, 4, 1, 2, 6>;
/// More rows a group than this are many: from about 12 on, tiles of 16 rows are slower than
/// Hopper's.
constexpr int64_t kManyRows = 8;

/// Copies 64 columns from `depth` on of rows [begin, begin + kRows) to shared memory.
template <int kRows, int kThreads>
__device__ void load_panel(
    unsigned to, const Bf16* from, int64_t stride, int begin, int end, int depth, int width) {
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPanelChunks; i += kThreads) {
    const int row = i / kPanelChunks;
    const int chunk = i % kPanelChunks;
    const int column = depth + chunk * kChunkColumns;
    const bool is_valid = begin + row < end && column < width;
    const Bf16* source = from + (is_valid ? (begin + row) * stride + column : 0);
    copy_async(to + tile_byte(row, 1, chunk), source, is_valid);
  }
}

template <typename Shape, typename Out>
__global__ void __launch_bounds__(Shape::kThreads)
    multiply_tensor(const __grid_constant__ GroupedProduct p) {
  wait_for_kernel_before();
  extern __shared__ __align__(128) char shared[];
  const RowTile tile = find_tile<Shape::kRows>(p, static_cast<int>(blockIdx.y));
  if (tile.begin >= tile.end) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warp_row = warp / Shape::kWarpsN * Shape::kTilesM * 16;
  const int warp_column = warp % Shape::kWarpsN * Shape::kTilesN * 8;
  const int column_begin = static_cast<int>(blockIdx.x) * Shape::kColumns;
  const Bf16* weight = static_cast<const Bf16*>(p.weight) +
                       static_cast<int64_t>(tile.group) * p.out_features * p.in_features;
  const unsigned base = shared_address(shared);
  const int num_panels = (p.in_features + kPanelColumns - 1) / kPanelColumns;
  const auto load_stage = [&](int panel) {
    if (panel < num_panels) {
      const unsigned stage = base + panel % Shape::kStages * Shape::kStageBytes;
      const int depth = panel * kPanelColumns;
      load_panel<Shape::kRows, Shape::kThreads>(stage,
                                                static_cast<const Bf16*>(p.x),
                                                p.x_stride,
                                                tile.begin,
                                                tile.end,
                                                depth,
                                                p.in_features);
      load_panel<Shape::kColumns, Shape::kThreads>(
          stage + Shape::kRows * static_cast<int>(kPanelBytes),
          weight,
          p.in_features,
          column_begin,
          p.out_features,
          depth,
          p.in_features);
    }
    copy_async_commit();
  };
  for (int panel = 0; panel < Shape::kStages - 1; ++panel) {
    load_stage(panel);
  }
  float sums[Shape::kTilesM][Shape::kTilesN][4] = {};
  for (int panel = 0; panel < num_panels; ++panel) {
    copy_async_wait<Shape::kStages - 2>();
    __syncthreads();
    load_stage(panel + Shape::kStages - 1);
    const unsigned x_tile = base + panel % Shape::kStages * Shape::kStageBytes;
    const unsigned weight_tile = x_tile + Shape::kRows * static_cast<int>(kPanelBytes);
#pragma unroll
    for (int chunk = 0; chunk < kPanelChunks; chunk += 2) {
      Fragment4 a[Shape::kTilesM];
#pragma unroll
      for (int i = 0; i < Shape::kTilesM; ++i) {
        a[i] = load_rows(x_tile, 1, warp_row + 16 * i, chunk, lane);
      }
#pragma unroll
      for (int j = 0; j < Shape::kTilesN; j += 2) {
        const Fragment4 b = load_columns(weight_tile, 1, warp_column + 8 * j, chunk, lane);
#pragma unroll
        for (int i = 0; i < Shape::kTilesM; ++i) {
          multiply_add(sums[i][j], a[i], b.r[0], b.r[1]);
          multiply_add(sums[i][j + 1], a[i], b.r[2], b.r[3]);
        }
      }
    }
  }
  const int row_begin = tile.begin + warp_row + lane / 4;
#pragma unroll
  for (int i = 0; i < Shape::kTilesM; ++i) {
#pragma unroll
    for (int j = 0; j < Shape::kTilesN; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = row_begin + 16 * i + e / 2 * 8;
        const int column = column_begin + warp_column + 8 * j + lane % 4 * 2 + e % 2;
        if (row < tile.end && column < p.out_features) {
          static_cast<Out*>(p.out)[row * p.out_stride + column] = from_float<Out>(sums[i][j][e]);
        }
      }
    }
  }
}

template <typename Shape, typename Out>
void launch_tensor(const GroupedProduct& p, cudaStream_t stream) {
  launch_early(
      "grouped_linear",
      multiply_tensor<Shape, Out>,
      {{to_grid(ceil_div(p.out_features, Shape::kColumns)), to_grid(max_tiles(p, Shape::kRows))},
       Shape::kThreads,
       Shape::kStages * Shape::kStageBytes},
      stream,
      p);
}

template <typename T, typename Out>
void launch_simt(const GroupedProduct& p, cudaStream_t stream) {
  launch_early("grouped_linear",
               multiply_simt<T, Out>,
               {{to_grid(ceil_div(p.out_features, kSimtTile)), to_grid(max_tiles(p, kSimtTile))},
                kSimtThreads},
               stream,
               p);
}

bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

}  // namespace

void grouped_product(const GroupedProduct& product, cudaStream_t stream) {
  visit_dtype(product.out_dtype, [&](auto tag) {
    using Out = decltype(tag);
    const bool has_aligned_rows = product.in_features % kChunkColumns == 0 &&
                                  product.x_stride % kChunkColumns == 0 && is_aligned(product.x) &&
                                  is_aligned(product.weight);
    if (product.dtype == DType::kFloat32) {
      launch_simt<float, float>(product, stream);
    } else if (!has_aligned_rows) {
      launch_simt<Bf16, Out>(product, stream);
    } else if (product.rows > kManyRows * product.num_groups && can_use_sm90_grouped(product)) {
      launch_sm90_grouped(product, stream);
    } else {
      launch_tensor<SmallTile, Out>(product, stream);
    }
  });
}

}  // namespace tessera::kernels::cuda
