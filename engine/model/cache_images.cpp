#include "engine/model/cache_images.h"

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
  for (const IndexRange& range : plan.latent_columns) {
    columns.push_back({range.begin, range.end});
  }
  return {LatentShard(latent_layout(config, dtype), columns)};
}

std::vector<LatentShard> prefill_images(const ModelConfig& config,
                                        int64_t num_slices,
                                        kernels::DType dtype) {
  TESSERA_CHECK(num_slices >= 1 && config.kv_lora_rank % num_slices == 0,
                "slices of one width, checked by validate_sharding");
  const int64_t width = config.kv_lora_rank / num_slices;
  std::vector<LatentShard> images;
  for (int64_t slice = 0; slice < num_slices; ++slice) {
    images.emplace_back(
        latent_layout(config, dtype),
        std::vector<LatentColumns>(static_cast<size_t>(config.num_hidden_layers),
                                   LatentColumns{slice * width, (slice + 1) * width}));
  }
  return images;
}

}  // namespace tessera
