// A sliced layer and queries on it with random numbers, for the tests of fits.
#pragma once

#include <vector>

#include "engine/calibration/attention_samples.h"
#include "engine/calibration/layer_weights.h"
#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera::test {

inline FloatMatrix random_floats(int64_t rows, int64_t columns, uint64_t seed) {
  return random_matrix(rows, columns, seed).cast<float>();
}

inline LayerWeightsOfHeads random_weights(const ModelConfig& config, uint64_t seed) {
  LayerWeightsOfHeads weights;
  for (int64_t head = 0; head < config.num_attention_heads; ++head) {
    const uint64_t own = seed + static_cast<uint64_t>(head);
    weights.keys.push_back(random_matrix(config.kv_lora_rank, config.qk_nope_head_dim, own));
    weights.values.push_back(random_matrix(config.kv_lora_rank, config.v_head_dim, own + 100));
    weights.value_weights.push_back(1.0);
  }
  return weights;
}

inline AttentionSample random_sample(const ModelConfig& config,
                                     int64_t num_tokens,
                                     std::vector<int64_t> positions,
                                     uint64_t seed) {
  const auto count = static_cast<int64_t>(positions.size());
  const int64_t query_width = config.num_attention_heads * config.qk_head_dim();
  return {.latents = random_floats(num_tokens, config.kv_lora_rank, seed),
          .rope = random_floats(num_tokens, config.qk_rope_head_dim, seed + 1),
          .queries = 0.3F * random_floats(count, query_width, seed + 2),
          .positions = std::move(positions)};
}

/// Cut in two along a random orthogonal basis, with keys that are off by some noise.
inline TplaCalibration::Layer random_cut(const ModelConfig& config,
                                         const LayerWeightsOfHeads& weights,
                                         int64_t num_shared,
                                         uint64_t seed) {
  const int64_t width = config.kv_lora_rank;
  const FloatMatrix basis = random_orthogonal(width, seed).cast<float>();
  TplaCalibration::Layer layer;
  layer.num_shared = num_shared;
  layer.basis.assign(basis.data(), basis.data() + basis.size());
  const int64_t own = (width - num_shared) / 2;
  for (int64_t slice = 0; slice < 2; ++slice) {
    for (const Matrix& keys : weights.keys) {
      const FloatMatrix all = basis.transpose() * keys.cast<float>();
      FloatMatrix kept(num_shared + own, keys.cols());
      kept << all.topRows(num_shared), all.middleRows(num_shared + slice * own, own);
      kept += 0.2F * random_floats(kept.rows(), kept.cols(), seed + layer.keys.size());
      layer.keys.insert(layer.keys.end(), kept.data(), kept.data() + kept.size());
    }
  }
  return layer;
}

}  // namespace tessera::test
