// Cuts the rows of a grouped product into tiles, on the device: which rows a tile has follows from
// the offsets there.
#pragma once

#include <algorithm>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/grouped_linear.h"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {

/// Rows [begin, end) of a group, at most one tile of them; none when the block has no work.
struct RowTile {
  int group = 0;
  int begin = 0;
  int end = 0;
  int column = 0;  ///< of tiles
};

/// Tile number `tile` of all groups' tiles of kRows rows, or, where tiles have columns, of all
/// these: a group's tiles follow each other, those of the same column first. On every thread of a
/// warp.
template <int kRows>
__device__ RowTile find_tile(const GroupedProduct& p, int tile, int num_columns = 1) {
  const auto tile_at = [&](int group, int begin, int end, int index) -> RowTile {
    const int num_rows = (end - begin + kRows - 1) / kRows;
    const int row = begin + index % num_rows * kRows;
    return {group, row, min(end, row + kRows), index / num_rows};
  };
  if (p.offsets == nullptr) {
    const int rows = static_cast<int>(p.rows);
    const int num_tiles = (rows + kRows - 1) / kRows * num_columns;
    return tile < num_tiles ? tile_at(0, 0, rows, tile) : RowTile{};
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int before = 0;  // tiles of the groups below
  for (int first = 0; first < p.num_groups; first += kWarp) {
    const int group = first + lane;
    const int begin = group < p.num_groups ? p.offsets[group] : 0;
    const int end = group < p.num_groups ? p.offsets[group + 1] : 0;
    const int own = (end - begin + kRows - 1) / kRows * num_columns;
    int sum = own;  // inclusive, over lanes
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const int other = __shfl_up_sync(kAllLanes, sum, offset);
      sum += lane >= offset ? other : 0;
    }
    const unsigned found = __ballot_sync(kAllLanes, tile < before + sum);
    if (found != 0) {
      const int owner = __ffs(static_cast<int>(found)) - 1;
      return tile_at(first + owner,
                     __shfl_sync(kAllLanes, begin, owner),
                     __shfl_sync(kAllLanes, end, owner),
                     tile - (before + __shfl_sync(kAllLanes, sum - own, owner)));
    }
    before += __shfl_sync(kAllLanes, sum, kWarp - 1);
  }
  return {};
}

/// Tiles of `rows` rows that the groups can have together.
[[nodiscard]] inline int64_t max_tiles(const GroupedProduct& p, int64_t tile_rows) {
  if (p.offsets == nullptr) {
    return ceil_div(p.rows, tile_rows);
  }
  return p.rows / tile_rows + std::min<int64_t>(p.num_groups, p.rows);
}

}  // namespace tessera::kernels::cuda
