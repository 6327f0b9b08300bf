// Fits what the slices of a layer multiply queries by to the attention's output: gradient descent
// from the keys that a calibration has, kept where it helps on text that it has not seen.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/calibration/attention_samples.h"
#include "engine/calibration/layer_weights.h"
#include "engine/config/model_config.h"
#include "engine/weights/tpla_calibration.h"
#include "kernels/ops/latent_window.h"

namespace tessera {

struct KeyFitOptions {
  int64_t num_slices = 2;
  kernels::LatentWindow window = {};
  int64_t num_steps = 100;
  int64_t num_blocks = 8;  ///< of 16 queries, a step
  /// Of keys in units of their row's root mean square; rises for 20 steps, then falls to 0.
  double step_size = 0.05;
  uint64_t seed = 0;
};

/// Squared error of the attention's output relative to its square, mean over heads, on the samples
/// that were held out.
struct KeyFitResult {
  double error_before = 0.0;
  double error_after = 0.0;
  int64_t num_fitted_heads = 0;
};

/// `layer` is sliced and has keys. Every eighth sample is held out: a head's keys stay as they were
/// unless its error falls there. Needs two samples. Deterministic.
[[nodiscard]] KeyFitResult fit_keys(const ModelConfig& config,
                                    const LayerWeightsOfHeads& weights,
                                    const std::vector<AttentionSample>& samples,
                                    const KeyFitOptions& options,
                                    TplaCalibration::Layer& layer);

}  // namespace tessera
