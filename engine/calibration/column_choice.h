// How many columns of every layer are shared, within a budget of bytes that an exact window takes
// its part of. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "kernels/ops/latent_window.h"

namespace tessera {

/// One number of shared columns of one layer.
struct ColumnCandidate {
  int64_t num_shared = 0;
  double logit_error = 0.0;  ///< CutLayer::logit_error
};

/// What is known of a layer: candidates by rising columns, the first without any, the last with
/// all.
struct LayerCandidates {
  std::vector<ColumnCandidate> columns;
  double plain_harm = 0.0;  ///< measured, of the first
};

/// Bytes of a context of 1,024 tokens as a multiple of those without shared columns and window.
struct ColumnBudget {
  int64_t num_slices = 2;
  kernels::LatentWindow window = {};
  double ratio = 1.15;
};

struct ChosenColumns {
  int64_t num_shared = 0;
  double harm = 0.0;         ///< predicted: plain_harm times the ratio of the logit errors
  double bytes_ratio = 1.0;  ///< of the layer
};

struct ColumnChoice {
  std::vector<ChosenColumns> layers;
  double bytes_ratio = 1.0;  ///< of all
};

/// What a window adds to every token of one sliced layer, in elements, in a context of 1,024.
[[nodiscard]] double window_elements(const ModelConfig& config,
                                     const kernels::LatentWindow& window) noexcept;
/// Of all layers sliced with that window and without shared columns: the least ratio that has room
/// for it.
[[nodiscard]] double least_budget(const ModelConfig& config,
                                  int64_t num_slices,
                                  const kernels::LatentWindow& window) noexcept;

/// Whether there is room for the window. Errors: INVALID_ARGUMENT naming both ratios.
[[nodiscard]] Status check_budget(const ModelConfig& config, const ColumnBudget& budget);

/// The least sum of harms within the budget. Errors: those of check_budget().
[[nodiscard]] Result<ColumnChoice> choose_columns(const ModelConfig& config,
                                                  const std::vector<LayerCandidates>& layers,
                                                  const ColumnBudget& budget);

}  // namespace tessera
