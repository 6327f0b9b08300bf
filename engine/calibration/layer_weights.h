// A layer's keys and values as calibration needs them: in the space of n, the latent without its
// norm's weight.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/calibration/linear_algebra.h"
#include "engine/config/model_config.h"
#include "engine/weights/tensor_source.h"

namespace tessera {

struct LayerWeightsOfHeads {
  /// K_h = diag(gamma) W_UK_h^T [R, dn] of every head: a query q of head h matches a latent n with
  /// (K_h q).n.
  std::vector<Matrix> keys;
  /// diag(gamma) W_UV_h^T [R, dv]: what a latent n adds to the head's output, times its attention.
  std::vector<Matrix> values;
  /// Mean square, over all latents of unit length, of what head h adds to the residual stream:
  /// |W_O_h W_UV_h diag(gamma)|^2 / R, relative to the mean over heads.
  std::vector<double> value_weights;
};

/// Gamma, the weight of the latents' norm, [R].
[[nodiscard]] std::vector<float> read_latent_norm(TensorSource& source, int64_t layer);
[[nodiscard]] LayerWeightsOfHeads read_head_weights(const ModelConfig& config,
                                                    TensorSource& source,
                                                    int64_t layer);

}  // namespace tessera
