// Grouped products, 256 rows of a group by 128 columns at a time.
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

constexpr int kBlockRows = 64;  ///< of a wgmma
constexpr int kGroups = 2;      ///< warpgroups that compute
constexpr int kGroupBlocks = 2;
constexpr int kBlocks = kGroups * kGroupBlocks;
constexpr int kRows = kBlocks * kBlockRows;
constexpr int kColumns = 128;
constexpr int kDepth = 64;  ///< columns of x and weight in a panel
constexpr int kStages = 4;
constexpr int kThreads = 128 + kGroups * 128;
constexpr int kRowBytes = kDepth * 2;
constexpr int kBlockBytes = kBlockRows * kRowBytes;
constexpr int kWeightBytes = kColumns * kRowBytes;
constexpr int kPanelBytes = kBlocks * kBlockBytes + kWeightBytes;
constexpr int kBarrierBytes = 1024;
constexpr int kStageRowBytes = 128;  ///< of results on their way out
constexpr int kStageBytes = kBlockRows * kStageRowBytes;
constexpr int kGroupStages = 2;
constexpr int kSharedBytes = kBarrierBytes + kStages * kPanelBytes +
                             kGroups * kGroupStages * kStageBytes + 1024;  // for alignment
constexpr int kSums = kColumns / 2;  ///< a thread's, of a block of rows
static_assert(kSharedBytes <= kMaxSharedBytes);

using Ring = CopyRing<kStages>;
using Sums = float[kGroupBlocks][kSums];

struct GroupedMaps {
  CUtensorMap x;       ///< [1, rows, K], boxes of 64 rows
  CUtensorMap weight;  ///< [groups, N, K], boxes of kColumns
  CUtensorMap out;     ///< [1, rows, bytes of N / 2], boxes of 64 rows
};

__device__ __forceinline__ int num_blocks(const RowTile& tile) {
  return (tile.end - tile.begin + kBlockRows - 1) / kBlockRows;
}

/// Where things lie in shared memory.
struct Places {
  Ring ring;
  volatile RowTile* tiles = nullptr;  ///< that the panel in a slot is of
  uint8_t* stages = nullptr;          ///< results on their way out
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
        const uint32_t to =
            ring.fill(passed, is_end ? 0 : num_blocks(tile) * kBlockBytes + kWeightBytes);
        if (is_end) {
          break;
        }
        const uint32_t full = ring.full_of(passed);
        for (int block = 0; block < num_blocks(tile); ++block) {
          copy_box<kEvictNormal>(to + block * kBlockBytes,
                                 &maps.x,
                                 panel * kDepth,
                                 tile.begin + block * kBlockRows,
                                 0,
                                 full);
        }
        copy_box<kEvictNormal>(to + kBlocks * kBlockBytes,
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

/// A warpgroup's kNum blocks of 64 rows, every other one of the tile's, by 128 columns.
template <int kNum>
__device__ __forceinline__ void multiply(
    Sums& sums, const Ring& ring, int first, int num_panels, int group) {
#pragma unroll
  for (int i = 0; i < kNum; ++i) {
    pin(sums[i]);
  }
  for (int panel = 0; panel < num_panels; ++panel) {
    const uint32_t slot = ring.wait(first + panel);
    const uint64_t a = tile_descriptor(slot + group * kBlockBytes, 0);
    const uint64_t b = tile_descriptor(slot + kBlocks * kBlockBytes, 0);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) {
#pragma unroll
      for (int i = 0; i < kNum; ++i) {
        wgmma_rows(
            sums[i], a + i * (kGroups * kBlockBytes / 16) + k * 2, b + k * 2, panel > 0 || k > 0);
      }
    }
    wgmma_commit();
    if (panel > 0) {
      wgmma_wait<1>();
      ring.release(first + panel - 1);
    }
  }
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < kNum; ++i) {
    pin(sums[i]);
  }
  ring.release(first + num_panels - 1);
}

__device__ __forceinline__ void meet_group(int group) {
  if (group == 0) {
    named_barrier<1, 128>();
  } else {
    named_barrier<2, 128>();
  }
}

__device__ __forceinline__ void store_pair(float* to, float low, float high) {
  *reinterpret_cast<float2*>(to) = make_float2(low, high);
}
__device__ __forceinline__ void store_pair(Bf16* to, float low, float high) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(low, high);
}

/// Writes a warpgroup's results. Thread t has rows 16 (t / 32) + t % 32 / 4 and 8 below, of each
/// group of 8 columns the two at 2 (t % 4).
template <typename Out>
struct Writer {
  static constexpr int kStageColumns = kStageRowBytes / static_cast<int>(sizeof(Out));
  const GroupedMaps& maps;
  const GroupedProduct& p;
  uint8_t* stages;  ///< this group's, in shared memory
  int group;
  int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  int lane_column = static_cast<int>(threadIdx.x) % 4 * 2;

