// A layer's keys as calibration needs them: in the space of n, the latent without its norm's
// weight.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/calibration/latent_basis.h"
#include "engine/calibration/latent_statistics.h"
#include "engine/config/model_config.h"
#include "engine/weights/tensor_source.h"

namespace tessera {

/// K_h = diag(gamma) W_UK_h^T [R, dn] of every head: a query q of head h matches a latent n with
/// (K_h q).n.
using HeadKeys = std::vector<Matrix>;

/// Gamma, the weight of the latents' norm, [R].
[[nodiscard]] std::vector<float> read_latent_norm(TensorSource& source, int64_t layer);
[[nodiscard]] HeadKeys read_head_keys(const ModelConfig& config,
                                      TensorSource& source,
                                      int64_t layer);

/// The layer's latent covariance, and E[q q^T] of its absorbed queries, summed over heads:
/// sum_h K_h E[q_h q_h^T] K_h^T.
[[nodiscard]] LatentMoments latent_moments(const LatentStatistics& statistics,
                                           const HeadKeys& keys,
                                           int64_t layer);

}  // namespace tessera
