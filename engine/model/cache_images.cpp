#include "engine/model/cache_images.h"

#include <utility>

#include "engine/base/check.h"

namespace tessera {

LatentLayout latent_layout(const ModelConfig& config, kernels::DType dtype) {
  return {.latent_widths = std::vector<int64_t>(static_cast<size_t>(config.num_hidden_layers),
                                                config.kv_lora_rank),
          .rope_width = config.qk_rope_head_dim,
          .dtype = dtype};
}

std::vector<LatentShard> rank_images(const ModelConfig& config,
                                     const ShardPlan& plan,
                                     kernels::DType dtype) {
  std::vector<LatentColumns> columns;
  for (const ShardPlan::Layer& layer : plan.layers) {
    columns.push_back(layer.columns);
  }
  return {LatentShard(latent_layout(config, dtype), columns)};
}

std::vector<LatentShard> prefill_images(const ModelConfig& config,
                                        int64_t num_slices,
                                        const std::vector<int64_t>& shared_columns,
                                        kernels::DType dtype) {
  TESSERA_CHECK(validate_slices(config, num_slices, shared_columns).is_ok(),
                "slices, checked before anything was loaded");
  std::vector<LatentShard> images;
  for (int64_t slice = 0; slice < num_slices; ++slice) {
    std::vector<LatentColumns> columns;
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      const int64_t shared =
          shared_columns.empty() ? 0 : shared_columns[static_cast<size_t>(layer)];
      columns.push_back(ShardPlan::slice_columns(config, shared, slice, num_slices));
    }
    images.emplace_back(latent_layout(config, dtype), std::move(columns));
  }
  return images;
}

}  // namespace tessera
