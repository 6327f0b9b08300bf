#include "engine/config/memory_plan.h"

#include <cstdlib>

#include <gtest/gtest.h>

namespace tessera {
namespace {

constexpr int64_t kGibi = int64_t{1} << 30;

/// The bundled model's numbers.
ModelConfig demo_config() {
  ModelConfig config;
  config.architecture = "DeepseekV3ForCausalLM";
  config.vocab_size = 8192;
  config.hidden_size = 256;
  config.num_hidden_layers = 6;
  config.num_attention_heads = 4;
  config.intermediate_size = 512;
  config.max_position_embeddings = 4096;
  config.tie_word_embeddings = true;
  config.q_lora_rank = 128;
  config.kv_lora_rank = 256;
  config.qk_nope_head_dim = 64;
  config.qk_rope_head_dim = 64;
  config.v_head_dim = 64;
  config.n_routed_experts = 8;
  config.n_shared_experts = 1;
  config.num_experts_per_tok = 2;
  config.moe_intermediate_size = 96;
  config.first_k_dense_replace = 1;
  config.topk_method = TopkMethod::kNoauxTc;
  return config;
}

TEST(MemoryPlanTest, CountsWhatATokenAndABlockTake) {
  const auto plan =
      plan_memory(demo_config(), WorkerConfig{}, CacheShape{}, 2, MemoryBudget{16 * kGibi});
  ASSERT_TRUE(plan.is_ok()) << plan.status().message();
  EXPECT_EQ(plan.value().kv_bytes_per_token, 6 * (256 + 64) * 2);
  EXPECT_EQ(plan.value().bytes_per_block, 6 * (256 + 64) * 2 * 64);
}

TEST(MemoryPlanTest, CountsTheParametersOfTheBundledModel) {
  const auto plan =
      plan_memory(demo_config(), WorkerConfig{}, CacheShape{}, 2, MemoryBudget{16 * kGibi});
  ASSERT_TRUE(plan.is_ok());
  // The sum of the shapes in the header of configs/demo_model/model.safetensors.
  EXPECT_EQ(plan.value().num_parameters, 8085032);
}

TEST(MemoryPlanTest, DefaultCacheHoldsAllSequencesWhenTheyAreSmall) {
  WorkerConfig options;
  options.max_num_seqs = 3;
  options.max_model_len = 65;  // two blocks
  const auto plan = plan_memory(demo_config(), options, CacheShape{}, 2, MemoryBudget{16 * kGibi});
  ASSERT_TRUE(plan.is_ok());
  EXPECT_EQ(plan.value().num_blocks, 6);
}

TEST(MemoryPlanTest, DefaultCacheIsBoundedWhenMemoryIsPlentiful) {
  WorkerConfig options;
  options.max_num_seqs = 4096;
  const auto plan =
      plan_memory(demo_config(), options, CacheShape{}, 2, MemoryBudget{1024 * kGibi});
  ASSERT_TRUE(plan.is_ok());
  EXPECT_LE(plan.value().kv_cache_bytes, 4 * kGibi);
  EXPECT_GT(plan.value().kv_cache_bytes, 3 * kGibi);
}

TEST(MemoryPlanTest, DefaultCacheLeavesHalfOfAScarceMemory) {
  const auto plan =
      plan_memory(demo_config(), WorkerConfig{}, CacheShape{}, 2, MemoryBudget{kGibi});
  ASSERT_TRUE(plan.is_ok());
  EXPECT_LE(plan.value().kv_cache_bytes, kGibi / 2);
  EXPECT_TRUE(plan.value().is_within_memory());
}

TEST(MemoryPlanTest, ContextShrinksToTheCacheUnlessItWasAskedFor) {
  WorkerConfig options;
  options.num_blocks = 2;
  const auto shrunk = plan_memory(demo_config(), options, CacheShape{}, 2, MemoryBudget{kGibi});
  ASSERT_TRUE(shrunk.is_ok());
  EXPECT_EQ(shrunk.value().max_model_len, 128);
  EXPECT_TRUE(shrunk.value().is_context_reduced);

  options.max_model_len = 129;
  EXPECT_EQ(
      plan_memory(demo_config(), options, CacheShape{}, 2, MemoryBudget{kGibi}).status().code(),
      StatusCode::kResourceExhausted);
  options.max_model_len = 128;
  EXPECT_TRUE(plan_memory(demo_config(), options, CacheShape{}, 2, MemoryBudget{kGibi}).is_ok());
}

TEST(MemoryPlanTest, GivenMemorySetsTheBlocks) {
  WorkerConfig options;
  options.kv_cache_memory_bytes = 100 * 6 * (256 + 64) * 2 * 64 + 1;
  const auto plan = plan_memory(demo_config(), options, CacheShape{}, 2, MemoryBudget{kGibi});
  ASSERT_TRUE(plan.is_ok());
  EXPECT_EQ(plan.value().num_blocks, 100);
}

TEST(MemoryPlanTest, WeightsThatDoNotFitAreNamed) {
  const auto plan =
      plan_memory(demo_config(), WorkerConfig{}, CacheShape{}, 2, MemoryBudget{int64_t{8} << 20});
  EXPECT_EQ(plan.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(plan.status().message().find("8.0 MiB"), std::string::npos);
}

TEST(MemoryPlanTest, ContextBeyondTheModelIsRefused) {
  WorkerConfig options;
  options.max_model_len = 4097;
  EXPECT_EQ(
      plan_memory(demo_config(), options, CacheShape{}, 2, MemoryBudget{kGibi}).status().code(),
      StatusCode::kInvalidArgument);
}

TEST(MemoryPlanTest, MachineHasMemory) {
  EXPECT_GT(available_memory_bytes(), int64_t{1} << 20);
}

TEST(MemoryPlanTest, DescriptionNamesTheFigures) {
  WorkerConfig options;
  options.num_blocks = 1000;
  const auto plan = plan_memory(demo_config(), options, CacheShape{}, 2, MemoryBudget{kGibi});
  ASSERT_TRUE(plan.is_ok());
  const std::string text = describe(plan.value(), demo_config());
  for (const char* part : {"3840", "245760", "1000 = 64000 tokens", "4096 tokens"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
}

TEST(MemoryPlanTest, RanksThatRepeatARowCountItEachTime) {
  // Two slices of 128 columns, each beside its own copy of the 64 columns of the rope part.
  const CacheShape cache{.num_ranks = 2, .worker_elements = 6 * 384, .rank_elements = 6 * 192};
  const auto plan = plan_memory(demo_config(), WorkerConfig{}, cache, 2, MemoryBudget{16 * kGibi});
  ASSERT_TRUE(plan.is_ok()) << plan.status().message();
  EXPECT_EQ(plan.value().whole_kv_bytes_per_token, 6 * 320 * 2);
  EXPECT_EQ(plan.value().kv_bytes_per_token, 6 * 384 * 2);
  EXPECT_EQ(plan.value().kv_bytes_per_token_and_rank, 6 * 192 * 2);
  EXPECT_EQ(plan.value().bytes_per_block, 64 * 6 * 384 * 2);
  EXPECT_NE(
      describe(plan.value(), demo_config()).find("2304 (60 % of a replicated cache), 2 ranks"),
      std::string::npos);
}

TEST(MemoryPlanTest, Float8RowsAreCountedByTheirBytes) {
  // A row of 256 + 16 + 128 bytes is as long as 200 numbers in bfloat16.
  WorkerConfig options;
  options.kv_cache_dtype = "fp8_e4m3";
  const CacheShape cache{
      .worker_elements = 6 * 200, .rank_elements = 6 * 200, .whole_elements = 6 * 200};
  const auto plan = plan_memory(demo_config(), options, cache, 2, MemoryBudget{16 * kGibi});
  ASSERT_TRUE(plan.is_ok()) << plan.status().message();
  EXPECT_EQ(plan.value().kv_bytes_per_token, 6 * 400);
  EXPECT_EQ(plan.value().bytes_per_block, 64 * 6 * 400);
  EXPECT_NE(describe(plan.value(), demo_config())
                .find("2400 = 6 layers x 400 (256 latent in float8, scale, 64 rope in bfloat16)"),
            std::string::npos);
}

TEST(MemoryPlanTest, LayersOfUnequalWidthAreCountedExactly) {
  // Slices of 128 of 256 columns, but in one layer 136: 8 more, no multiple of the 6 layers.
  const int64_t rank = 6 * 192 + 8;
  const CacheShape cache{.num_ranks = 2, .worker_elements = 2 * rank, .rank_elements = rank};
  const auto plan = plan_memory(demo_config(), WorkerConfig{}, cache, 2, MemoryBudget{16 * kGibi});
  ASSERT_TRUE(plan.is_ok()) << plan.status().message();
  EXPECT_EQ(plan.value().kv_bytes_per_token_and_rank, (6 * 192 + 8) * 2);
  EXPECT_EQ(plan.value().bytes_per_block, 64 * 2 * (6 * 192 + 8) * 2);
}

TEST(MemoryPlanTest, CountsWhatSlicingAdds) {
  WorkerConfig options;
  options.max_num_seqs = 10;
  options.max_model_len = 640;
  const auto plain = plan_memory(demo_config(), options, CacheShape{}, 2, MemoryBudget{16 * kGibi});
  const CacheShape cache{
      .basis_elements = 1 << 20, .window_key_elements = 1 << 19, .window_elements = 1 << 21};
  const auto plan = plan_memory(demo_config(), options, cache, 2, MemoryBudget{16 * kGibi});
  ASSERT_TRUE(plain.is_ok() && plan.is_ok());
  EXPECT_EQ(plan.value().transform_bytes, (4 << 20) + (1 << 20)) << "bases are float32";
  EXPECT_EQ(plan.value().weight_bytes, plain.value().weight_bytes + (5 << 20));
  EXPECT_EQ(plan.value().window_bytes, 10 * (4 << 20));
  EXPECT_EQ(plan.value().needed_bytes(),
            plan.value().weight_bytes + (40 << 20) + plan.value().kv_cache_bytes);
  const std::string text = describe(plan.value(), demo_config());
  EXPECT_NE(text.find("5.0 MiB of it"), std::string::npos) << text;
  EXPECT_NE(text.find("exact windows       40.0 MiB"), std::string::npos) << text;
  EXPECT_EQ(describe(plain.value(), demo_config()).find("exact windows"), std::string::npos);
}

TEST(MemoryPlanTest, CountsFp8WeightsWhereTheyStaySo) {
  ModelConfig config = demo_config();
  const auto weight_bytes = [&](const MemoryBudget& budget, const CacheShape& cache = {}) {
    return plan_memory(config, WorkerConfig{}, cache, 2, budget).value().weight_bytes;
  };
  const MemoryBudget plain{.available_bytes = 16 * kGibi};
  const MemoryBudget keeping{.available_bytes = 16 * kGibi, .keeps_float8 = true};
  const int64_t bytes = weight_bytes(plain);
  EXPECT_EQ(weight_bytes(keeping), bytes) << "no quantization_config";
  config.quantization = BlockQuantization{};
  EXPECT_EQ(weight_bytes(plain), bytes) << "dequantised";
  // Of the demo model, hidden 256: six attentions of 4 heads of 64 + 64 and 64 with ranks of 128
  // and 256, a dense layer of 512, five of 8 experts and a shared one of 96.
  const int64_t input = 6 * 256 * (128 + 256 + 64);
  const int64_t others = 6 * (128 * 4 * 128 + 256 * 4 * 64) + 3 * 256 * 512 + 5 * 9 * 3 * 256 * 96;
  // Experts of 96 rows are stacked off the blocks: a scale for each row.
  const auto kept = [](int64_t count) { return count + count / 128 * 4; };
  EXPECT_EQ(weight_bytes(keeping), bytes - 2 * (input + others) + kept(input + others));
  EXPECT_EQ(weight_bytes(keeping, CacheShape{.is_rotated = true}),
            bytes - 2 * others + kept(others))
      << "what makes rotated latents is in bfloat16";
  config.moe_intermediate_size = 128;
  const int64_t wider = others + 5 * 9 * 3 * 256 * 32;
  const int64_t saved = input + wider - (input + wider) / (128 * 128) * 4;
  EXPECT_EQ(weight_bytes(plain) - weight_bytes(keeping), saved) << "whole blocks";
  EXPECT_EQ(weight_bytes(plain, CacheShape{.num_ranks = 2}) -
                weight_bytes(keeping, CacheShape{.num_ranks = 2}),
            input + wider - (input + wider) / 128 * 4)
      << "ranks' parts of 64 rows";
  config.moe_intermediate_size = 96;
  config.quantization = BlockQuantization{.block_rows = 64, .block_columns = 64};
  EXPECT_EQ(weight_bytes(keeping), bytes) << "blocks that no backend keeps";
}

TEST(MemoryPlanTest, WindowsThatDoNotFitAreNamed) {
  const CacheShape cache{.window_elements = int64_t{1} << 24};
  const auto plan = plan_memory(demo_config(), WorkerConfig{}, cache, 2, MemoryBudget{kGibi});
  EXPECT_EQ(plan.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(plan.status().message().find("128 sequences 4.0 GiB"), std::string::npos)
      << plan.status().message();
}

TEST(MemoryPlanTest, MemoryForHandoffsIsTakenFromTheCache) {
  WorkerConfig options;
  options.max_num_seqs = 4096;
  const MemoryBudget budget{.available_bytes = 4 * kGibi, .is_exclusive = true};
  const auto without = plan_memory(demo_config(), options, CacheShape{}, 2, budget);
  const CacheShape shape{.handoff_elements = kGibi / 2};
  const auto with = plan_memory(demo_config(), options, shape, 2, budget);
  ASSERT_TRUE(without.is_ok());
  ASSERT_TRUE(with.is_ok());
  EXPECT_EQ(with.value().handoff_bytes, kGibi);
  EXPECT_TRUE(with.value().is_within_memory());
  const int64_t difference = without.value().kv_cache_bytes - with.value().kv_cache_bytes;
  EXPECT_LE(std::abs(difference - kGibi), with.value().bytes_per_block);
  EXPECT_NE(describe(with.value(), demo_config()).find("handoff memory"), std::string::npos);
  EXPECT_EQ(describe(without.value(), demo_config()).find("handoff memory"), std::string::npos);
  const CacheShape too_much{.handoff_elements = 2 * kGibi};
  const auto refused = plan_memory(demo_config(), options, too_much, 2, budget);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("memory for handoffs 4"), std::string::npos);
}

TEST(MemoryPlanTest, TheLongestSequenceLeavesRoomForWhatLandsBesideIt) {
  WorkerConfig options;
  options.num_blocks = 5;
  const CacheShape cache{.landing_blocks = 2};
  const auto shrunk = plan_memory(demo_config(), options, cache, 2, MemoryBudget{kGibi});
  ASSERT_TRUE(shrunk.is_ok());
  EXPECT_EQ(shrunk.value().max_model_len, 3 * 64);
  options.max_model_len = 3 * 64;
  EXPECT_TRUE(plan_memory(demo_config(), options, cache, 2, MemoryBudget{kGibi}).is_ok());
  options.max_model_len = 3 * 64 + 1;
  EXPECT_EQ(plan_memory(demo_config(), options, cache, 2, MemoryBudget{kGibi}).status().code(),
            StatusCode::kResourceExhausted);
  options = {};
  options.num_blocks = 2;
  EXPECT_EQ(plan_memory(demo_config(), options, cache, 2, MemoryBudget{kGibi}).status().code(),
            StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace tessera
