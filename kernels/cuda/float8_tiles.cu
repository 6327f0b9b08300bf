// Products with float8 weights by tiles in shared memory. A tile is some features of one group and
// some of its rows; a stage of the ring holds 128 columns of both, as they are in memory. Weights
// are operand A of the tensor cores, rows of x operand B; the order of a sum's terms is free, so
// that a thread's 16 adjacent columns are its part of four products. Chunks of 16 bytes are
// swizzled so that the 8 threads that read together find 8 different banks of 16 bytes: they are
// two adjacent rows' 4.

#include "kernels/cuda/float8_math.cuh"
#include "kernels/cuda/grouped_tiles.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kBlock = static_cast<int>(kScaleBlock);
constexpr int kWeightChunks = kBlock / 16;
constexpr int kRowChunks = kBlock / 8;
constexpr int kStepColumns = 64;

/// kWarpsF x kWarpsR warps, of which each computes 16 * kTilesF features by 8 * kTilesR rows.
template <int kWarpsF_, int kWarpsR_, int kTilesF_, int kTilesR_, int kStages_, int kBlocks_>
struct Float8Tile {
  static constexpr int kWarpsF = kWarpsF_;
  static constexpr int kTilesF = kTilesF_;
  static constexpr int kTilesR = kTilesR_;
  static constexpr int kStages = kStages_;
  static constexpr int kBlocks = kBlocks_;  ///< on a multiprocessor
  static constexpr int kThreads = kWarpsF_ * kWarpsR_ * kWarp;
  static constexpr int kFeatures = kWarpsF_ * kTilesF_ * 16;
  static constexpr int kRows = kWarpsR_ * kTilesR_ * 8;
  static constexpr int kWeightBytes = kFeatures * kBlock;
  static constexpr int kStageBytes = kWeightBytes + kRows * kBlock * 2;
  static constexpr int kSharedBytes = kStages_ * kStageBytes;
  static_assert(kSharedBytes <= kMaxSharedBytes);
};
using Narrow = Float8Tile<4, 2, 1, 4, 4, 2>;
using Wide = Float8Tile<4, 2, 2, 8, 4, 1>;
/// More rows a group than this take wide tiles.
constexpr int64_t kWideRows = 64;

__device__ __forceinline__ unsigned weight_byte(int feature, int chunk) {
  return static_cast<unsigned>(feature * kBlock + (chunk ^ ((feature & 1) * 4)) * 16);
}
__device__ __forceinline__ unsigned row_byte(int row, int chunk) {
  return static_cast<unsigned>(row * kBlock * 2 + (chunk ^ (row & 1)) * 16);
}
__device__ __forceinline__ uint4 load_shared(unsigned address) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(address)
               : "memory");
  return value;
}

/// Copies block `block` of columns of the tile's features and rows; zeros where there are none.
template <typename Shape>
__device__ __forceinline__ void load_stage(
    unsigned stage, const Float8Product& p, const RowTile& tile, int first_feature, int block) {
  const GroupedProduct& product = p.product;
  const int first_column = block * kBlock - p.first_column;
  const auto* weights = static_cast<const uint8_t*>(product.weight);
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kFeatures * kWeightChunks;
       i += Shape::kThreads) {
    const int feature = i / kWeightChunks;
    const int chunk = i % kWeightChunks;
    const int column = first_column + chunk * 16;
    const bool is_valid = first_feature + feature < product.out_features && column >= 0 &&
                          column < product.in_features;
    const uint8_t* from =
        is_valid ? weights_of(p, tile.group, first_feature + feature) + column : weights;
    copy_async(stage + weight_byte(feature, chunk), from, is_valid);
  }
  const auto* x = static_cast<const Bf16*>(product.x);
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kRows * kRowChunks; i += Shape::kThreads) {
    const int row = i / kRowChunks;
    const int chunk = i % kRowChunks;
    const int column = first_column + chunk * 8;
    const bool is_valid =
        tile.begin + row < tile.end && column >= 0 && column < product.in_features;
    const Bf16* from = x + (is_valid ? (tile.begin + row) * product.x_stride + column : 0);
    copy_async(stage + Shape::kWeightBytes + row_byte(row, chunk), from, is_valid);
  }
}

template <typename Shape>
using TileSums = float[Shape::kTilesF][Shape::kTilesR][4];

