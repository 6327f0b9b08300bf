// As few_rows_linear.cu, for weights in float8: a block is 16 output features of one group and up
// to 16 of its rows; its warps share the blocks of 128 input features among them. A thread's 16
// adjacent bytes are its part of four products. The sum over a block of columns is multiplied by
// the block's scale and added up.

#include "kernels/cuda/float8_math.cuh"
#include "kernels/cuda/grouped_tiles.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kFeatures = 16;
constexpr int kTileRows = 8;
constexpr int kBlock = static_cast<int>(kScaleBlock);
/// Input features of a step: four threads of 16 each.
constexpr int kStepColumns = 64;
constexpr int kBlockSteps = kBlock / kStepColumns;
/// Blocks of columns whose loads a warp has under way.
constexpr int kAhead = 2;
constexpr int kMaxWarps = 8;

/// 16 bytes that nobody reads again on this multiprocessor.
__device__ inline uint4 load_once(const uint8_t* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

/// Where a thread's two features are.
struct WeightRows {
  const uint8_t* low;
  const float* low_scales;
  int to_high;        ///< from a number of the low feature to that of the high one
  int to_high_scale;  ///< likewise
  int first_column;   ///< this thread's, of block 0; may be negative
  int end;            ///< columns
  int num_blocks;
};

/// A warp's part of a block of columns: rows g and g + 8 of its 16.
struct WeightBlock {
  uint4 low[kBlockSteps];
  uint4 high[kBlockSteps];
  float low_scale;
  float high_scale;

  /// Beyond the last block and outside of the columns are zeros.
  __device__ __forceinline__ void load(const WeightRows& rows, int block) {
    const bool is_valid = block < rows.num_blocks;
    low_scale = is_valid ? rows.low_scales[block] : 0.0F;
    high_scale = is_valid ? rows.low_scales[block + rows.to_high_scale] : 0.0F;
#pragma unroll
    for (int s = 0; s < kBlockSteps; ++s) {
      const int at = rows.first_column + block * kBlock + s * kStepColumns;
      const bool is_inside = at >= 0 && at < rows.end;
      low[s] = is_inside ? load_once(rows.low + at) : uint4{};
      high[s] = is_inside ? load_once(rows.low + at + rows.to_high) : uint4{};
    }
  }
};

__device__ __forceinline__ void multiply_word(
    float (&sums)[4], const Bf16Quad& low, const Bf16Quad& high, unsigned x0, unsigned x1) {
  multiply_add(sums, Fragment4{{low.low, high.low, low.high, high.high}}, x0, x1);
}

/// Where a thread's rows of x are.
template <int kTiles>
struct InputRows {
  const Bf16* first;    ///< of the tile
  int offsets[kTiles];  ///< negative: no such row
};

/// sums += scale * (16 columns a thread of every step times the rows of x).
template <int kTiles>
__device__ __forceinline__ void multiply_block(float (&sums)[kTiles][4],
                                               const WeightBlock& block,
                                               const InputRows<kTiles>& x_rows,
                                               int first_column,
                                               int end) {
  float parts[kTiles][4] = {};
#pragma unroll
  for (int s = 0; s < kBlockSteps; ++s) {
    const int at = first_column + s * kStepColumns;
    const bool is_inside = at >= 0 && at < end;
    const unsigned low_words[4] = {block.low[s].x, block.low[s].y, block.low[s].z, block.low[s].w};
    const unsigned high_words[4] = {
        block.high[s].x, block.high[s].y, block.high[s].z, block.high[s].w};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 x[kTiles];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const bool is_valid = is_inside && x_rows.offsets[i] >= 0;
        const Bf16* from = x_rows.first + x_rows.offsets[i] + at + half * 8;
        x[i] = is_valid ? *reinterpret_cast<const uint4*>(from) : uint4{};
      }
      const Bf16Quad low0 = to_bf16(low_words[half * 2]);
      const Bf16Quad high0 = to_bf16(high_words[half * 2]);
      const Bf16Quad low1 = to_bf16(low_words[half * 2 + 1]);
      const Bf16Quad high1 = to_bf16(high_words[half * 2 + 1]);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        multiply_word(parts[i], low0, high0, x[i].x, x[i].y);
        multiply_word(parts[i], low1, high1, x[i].z, x[i].w);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      sums[i][e] += parts[i][e] * (e < 2 ? block.low_scale : block.high_scale);
    }
  }
}

