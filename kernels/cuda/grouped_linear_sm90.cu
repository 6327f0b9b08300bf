// Grouped products, 128 rows of a group by 256 columns at a time.
//
// Thread blocks are persistent and take every gridDim.x-th tile; which rows that is they find in
// the offsets. One warp feeds a ring of panels, 64 columns of x and of the weight, with the bulk
// tensor copy engine, also ahead into the next tile; two warpgroups multiply 64 rows each. Boxes of
// x may reach into the next group's rows: their results are not written.

#include "kernels/cuda/copy_ring.cuh"
#include "kernels/cuda/grouped_linear_sm90.h"
#include "kernels/cuda/grouped_tiles.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.h"

namespace tessera::kernels::cuda {
namespace {

using namespace sm90;  // NOLINT: instructions

constexpr int kGroupRows = 64;  ///< of a warpgroup
constexpr int kRows = 2 * kGroupRows;
constexpr int kColumns = 256;
constexpr int kDepth = 64;  ///< columns of x and weight in a panel
constexpr int kStages = 4;
constexpr int kThreads = 384;
constexpr int kRowBytes = kDepth * 2;
constexpr int kPanelBytes = (kRows + kColumns) * kRowBytes;
constexpr int kBarrierBytes = 1024;
constexpr int kSharedBytes = kBarrierBytes + kStages * kPanelBytes + 1024;  // for alignment
constexpr int kSums = kColumns / 2;                                         ///< a thread's
static_assert(kSharedBytes <= kMaxSharedBytes);

using Ring = CopyRing<kStages>;

struct GroupedMaps {
  CUtensorMap x;       ///< [1, rows, K], boxes of kRows
  CUtensorMap weight;  ///< [groups, N, K], boxes of kColumns
};

/// Results of a tile, the columns from `column` on.
struct Tile {
  RowTile rows;
  int column = 0;

  __device__ __forceinline__ bool is_empty() const { return rows.begin >= rows.end; }
};

/// The tiles of one block of rows follow each other: they share x, and the group's weights stay in
/// the L2 cache for its next rows. By whole warps.
__device__ __forceinline__ Tile tile_of(const GroupedProduct& p, int number) {
  const int num_columns = (p.out_features + kColumns - 1) / kColumns;
  return {find_tile<kRows>(p, number / num_columns), number % num_columns * kColumns};
}

/// One warp.
__device__ __forceinline__ void produce(const GroupedMaps& maps,
                                        const GroupedProduct& p,
                                        const Ring& ring) {
  const int num_panels = (p.in_features + kDepth - 1) / kDepth;
  int passed = 0;
  for (int number = static_cast<int>(blockIdx.x);; number += static_cast<int>(gridDim.x)) {
    const Tile tile = tile_of(p, number);
    if (tile.is_empty()) {
      return;
    }
    if (threadIdx.x == 0) {
      for (int panel = 0; panel < num_panels; ++panel) {
        const uint32_t to = ring.claim(passed + panel);
        const uint32_t full = ring.full_of(passed + panel);
        copy_box<kEvictNormal>(to, &maps.x, panel * kDepth, tile.rows.begin, 0, full);
        copy_box<kEvictNormal>(to + kRows * kRowBytes,
                               &maps.weight,
                               panel * kDepth,
                               tile.column,
                               tile.rows.group,
                               full);
      }
    }
    passed += num_panels;
    __syncwarp();
  }
}

/// A warpgroup's 64 rows by 256 columns: thread t has rows 16 (t / 32) + t % 32 / 4 and 8 below, of
/// each group of 8 columns the two at 2 (t % 4).
__device__ __forceinline__ void multiply(
    float (&sums)[kSums], const Ring& ring, int first, int num_panels, int group) {
  pin(sums);
  for (int panel = 0; panel < num_panels; ++panel) {
    const uint32_t slot = ring.wait(first + panel);
    const uint64_t a = tile_descriptor(slot + group * kGroupRows * kRowBytes, 0);
    const uint64_t b = tile_descriptor(slot + kRows * kRowBytes, 0);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) {
      wgmma_rows(sums, a + k * 2, b + k * 2, panel > 0 || k > 0);
    }
    wgmma_commit();
    if (panel > 0) {
      wgmma_wait<1>();
      ring.release(first + panel - 1);
    }
  }
  wgmma_wait<0>();
  pin(sums);
  ring.release(first + num_panels - 1);
}

__device__ __forceinline__ void store_pair(float* to, float low, float high) {
  *reinterpret_cast<float2*>(to) = make_float2(low, high);
}
__device__ __forceinline__ void store_pair(Bf16* to, float low, float high) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(low, high);
}