/// A warp's features and rows of one stage, without the scales.
template <typename Shape>
__device__ __forceinline__ void multiply_stage(
    TileSums<Shape>& parts, unsigned stage, int warp_feature, int warp_row, int lane) {
#pragma unroll 1  // two steps' operands are more than a thread has registers for
  for (int s = 0; s < kBlock / kStepColumns; ++s) {
    Fragment4 a[Shape::kTilesF][4];
#pragma unroll
    for (int f = 0; f < Shape::kTilesF; ++f) {
      const int feature = warp_feature + f * 16 + lane / 4;
      const uint4 low = load_shared(stage + weight_byte(feature, s * 4 + lane % 4));
      const uint4 high = load_shared(stage + weight_byte(feature + 8, s * 4 + lane % 4));
      const unsigned low_words[4] = {low.x, low.y, low.z, low.w};
      const unsigned high_words[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const Bf16Quad l = to_bf16(low_words[j]);
        const Bf16Quad h = to_bf16(high_words[j]);
        a[f][j] = {{l.low, h.low, l.high, h.high}};
      }
    }
#pragma unroll
    for (int r = 0; r < Shape::kTilesR; ++r) {
      const int row = warp_row + r * 8 + lane / 4;
      const int chunk = s * 8 + lane % 4 * 2;
      const unsigned rows = stage + Shape::kWeightBytes;
      const uint4 first = load_shared(rows + row_byte(row, chunk));
      const uint4 second = load_shared(rows + row_byte(row, chunk + 1));
#pragma unroll
      for (int f = 0; f < Shape::kTilesF; ++f) {
        multiply_add(parts[f][r], a[f][0], first.x, first.y);
        multiply_add(parts[f][r], a[f][1], first.z, first.w);
        multiply_add(parts[f][r], a[f][2], second.x, second.y);
        multiply_add(parts[f][r], a[f][3], second.z, second.w);
      }
    }
  }
}

template <typename Shape, typename Out>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    multiply_tiles_float8(const __grid_constant__ Float8Product p) {
  wait_for_kernel_before();
  extern __shared__ __align__(128) char shared[];
  const GroupedProduct& product = p.product;
  const RowTile tile = find_tile<Shape::kRows>(product, static_cast<int>(blockIdx.y));
  if (tile.begin >= tile.end) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warp_feature = warp % Shape::kWarpsF * Shape::kTilesF * 16;
  const int warp_row = warp / Shape::kWarpsF * Shape::kTilesR * 8;
  const int first_feature = static_cast<int>(blockIdx.x) * Shape::kFeatures;
  const int num_blocks = num_scale_blocks(p);
  const unsigned base = shared_address(shared);
  const auto fill = [&](int block) {
    if (block < num_blocks) {
      load_stage<Shape>(
          base + block % Shape::kStages * Shape::kStageBytes, p, tile, first_feature, block);
    }
    copy_async_commit();
  };
  for (int block = 0; block < Shape::kStages - 1; ++block) {
    fill(block);
  }
  const float* group_scales = scales_of(p, tile.group, 0);
  int scale_rows[Shape::kTilesF][2];
#pragma unroll
  for (int f = 0; f < Shape::kTilesF; ++f) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int feature = first_feature + warp_feature + f * 16 + h * 8 + lane / 4;
      scale_rows[f][h] = (min(feature, product.out_features - 1) >> p.scale_shift) * p.scale_stride;
    }
  }
  TileSums<Shape> sums = {};
  for (int block = 0; block < num_blocks; ++block) {
    float scales[Shape::kTilesF][2];
#pragma unroll
    for (int f = 0; f < Shape::kTilesF; ++f) {
      scales[f][0] = group_scales[scale_rows[f][0] + block];
      scales[f][1] = group_scales[scale_rows[f][1] + block];
    }
    copy_async_wait<Shape::kStages - 2>();
    __syncthreads();
    fill(block + Shape::kStages - 1);
    TileSums<Shape> parts = {};
    multiply_stage<Shape>(
        parts, base + block % Shape::kStages * Shape::kStageBytes, warp_feature, warp_row, lane);
#pragma unroll
    for (int f = 0; f < Shape::kTilesF; ++f) {
#pragma unroll
      for (int r = 0; r < Shape::kTilesR; ++r) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums[f][r][e] += parts[f][r][e] * scales[f][e / 2];
        }
      }
    }
  }
