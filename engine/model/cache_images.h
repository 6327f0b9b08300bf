// Which images the cache of a worker consists of.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/cache/latent_layout.h"
#include "engine/config/model_config.h"
#include "engine/weights/shard_plan.h"
#include "kernels/core/dtype.h"

namespace tessera {

/// Of the whole model.
[[nodiscard]] LatentLayout latent_layout(const ModelConfig& config, kernels::DType dtype);

/// The one image that a rank of `plan` keeps: its columns of every layer.
[[nodiscard]] std::vector<LatentShard> rank_images(const ModelConfig& config,
                                                   const ShardPlan& plan,
                                                   kernels::DType dtype);

/// The images of a prefill worker: all columns in one (FULL, 1 slice), or slices 0 to g - 1, each
/// as a decode rank of `num_slices` slices and so many shared columns a layer (empty: none) keeps
/// it (COLS): validate_slices() accepts them. Shared columns are in every image.
[[nodiscard]] std::vector<LatentShard> prefill_images(const ModelConfig& config,
                                                      int64_t num_slices,
                                                      const std::vector<int64_t>& shared_columns,
                                                      kernels::DType dtype);

}  // namespace tessera