template <typename Out>
__device__ __forceinline__ void store(const GroupedProduct& p,
                                      const float (&sums)[kSums],
                                      const Tile& tile,
                                      int row) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row + 8 * r >= tile.rows.end) {
      continue;
    }
    const int column = tile.column + static_cast<int>(threadIdx.x) % 4 * 2;
    Out* out = static_cast<Out*>(p.out) + (row + 8 * r) * p.out_stride + column;
#pragma unroll
    for (int i = 0; i < kSums; i += 4) {
      if (column + i * 2 < p.out_features) {
        store_pair(out + i * 2, sums[i + 2 * r], sums[i + 2 * r + 1]);
      }
    }
  }
}

/// A warpgroup.
template <typename Out>
__device__ __forceinline__ void consume(const GroupedProduct& p, const Ring& ring) {
  const int group = static_cast<int>(threadIdx.x) / 128 - 1;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int own_row = group * kGroupRows + thread / 32 * 16 + thread % 32 / 4;
  const int num_panels = (p.in_features + kDepth - 1) / kDepth;
  int passed = 0;
  for (int number = static_cast<int>(blockIdx.x);; number += static_cast<int>(gridDim.x)) {
    const Tile tile = tile_of(p, number);
    if (tile.is_empty()) {
      return;
    }
    if (tile.rows.begin + group * kGroupRows < tile.rows.end) {
      float sums[kSums];
      multiply(sums, ring, passed, num_panels, group);
      store<Out>(p, sums, tile, tile.rows.begin + own_row);
    } else {
      for (int panel = 0; panel < num_panels; ++panel) {
        ring.wait(passed + panel);
        ring.release(passed + panel);
      }
    }
    passed += num_panels;
  }
}

template <typename Out>
__global__ void __launch_bounds__(kThreads, 1)
    multiply_sm90(const __grid_constant__ GroupedMaps maps,
                  const __grid_constant__ GroupedProduct p) {
  extern __shared__ uint8_t raw[];
  const uint32_t base = (shared_address(raw) + 1023U) & ~1023U;
  const Ring ring{base, base + 64, base + kBarrierBytes, kPanelBytes};
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&maps.x);
    prefetch_tensor_map(&maps.weight);
    ring.init_barriers(8);
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x < kWarp) {
      produce(maps, p, ring);
    }
  } else {
    take_registers<232>();
    consume<Out>(p, ring);
  }
}

GroupedMaps make_maps(const GroupedProduct& p) {
  const int64_t width = p.in_features;
  return {.x = make_tensor_map({.base = p.x,
                                .size = {width, p.rows, 1},
                                .stride = {p.x_stride, p.x_stride},
                                .box = {kRows, 1}}),
          .weight = make_tensor_map({.base = p.weight,
                                     .size = {width, p.out_features, p.num_groups},
                                     .stride = {width, width * p.out_features},
                                     .box = {kColumns, 1}})};
}

int num_multiprocessors() {
  int device = 0;
  int count = 0;
  TESSERA_CUDA(cudaGetDevice(&device));
  TESSERA_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

}  // namespace

bool can_use_sm90_grouped(const GroupedProduct& p) {
  const int64_t pair_bytes = 2 * dtype_bytes(p.out_dtype);
  return p.dtype == DType::kBFloat16 && is_copy_aligned(p.x) && is_copy_aligned(p.x_stride) &&
         is_copy_aligned(p.weight) && is_copy_aligned(int64_t{p.in_features}) &&
         p.out_features % 2 == 0 && p.out_stride % 2 == 0 &&
         reinterpret_cast<uintptr_t>(p.out) % static_cast<uintptr_t>(pair_bytes) == 0;
}

void launch_sm90_grouped(const GroupedProduct& p, cudaStream_t stream) {
  const int64_t num_tiles = max_tiles(p, kRows) * ceil_div(p.out_features, kColumns);
  visit_dtype(p.out_dtype, [&](auto tag) {
    launch("grouped_linear (sm90)",
           multiply_sm90<decltype(tag)>,
           {to_grid(std::min<int64_t>(num_tiles, num_multiprocessors())), kThreads, kSharedBytes},
           stream,
           make_maps(p),
           p);
  });
}

}  // namespace tessera::kernels::cuda