#pragma unroll
  for (int f = 0; f < Shape::kTilesF; ++f) {
#pragma unroll
    for (int r = 0; r < Shape::kTilesR; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = tile.begin + warp_row + r * 8 + lane % 4 * 2 + e % 2;
        const int feature = first_feature + warp_feature + f * 16 + e / 2 * 8 + lane / 4;
        if (row < tile.end && feature < product.out_features) {
          static_cast<Out*>(product.out)[row * product.out_stride + feature] =
              from_float<Out>(sums[f][r][e]);
        }
      }
    }
  }
}

template <typename Shape>
void launch_shape(const Float8Product& p, cudaStream_t stream) {
  const LaunchShape shape{{to_grid(ceil_div(p.product.out_features, Shape::kFeatures)),
                           to_grid(max_tiles(p.product, Shape::kRows))},
                          Shape::kThreads,
                          Shape::kSharedBytes};
  visit_dtype(p.product.out_dtype, [&](auto tag) {
    launch_early("linear (float8)", multiply_tiles_float8<Shape, decltype(tag)>, shape, stream, p);
  });
}

// --- any sizes and strides: a thread a result ---

constexpr int kSimtThreads = 128;

template <typename Out>
__global__ void __launch_bounds__(kSimtThreads)
    multiply_simt_float8(const __grid_constant__ Float8Product p) {
  wait_for_kernel_before();
  const GroupedProduct& product = p.product;
  const RowTile tile = find_tile<1>(product, static_cast<int>(blockIdx.x));
  const int feature = static_cast<int>(blockIdx.y) * kSimtThreads + static_cast<int>(threadIdx.x);
  if (tile.begin >= tile.end || feature >= product.out_features) {
    return;
  }
  const auto* x = static_cast<const Bf16*>(product.x) + tile.begin * product.x_stride;
  const uint8_t* weights = weights_of(p, tile.group, feature);
  const float* scales = scales_of(p, tile.group, feature);
  float sum = 0.0F;
  for (int k = 0; k < product.in_features; ++k) {
    sum += to_float(x[k]) * (float8_to_float(weights[k]) * scales[(p.first_column + k) / kBlock]);
  }
  static_cast<Out*>(product.out)[tile.begin * product.out_stride + feature] = from_float<Out>(sum);
}

bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

/// Up to so many rows a group go without shared memory.
constexpr int64_t kFewRows = 16;
/// Of groups, on average: those with more take several tiles.
constexpr int64_t kFewGroupRows = 8;

}  // namespace

Float8Product float8_product(const CudaLinearWeight& weight,
                             int64_t group,
                             const GroupedProduct& product) {
  const LinearShape& shape = weight.shape();
  Float8Product result{.product = product,
                       .scales = weight.scales(group),
                       .group_scales = weight.group_scales(),
                       .scale_stride = static_cast<int32_t>(weight.scale_stride()),
                       .scale_shift = shape.scales->rows == kScaleBlock ? 7 : 0,
                       .first_column = static_cast<int32_t>(shape.scales->first_column)};
  result.product.weight = weight.group(group);
  result.product.out_features = static_cast<int32_t>(shape.out_features);
  result.product.in_features = static_cast<int32_t>(shape.in_features);
  return result;
}

bool can_use_float8_tiles(const Float8Product& p) {
  return p.product.in_features % 16 == 0 && p.first_column % 16 == 0 &&
         p.product.x_stride % 8 == 0 && is_aligned(p.product.x) && is_aligned(p.product.weight);
}

void launch_float8_tiles(const Float8Product& p, cudaStream_t stream) {
  if (p.product.rows > kWideRows * p.product.num_groups) {
    launch_shape<Wide>(p, stream);
  } else {
    launch_shape<Narrow>(p, stream);
  }
}

void launch_float8_simt(const Float8Product& p, cudaStream_t stream) {
  const LaunchShape shape{
      {to_grid(max_tiles(p.product, 1)), to_grid(ceil_div(p.product.out_features, kSimtThreads))},
      kSimtThreads};
  visit_dtype(p.product.out_dtype, [&](auto tag) {
    launch_early(
        "linear (float8, any size)", multiply_simt_float8<decltype(tag)>, shape, stream, p);
  });
}

void multiply_float8(const Float8Product& p, cudaStream_t stream) {
  const int64_t few =
      p.product.offsets == nullptr ? kFewRows : kFewGroupRows * p.product.num_groups;
  if (!can_use_float8_tiles(p)) {
    launch_float8_simt(p, stream);
  } else if (p.product.rows <= few) {
    launch_float8_few_rows(p, stream);
  } else {
    launch_float8_tiles(p, stream);
  }
}

}  // namespace tessera::kernels::cuda
