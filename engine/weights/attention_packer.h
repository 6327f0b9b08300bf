// One rank's part of a layer's attention weights, the latent transform folded in.
#pragma once

#include <cstdint>

#include "engine/config/model_config.h"
#include "engine/weights/model_weights.h"
#include "engine/weights/tpla_transform.h"
#include "engine/weights/weight_loader.h"
#include "engine/weights/weight_packer.h"

namespace tessera {

/// What decides a rank's weights; all outlive the packing.
struct ShardContext {
  const ModelConfig& config;
  const ShardPlan& plan;
  const TplaTransform& transform;
  AttentionForms forms = AttentionForms::kBoth;
};

[[nodiscard]] AttentionWeights pack_attention(const ShardContext& shard,
                                              int64_t layer,
                                              WeightPacker& packer);

}  // namespace tessera
