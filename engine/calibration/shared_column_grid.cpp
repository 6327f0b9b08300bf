#include "engine/calibration/shared_column_grid.h"

#include <algorithm>

namespace tessera {

std::vector<int64_t> shared_column_grid(int64_t width, int64_t num_slices) {
  const int64_t unit = 4 * num_slices;
  std::vector<int64_t> grid;
  int64_t step = 1;
  for (int64_t count = 0; count * unit < width; count += step) {
    grid.push_back(count * unit);
    if (count == 6 * step) {  // 0 to 6, 8, 10, 12, 16, 20, 24, 32, ...
      step *= 2;
    }
  }
  grid.push_back(width);
  return grid;
}

int64_t row_elements(const ModelConfig& config, int64_t num_slices, int64_t num_shared) noexcept {
  return num_shared + (config.kv_lora_rank - num_shared) / num_slices + config.qk_rope_head_dim;
}

}  // namespace tessera
