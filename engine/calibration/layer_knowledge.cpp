#include "engine/calibration/layer_knowledge.h"

#include <utility>

namespace tessera {

LayerKnowledge know_layer(const LatentStatistics& statistics,
                          LayerWeightsOfHeads weights,
                          int64_t layer) {
  LayerKnowledge known;
  const auto num_heads = static_cast<int64_t>(weights.keys.size());
  for (int64_t head = 0; head < num_heads; ++head) {
    const auto index = static_cast<size_t>(head);
    known.heads.push_back({.keys = std::move(weights.keys[index]),
                           .query_moment = statistics.query_moment(layer, head),
                           .value_weight = weights.value_weights[index],
                           .covariance_group = head / statistics.heads_per_group()});
    if (head % statistics.heads_per_group() == 0) {
      known.attention_covariances.push_back(statistics.attention_covariance(layer, head));
    }
  }
  known.latent_covariance = statistics.latent_covariance(layer);
  return known;
}

LatentMoments moments_for(BasisKind kind, const LayerKnowledge& layer) {
  const int64_t width = layer.latent_covariance.rows();
  LatentMoments moments{.covariance = layer.latent_covariance, .query = Matrix::Zero(width, width)};
  if (kind != BasisKind::kPca) {
    moments.covariance.setZero();
  }
  const auto num_heads = static_cast<double>(layer.heads.size());
  for (const HeadKnowledge& head : layer.heads) {
    moments.query += head.value_weight * head.keys * head.query_moment * head.keys.transpose();
    if (kind != BasisKind::kPca) {
      moments.covariance +=
          layer.attention_covariances[static_cast<size_t>(head.covariance_group)] / num_heads;
    }
  }
  return moments;
}

}  // namespace tessera
