// Grouped products, 128 rows of a group by 256 columns at a time.
//
// Thread blocks are persistent and take the next tile when they are done with one; which rows that
// is they find in the offsets. Tiles that share weights follow each other, so that these are read
// while they are in the L2 cache: with every n-th tile for a block, blocks drift apart, and twice
// as much memory is read. One warp feeds a ring of panels, 64 columns of x and of the weight, with
// the bulk tensor copy engine, also ahead into the next tile; two warpgroups multiply 64 rows each.
// Boxes of x may reach into the next group's rows: their results are not written.

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

/// Where things lie in shared memory.
struct Places {
  Ring ring;
  volatile RowTile* tiles = nullptr;  ///< that the panel in a slot is of
};

/// One warp. An empty tile ends the work.
__device__ __forceinline__ void produce(const GroupedMaps& maps,
                                        const GroupedProduct& p,
                                        const Places& places) {
  const Ring& ring = places.ring;
  const int num_panels = (p.in_features + kDepth - 1) / kDepth;
  const int num_columns = (p.out_features + kColumns - 1) / kColumns;
  int number = static_cast<int>(blockIdx.x);
  int passed = 0;
  while (true) {
    const RowTile tile = find_tile<kRows>(p, number, num_columns);
    const bool is_end = tile.begin >= tile.end;
    if (threadIdx.x == 0) {
      number = static_cast<int>(gridDim.x) + atomicAdd(p.next_tile, 1);
      for (int panel = 0; panel < (is_end ? 1 : num_panels); ++panel, ++passed) {
        ring.wait_free(passed);
        volatile RowTile& announced = places.tiles[passed % kStages];
        announced.group = tile.group;
        announced.begin = tile.begin;
        announced.end = tile.end;
        announced.column = tile.column;
        const uint32_t to = ring.fill(passed, is_end ? 0 : kPanelBytes);
        if (is_end) {
          break;
        }
        const uint32_t full = ring.full_of(passed);
        copy_box<kEvictNormal>(to, &maps.x, panel * kDepth, tile.begin, 0, full);
        copy_box<kEvictNormal>(to + kRows * kRowBytes,
                               &maps.weight,
                               panel * kDepth,
                               tile.column * kColumns,
                               tile.group,
                               full);
      }
    }
    if (is_end) {
      return;
    }
    number = __shfl_sync(kAllLanes, number, 0);
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
                                      const RowTile& tile,
                                      int row) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row + 8 * r >= tile.end) {
      continue;
    }
    const int column = tile.column * kColumns + static_cast<int>(threadIdx.x) % 4 * 2;
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
__device__ __forceinline__ void consume(const GroupedProduct& p, const Places& places) {
  const Ring& ring = places.ring;
  const int group = static_cast<int>(threadIdx.x) / 128 - 1;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int own_row = group * kGroupRows + thread / 32 * 16 + thread % 32 / 4;
  const int num_panels = (p.in_features + kDepth - 1) / kDepth;
  for (int passed = 0;; passed += num_panels) {
    ring.wait(passed);
    const volatile RowTile& announced = places.tiles[passed % kStages];
    const RowTile tile = {announced.group, announced.begin, announced.end, announced.column};
    if (tile.begin >= tile.end) {
      return;
    }
    if (tile.begin + group * kGroupRows < tile.end) {
      float sums[kSums];
      multiply(sums, ring, passed, num_panels, group);
      store<Out>(p, sums, tile, tile.begin + own_row);
    } else {
      for (int panel = 0; panel < num_panels; ++panel) {
        ring.wait(passed + panel);
        ring.release(passed + panel);
      }
    }
  }
}

template <typename Out>
__global__ void __launch_bounds__(kThreads, 1)
    multiply_sm90(const __grid_constant__ GroupedMaps maps,
                  const __grid_constant__ GroupedProduct p) {
  extern __shared__ uint8_t raw[];
  uint8_t* shared =
      reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  const uint32_t base = shared_address(shared);
  const Places places{{base, base + 64, base + kBarrierBytes, kPanelBytes},
                      reinterpret_cast<RowTile*>(shared + 128)};
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&maps.x);
    prefetch_tensor_map(&maps.weight);
    places.ring.init_barriers(8);
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x < kWarp) {
      produce(maps, p, places);
    }
  } else {
    take_registers<232>();
    consume<Out>(p, places);
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
  TESSERA_CUDA(cudaMemsetAsync(p.next_tile, 0, sizeof(*p.next_tile), stream));
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
