#include "engine/model/cache_images.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

ModelConfig config_of() {
  ModelConfig config;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 4;
  config.vocab_size = 8;
  config.intermediate_size = 8;
  config.kv_lora_rank = 32;
  config.qk_rope_head_dim = 8;
  return config;
}

TEST(CacheImagesTest, APrefillWorkersImagesAreThoseOfTheDecodeRanks) {
  for (const int64_t slices : {1, 2, 4}) {
    const auto images = prefill_images(config_of(), slices, {}, kernels::DType::kBFloat16);
    ASSERT_EQ(static_cast<int64_t>(images.size()), slices);
    const ShardOptions options{
        .attention = AttentionSharding::kTpla, .num_ranks = 4, .num_slices = slices};
    for (int64_t rank = 0; rank < 4; ++rank) {
      const ShardPlan plan = ShardPlan::create(config_of(), options, rank).value();
      const auto own = rank_images(config_of(), plan, kernels::DType::kBFloat16);
      ASSERT_EQ(own.size(), 1U);
      const LatentShard& image = images[static_cast<size_t>(plan.slice)];
      EXPECT_EQ(own[0].block_bytes(), image.block_bytes());
      EXPECT_EQ(own[0].block_bytes(), 3 * 64 * (32 / slices + 8) * 2);
      for (int64_t layer = 0; layer < 3; ++layer) {
        EXPECT_EQ(own[0].columns(layer), image.columns(layer));
      }
    }
  }
}

TEST(CacheImagesTest, SharedColumnsAreInEveryImage) {
  const std::vector<int64_t> shared = {16, 0, 32};
  const auto images = prefill_images(config_of(), 2, shared, kernels::DType::kFloat32);
  ASSERT_EQ(images.size(), 2U);
  for (int64_t rank = 0; rank < 4; ++rank) {
    const ShardPlan plan = ShardPlan::create(config_of(),
                                             {.attention = AttentionSharding::kTpla,
                                              .num_ranks = 4,
                                              .num_slices = 2,
                                              .shared_columns = shared},
                                             rank)
                               .value();
    const auto own = rank_images(config_of(), plan, kernels::DType::kFloat32);
    const LatentShard& image = images[static_cast<size_t>(rank % 2)];
    // 16 + 8, 0 + 16 and 32 columns, each beside 8 of the rope part.
    EXPECT_EQ(image.block_bytes(), 64 * (32 + 24 + 40) * 4);
    for (int64_t layer = 0; layer < 3; ++layer) {
      EXPECT_EQ(own[0].columns(layer), image.columns(layer)) << "rank " << rank;
    }
  }
  using Ranges = std::vector<kernels::ColumnRange>;
  const auto& ranges = images[1].columns(0).ranges;
  EXPECT_EQ(Ranges(ranges.begin(), ranges.end()), (Ranges{{0, 16}, {24, 8}}));
}

}  // namespace
}  // namespace tessera
