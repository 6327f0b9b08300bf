// Which numbers of shared columns are tried, and what they cost. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/config/model_config.h"

namespace tessera {

/// From 0 to R, finer where it is small: all that slices of `num_slices` can have (multiples of 4
/// columns a slice).
[[nodiscard]] std::vector<int64_t> shared_column_grid(int64_t width, int64_t num_slices);

/// Elements of a token that a rank keeps of one layer: s + (R - s) / g + dr.
[[nodiscard]] int64_t row_elements(const ModelConfig& config,
                                   int64_t num_slices,
                                   int64_t num_shared) noexcept;

}  // namespace tessera
