// All that is known of one layer when its latents are cut: statistics and weights together.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/calibration/latent_basis.h"
#include "engine/calibration/latent_statistics.h"
#include "engine/calibration/layer_weights.h"

namespace tessera {

struct HeadKnowledge {
  Matrix keys;  ///< K [R, dn]: the logit of query q on latent n is (K q).n and the rope part
  Matrix query_moment;        ///< [dn, dn]: E[q q^T], queries weighted by their attention's spread
  double value_weight = 1.0;  ///< how much of the layer's output is this head's, mean 1
  int64_t covariance_group = 0;
};

struct LayerKnowledge {
  std::vector<HeadKnowledge> heads;
  /// By group: E[Cov_a(n)] [R, R], how the latents under a head's attention vary.
  std::vector<Matrix> attention_covariances;
  Matrix latent_covariance;  ///< [R, R] over all tokens
};

[[nodiscard]] LayerKnowledge know_layer(const LatentStatistics& statistics,
                                        LayerWeightsOfHeads weights,
                                        int64_t layer);

/// For bases. PCA knows all tokens alike (as its paper has it); the others the covariance under
/// attention, averaged over heads. Queries: sum_h v_h K_h E[q_h q_h^T] K_h^T, v_h the value weight.
[[nodiscard]] LatentMoments moments_for(BasisKind kind, const LayerKnowledge& layer);

}  // namespace tessera