/// kTiles tiles of eight rows. Without groups all rows are one tile.
template <int kWarps, int kTiles, bool kHasGroups, typename Out>
__global__ void __launch_bounds__(kWarps* kWarp, kMaxWarps / kWarps * 2)
    multiply_few_float8(const __grid_constant__ Float8Product p) {
  __shared__ float partial[kWarps][kTiles * kTileRows][kFeatures];
  const GroupedProduct& product = p.product;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first_feature = static_cast<int>(blockIdx.x) * kFeatures;
  const int last = product.out_features - 1;
  RowTile tile{0, 0, static_cast<int>(product.rows), 0};
  if constexpr (kHasGroups) {
    wait_for_kernel_before();
    tile = find_tile<kTiles * kTileRows>(product, static_cast<int>(blockIdx.y));
    if (tile.begin >= tile.end) {
      return;
    }
  }
  // Features beyond the last are computed from the last's weights and not stored.
  const int low_feature = min(first_feature + lane / 4, last);
  const int high_feature = min(first_feature + lane / 4 + kFeatures / 2, last);
  const WeightRows rows{
      weights_of(p, tile.group, low_feature),
      scales_of(p, tile.group, low_feature),
      (high_feature - low_feature) * product.in_features,
      ((high_feature >> p.scale_shift) - (low_feature >> p.scale_shift)) * p.scale_stride,
      lane % 4 * 16 - p.first_column,
      product.in_features,
      num_scale_blocks(p)};
  WeightBlock ring[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    ring[i].load(rows, warp + i * kWarps);
  }
  if constexpr (!kHasGroups) {
    wait_for_kernel_before();
  }

  InputRows<kTiles> x_rows;
  x_rows.first = static_cast<const Bf16*>(product.x) + tile.begin * product.x_stride;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int row = i * kTileRows + lane / 4;
    x_rows.offsets[i] = tile.begin + row < tile.end ? row * static_cast<int>(product.x_stride) : -1;
  }
  float sums[kTiles][4] = {};
  for (int block = warp; block < rows.num_blocks; block += kAhead * kWarps) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int own = block + i * kWarps;
      multiply_block<kTiles>(
          sums, ring[i], x_rows, rows.first_column + own * kBlock, product.in_features);
      ring[i].load(rows, own + kAhead * kWarps);
    }
  }
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      partial[warp][i * kTileRows + lane % 4 * 2 + e % 2][lane / 4 + e / 2 * 8] = sums[i][e];
    }
  }
  __syncthreads();
  const int num_rows = tile.end - tile.begin;
  Out* out = static_cast<Out*>(product.out) + tile.begin * product.out_stride + first_feature;
  for (int at = static_cast<int>(threadIdx.x); at < num_rows * kFeatures; at += kWarps * kWarp) {
    const int row = at / kFeatures;
    const int feature = at % kFeatures;
    float sum = 0.0F;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      sum += partial[w][row][feature];
    }
    if (first_feature + feature <= last) {
      out[row * product.out_stride + feature] = from_float<Out>(sum);
    }
  }
}

template <int kWarps, int kTiles>
void launch_tiles(const Float8Product& p, cudaStream_t stream) {
  const unsigned num_features = to_grid(ceil_div(p.product.out_features, kFeatures));
  visit_dtype(p.product.out_dtype, [&](auto tag) {
    using Out = decltype(tag);
    if (p.product.offsets == nullptr) {
      launch_early("linear (few rows, float8)",
                   multiply_few_float8<kWarps, kTiles, false, Out>,
                   {num_features, kWarps * kWarp},
                   stream,
                   p);
    } else {
      const unsigned num_tiles = to_grid(max_tiles(p.product, kTiles * kTileRows));
      launch_early("grouped_linear (few rows, float8)",
                   multiply_few_float8<kWarps, kTiles, true, Out>,
                   {{num_features, num_tiles}, kWarps * kWarp},
                   stream,
                   p);
    }
  });
}

template <int kWarps>
void launch_warps(const Float8Product& p, cudaStream_t stream) {
  // Of groups half a tile on average: so most groups' weights are read once.
  const int64_t tile_rows = p.product.offsets == nullptr ? kTileRows : kTileRows / 2;
  if (p.product.rows <= tile_rows * p.product.num_groups) {
    launch_tiles<kWarps, 1>(p, stream);
  } else {
    launch_tiles<kWarps, 2>(p, stream);
  }
}

}  // namespace

void launch_float8_few_rows(const Float8Product& p, cudaStream_t stream) {
  // Every warp has a block at least.
  const int64_t num_blocks = ceil_div(p.first_column + p.product.in_features, kBlock);
  if (num_blocks <= 3) {
    launch_warps<2>(p, stream);
  } else if (num_blocks <= 7) {
    launch_warps<4>(p, stream);
  } else {
    launch_warps<8>(p, stream);
  }
}

}  // namespace tessera::kernels::cuda