  /// All 64 rows, by the copy engine, from rows of 128 bytes in shared memory in turns.
  __device__ __forceinline__ void write_block(const float (&sums)[kSums],
                                              int first_row,
                                              int first_column) const {
    const bool is_leader = threadIdx.x % 128 == 0;
#pragma unroll
    for (int part = 0; part < kColumns / kStageColumns; ++part) {
      uint8_t* stage = stages + part % kGroupStages * kStageBytes;
      if (is_leader) {
        store_wait<kGroupStages - 1>();
      }
      meet_group(group);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int at = row + 8 * r;
#pragma unroll
        for (int i = 0; i < kStageColumns / 2; i += 4) {
          const int byte = (i * 2 + lane_column) * static_cast<int>(sizeof(Out));
          const int sum = part * kStageColumns / 2 + i + 2 * r;
          store_pair(reinterpret_cast<Out*>(stage + at * kStageRowBytes +
                                            ((byte / 16) ^ (at % 8)) * 16 + byte % 16),
                     sums[sum],
                     sums[sum + 1]);
        }
      }
      fence_async_proxy();
      meet_group(group);
      if (is_leader) {
        store_box(&maps.out,
                  shared_address(stage),
                  (first_column + part * kStageColumns) * static_cast<int>(sizeof(Out) / 2),
                  first_row,
                  0);
        store_commit();
      }
    }
  }

  /// Some of the rows: those behind belong to the next group.
  __device__ __forceinline__ void write_rows(const float (&sums)[kSums],
                                             int first_row,
                                             int end,
                                             int first_column) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int at = first_row + row + 8 * r;
      if (at >= end) {
        continue;
      }
      const int column = first_column + lane_column;
      Out* out = static_cast<Out*>(p.out) + at * p.out_stride + column;
#pragma unroll
      for (int i = 0; i < kSums; i += 4) {
        if (column + i * 2 < p.out_features) {
          store_pair(out + i * 2, sums[i + 2 * r], sums[i + 2 * r + 1]);
        }
      }
    }
  }
};

/// By a warp. Only the lane reads that gives the slot back for all of them: so each read is ordered
/// before the next tile's write by a thread of its own.
__device__ __forceinline__ RowTile read_announced(const volatile RowTile& announced) {
  RowTile tile;
  if (threadIdx.x % kWarp == 0) {
    tile.group = announced.group;
    tile.begin = announced.begin;
    tile.end = announced.end;
    tile.column = announced.column;
  }
  return {__shfl_sync(kAllLanes, tile.group, 0),
          __shfl_sync(kAllLanes, tile.begin, 0),
          __shfl_sync(kAllLanes, tile.end, 0),
          __shfl_sync(kAllLanes, tile.column, 0)};
}

/// A warpgroup.
template <typename Out>
__device__ __forceinline__ void consume(const GroupedMaps& maps,
                                        const GroupedProduct& p,
                                        const Places& places) {
  const Ring& ring = places.ring;
  const int group = static_cast<int>(threadIdx.x) / 128 - 1;
  const int num_panels = (p.in_features + kDepth - 1) / kDepth;
  const Writer<Out> writer{maps, p, places.stages + group * kGroupStages * kStageBytes, group};
  for (int passed = 0;; passed += num_panels) {
    ring.wait(passed);
    const RowTile tile = read_announced(places.tiles[passed % kStages]);
    if (tile.begin >= tile.end) {
      break;
    }
    Sums sums;
    const int num = (num_blocks(tile) - group + 1) / kGroups;  // of this group's blocks
    if (num == 2) {
      multiply<2>(sums, ring, passed, num_panels, group);
    } else if (num == 1) {
      multiply<1>(sums, ring, passed, num_panels, group);
    } else {
      for (int panel = 0; panel < num_panels; ++panel) {
        ring.wait(passed + panel);
        ring.release(passed + panel);
      }
    }
#pragma unroll
    for (int i = 0; i < kGroupBlocks; ++i) {
      const int row = tile.begin + (i * kGroups + group) * kBlockRows;
      if (row + kBlockRows <= tile.end) {
        writer.write_block(sums[i], row, tile.column * kColumns);
      } else if (i < num) {
        writer.write_rows(sums[i], row, tile.end, tile.column * kColumns);
      }
    }
  }
  store_wait<0>();
}

template <typename Out>
__global__ void __launch_bounds__(kThreads, 1)
    multiply_sm90(const __grid_constant__ GroupedMaps maps,
                  const __grid_constant__ GroupedProduct p) {
  extern __shared__ uint8_t raw[];
  uint8_t* shared = sm90::align_tiles(raw);
  const uint32_t base = shared_address(shared);
  const Places places{{base, base + 64, base + kBarrierBytes, kPanelBytes},
                      reinterpret_cast<RowTile*>(shared + 128),
                      shared + kBarrierBytes + kStages * kPanelBytes};
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&maps.x);
    prefetch_tensor_map(&maps.weight);
    prefetch_tensor_map(&maps.out);
    places.ring.init_barriers(kGroups * 4);
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
    consume<Out>(maps, p, places);
  }
}

GroupedMaps make_maps(const GroupedProduct& p) {
  const int64_t width = p.in_features;
  // The copy engine only moves bytes: results of either type are written as bfloat16.
  const int64_t halves = dtype_bytes(p.out_dtype) / dtype_bytes(DType::kBFloat16);
  return {
      .x = make_tensor_map({.base = p.x,
                            .size = {width, p.rows, 1},
                            .stride = {p.x_stride, p.x_stride},
                            .box = {kBlockRows, 1}}),
      .weight = make_tensor_map({.base = p.weight,
                                 .size = {width, p.out_features, p.num_groups},
                                 .stride = {width, width * p.out_features},
                                 .box = {kColumns, 1}}),
      .out = make_tensor_map({.base = p.out,
                              .size = {p.out_features * halves, p.rows, 1},
                              .stride = {p.out_stride * halves, p.out_stride * halves},
                              .box = {kBlockRows, 1}}),
  };
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
  const int64_t halves = dtype_bytes(p.out_dtype) / dtype_bytes(DType::kBFloat16);
  return p.dtype == DType::kBFloat16 && is_copy_aligned(p.x) && is_copy_aligned(p.x_stride) &&
         is_copy_aligned(p.weight) && is_copy_aligned(int64_t{p.in_features}) &&
         is_copy_aligned(p.out) && is_copy_aligned(p.out_stride * halves) &&
         p.out_features % 2 == 0;
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
