#include "engine/weights/shard_plan.h"

#include <numeric>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tessera {
namespace {

using kernels::LatentColumns;
using ::testing::HasSubstr;

/// DeepSeek-V2-Lite's sizes, one dense and one MoE layer.
ModelConfig lite_config() {
  ModelConfig config;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 16;
  config.kv_lora_rank = 512;
  config.intermediate_size = 1001;
  config.vocab_size = 1003;
  config.n_routed_experts = 10;
  config.n_shared_experts = 2;
  config.moe_intermediate_size = 100;
  config.first_k_dense_replace = 1;
  return config;
}

/// begin, begin + 1, ..., end - 1.
std::vector<int64_t> numbers(int64_t begin, int64_t end) {
  std::vector<int64_t> values(static_cast<size_t>(end - begin));
  std::iota(values.begin(), values.end(), begin);
  return values;
}

/// The latent's columns in the order of a cache row.
std::vector<int64_t> columns_of(const ShardPlan::Layer& layer) {
  std::vector<int64_t> columns;
  for (const auto& range : layer.columns.ranges) {
    for (int64_t i = 0; i < range.count; ++i) {
      columns.push_back(range.begin + i);
    }
  }
  return columns;
}

ShardPlan plan_of(const ShardOptions& options, int64_t rank) {
  return ShardPlan::create(lite_config(), options, rank).value();
}

std::string fault_of(const ModelConfig& config, const ShardOptions& options) {
  const Status status = validate_sharding(config, options);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  return status.message();
}

TEST(ShardPlanTest, OneRankHoldsEverything) {
  const ShardPlan plan = plan_of({}, 0);
  ASSERT_EQ(plan.layers.size(), 2U);
  EXPECT_EQ(plan.layer(0).decode_heads, (IndexRange{0, 16}));
  EXPECT_EQ(plan.own_heads, (IndexRange{0, 16}));
  EXPECT_EQ(plan.layer(1).columns, LatentColumns::all(512));
  EXPECT_EQ(plan.experts, (IndexRange{0, 10}));
  EXPECT_EQ(plan.vocabulary, (IndexRange{0, 1003}));
  EXPECT_EQ(plan.inner_features(1001), (IndexRange{0, 1001}));
  EXPECT_EQ(plan.attention_group_size(), 1);
}

TEST(ShardPlanTest, ReplicatedSplitsHeadsAndKeepsLatents) {
  const ShardPlan plan = plan_of({.attention = AttentionSharding::kReplicated, .num_ranks = 4}, 2);
  EXPECT_EQ(plan.layer(0).decode_heads, (IndexRange{8, 12}));
  EXPECT_EQ(plan.own_heads, (IndexRange{8, 12}));
  EXPECT_EQ(plan.layer(1).columns, LatentColumns::all(512));
  EXPECT_EQ(plan.attention_group_size(), 1);
}

TEST(ShardPlanTest, TplaGivesEachRankASliceOfItsHeadGroup) {
  const ShardOptions options{
      .attention = AttentionSharding::kTpla, .num_ranks = 8, .num_slices = 2};
  const ShardPlan plan = plan_of(options, 5);
  EXPECT_EQ(plan.slice, 1);
  EXPECT_EQ(plan.head_group, 2);
  EXPECT_EQ(plan.layer(0).decode_heads, (IndexRange{8, 12}));  // 16 heads in 4 groups
  EXPECT_EQ(plan.own_heads, (IndexRange{10, 12}));
  EXPECT_EQ(columns_of(plan.layer(0)), numbers(256, 512));
  EXPECT_EQ(plan.layer(0).group_size, 2);
  EXPECT_EQ(plan.attention_group_size(), 2);
}

TEST(ShardPlanTest, SharedColumnsAreOnEveryRank) {
  ModelConfig config = lite_config();
  config.kv_lora_rank = 48;
  const ShardOptions options{.attention = AttentionSharding::kTpla,
                             .num_ranks = 4,
                             .num_slices = 2,
                             .shared_columns = {16, 0}};
  for (int64_t rank = 0; rank < 4; ++rank) {
    const ShardPlan plan = ShardPlan::create(config, options, rank).value();
    const ShardPlan::Layer& layer = plan.layer(0);
    EXPECT_EQ(layer.num_shared, 16);
    EXPECT_EQ(layer.columns.width(), 16 + 16);
    std::vector<int64_t> expected = numbers(0, 16);  // then its 16 of the rest
    for (const int64_t column : rank % 2 == 0 ? numbers(16, 32) : numbers(32, 48)) {
      expected.push_back(column);
    }
    EXPECT_EQ(columns_of(layer), expected) << "rank " << rank;
    EXPECT_EQ(plan.layer(1).columns.width(), 24);
    EXPECT_EQ(plan.layer(1).num_shared, 0);
  }
}

TEST(ShardPlanTest, ALayerThatSharesEverythingIsReplicated) {
  const ShardOptions options{.attention = AttentionSharding::kTpla,
                             .num_ranks = 4,
                             .num_slices = 2,
                             .shared_columns = {512, 0}};
  const ShardPlan plan = plan_of(options, 3);
  const ShardPlan replicated = plan_of({.num_ranks = 4}, 3);
  EXPECT_EQ(plan.layer(0).columns, replicated.layer(0).columns);
  EXPECT_EQ(plan.layer(0).decode_heads, replicated.layer(0).decode_heads);
  EXPECT_EQ(plan.layer(0).group_size, 1);
  EXPECT_EQ(plan.layer(1).decode_heads, (IndexRange{8, 16}));
  EXPECT_EQ(plan.layer(1).group_size, 2);
  EXPECT_EQ(plan.attention_group_size(), 2);
  ShardOptions all = options;
  all.shared_columns = {512, 512};
  EXPECT_EQ(plan_of(all, 3).attention_group_size(), 1);
}

TEST(ShardPlanTest, ReportsSharedColumnsThatCannotBe) {
  const auto fault = [](const std::vector<int64_t>& shared) {
    return fault_of(lite_config(),
                    {.attention = AttentionSharding::kTpla,
                     .num_ranks = 4,
                     .num_slices = 4,
                     .shared_columns = shared});
  };
  EXPECT_THAT(fault({16}), HasSubstr("shared columns of 1 layers, expected num_hidden_layers 2"));
  const std::string text = fault({-16, 24});
  EXPECT_THAT(text, HasSubstr("layer 0: -16 shared columns, expected 0 to kv_lora_rank 512"));
  EXPECT_THAT(text,
              HasSubstr("layer 1: 24 shared columns are not a multiple of 16 (num_slices 4 times"));
  EXPECT_THAT(text, HasSubstr("layer 1: 24 shared columns leave 488 of kv_lora_rank 512, not a"));
  EXPECT_THAT(fault({0, 528}), HasSubstr("layer 1: 528 shared columns, expected 0 to"));
  EXPECT_THAT(fault_of(lite_config(), {.num_ranks = 2, .shared_columns = {0, 0}}),
              HasSubstr("shared columns with attention sharding replicated of 1 slices"));
}

TEST(ShardPlanTest, AWindowIsOfLayersThatAreSliced) {
  const kernels::LatentWindow window{.num_first = 4, .num_last = 16};
  const ShardPlan plan = plan_of({.attention = AttentionSharding::kTpla,
                                  .num_ranks = 4,
                                  .num_slices = 2,
                                  .shared_columns = {512, 0},
                                  .window = window},
                                 3);
  EXPECT_EQ(plan.window, window);
  EXPECT_EQ(plan.sliced_layers(), (std::vector<bool>{false, true}));
  const ShardPlan striped = plan_of({.attention = AttentionSharding::kDcp, .num_ranks = 4}, 3);
  EXPECT_EQ(striped.sliced_layers(), (std::vector<bool>{false, false}));
}

TEST(ShardPlanTest, ReportsAWindowThatCannotBe) {
  const kernels::LatentWindow window{.num_first = 4, .num_last = 16};
  const ModelConfig config = lite_config();
  EXPECT_THAT(fault_of(config, {.num_ranks = 2, .window = window}),
              HasSubstr("an exact window of 4+16 tokens with attention sharding replicated of 1"));
  EXPECT_THAT(
      fault_of(config, {.attention = AttentionSharding::kTpla, .num_ranks = 2, .window = window}),
      HasSubstr("with attention sharding tpla of 1 slices, expected tpla of 2 or more"));
  ShardOptions sliced{.attention = AttentionSharding::kTpla, .num_ranks = 2, .num_slices = 2};
  sliced.window = {.num_first = -1, .num_last = 1};
  EXPECT_THAT(fault_of(config, sliced),
              HasSubstr("-1+1 tokens (first and last), expected 0 to 16384"));
  sliced.window = {.num_first = 0, .num_last = 16385};
  EXPECT_THAT(fault_of(config, sliced), HasSubstr("0+16385 tokens"));
}

TEST(ShardPlanTest, DcpComputesAllHeads) {
  const ShardPlan plan = plan_of({.attention = AttentionSharding::kDcp, .num_ranks = 4}, 3);
  EXPECT_EQ(plan.layer(0).decode_heads, (IndexRange{0, 16}));
  EXPECT_EQ(plan.own_heads, (IndexRange{12, 16}));
  EXPECT_EQ(plan.layer(0).columns, LatentColumns::all(512));
  EXPECT_EQ(plan.attention_group_size(), 4);
}

TEST(ShardPlanTest, PartsTileWithoutGapWhenTheyDoNotDivide) {
  for (const int64_t num_ranks : {2, 4}) {
    int64_t experts = 0;
    int64_t vocabulary = 0;
    int64_t inner = 0;
    for (int64_t rank = 0; rank < num_ranks; ++rank) {
      const ShardPlan plan = plan_of({.num_ranks = num_ranks}, rank);
      EXPECT_EQ(plan.experts.begin, experts);
      EXPECT_EQ(plan.vocabulary.begin, vocabulary);
      EXPECT_EQ(plan.inner_features(1001).begin, inner);
      EXPECT_GT(plan.experts.size(), 0);
      experts = plan.experts.end;
      vocabulary = plan.vocabulary.end;
      inner = plan.inner_features(1001).end;
    }
    EXPECT_EQ(experts, 10);
    EXPECT_EQ(vocabulary, 1003);
    EXPECT_EQ(inner, 1001);
  }
}

TEST(ShardPlanTest, OwnHeadsAreAMembersPartOfTheSubgroupsHeads) {
  // What reduce_scatter_heads delivers to member m of the subgroup.
  for (const auto attention :
       {AttentionSharding::kReplicated, AttentionSharding::kTpla, AttentionSharding::kDcp}) {
    const int64_t slices = attention == AttentionSharding::kTpla ? 4 : 1;
    for (int64_t rank = 0; rank < 8; ++rank) {
      const ShardPlan plan =
          plan_of({.attention = attention, .num_ranks = 8, .num_slices = slices}, rank);
      const int64_t member = rank % plan.attention_group_size();
      const IndexRange& decode_heads = plan.layer(1).decode_heads;
      EXPECT_EQ(plan.own_heads.begin, decode_heads.begin + member * plan.own_heads.size());
      EXPECT_EQ(decode_heads.size(), plan.layer(1).group_size * plan.own_heads.size());
      EXPECT_EQ(plan.layer(1).group_size, plan.attention_group_size());
    }
  }
}

TEST(ShardPlanTest, ReportsEveryFaultWithBothValues) {
  const std::string text = fault_of(
      lite_config(), {.attention = AttentionSharding::kTpla, .num_ranks = 11, .num_slices = 3});
  EXPECT_THAT(text, HasSubstr("num_attention_heads 16 is not divisible by num_ranks 11"));
  EXPECT_THAT(text, HasSubstr("num_ranks 11 is not divisible by num_slices 3"));
  EXPECT_THAT(text, HasSubstr("kv_lora_rank 512 is not divisible by num_slices 3"));
  EXPECT_THAT(text, HasSubstr("n_routed_experts 10 is less than num_ranks 11"));
}

TEST(ShardPlanTest, ReportsSlicesThatAreTooNarrow) {
  ModelConfig config = lite_config();
  config.kv_lora_rank = 12;
  EXPECT_THAT(
      fault_of(config, {.attention = AttentionSharding::kTpla, .num_ranks = 2, .num_slices = 2}),
      HasSubstr("kv_lora_rank 12 / num_slices 2 = 6 columns is not a multiple of 4"));
}

TEST(ShardPlanTest, ReportsSlicesWithoutTpla) {
  EXPECT_THAT(fault_of(lite_config(),
                       {.attention = AttentionSharding::kDcp, .num_ranks = 2, .num_slices = 2}),
              HasSubstr("num_slices is 2, expected 1 with attention sharding dcp"));
}

TEST(ShardPlanTest, ReportsCountsAndRanksOutOfRange) {
  EXPECT_THAT(fault_of(lite_config(), {.num_ranks = 0}), HasSubstr("num_ranks is 0"));
  EXPECT_THAT(fault_of(lite_config(),
                       {.attention = AttentionSharding::kTpla, .num_ranks = 1, .num_slices = 0}),
              HasSubstr("num_slices is 0"));
  EXPECT_THAT(ShardPlan::create(lite_config(), {.num_ranks = 2}, 2).status().message(),
              HasSubstr("rank 2 of num_ranks 2"));
}

TEST(ShardPlanTest, ReportsWidthsBelowTheRanks) {
  ModelConfig config = lite_config();
  config.vocab_size = 3;
  config.intermediate_size = 2;
  config.moe_intermediate_size = 1;
  const std::string text = fault_of(config, {.num_ranks = 4});
  EXPECT_THAT(text, HasSubstr("vocab_size 3 is less than num_ranks 4"));
  EXPECT_THAT(text, HasSubstr("intermediate_size 2 is less than num_ranks 4"));
  EXPECT_THAT(text, HasSubstr("the width of the shared experts 2 is less than num_ranks 4"));
}

}  // namespace
}  // namespace tessera
