#include "engine/model/workspace.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/fake_backend.h"

namespace tessera {
namespace {

using kernels::DType;

constexpr StepLimits kLimits = {
    .max_tokens = 5, .max_sequences = 3, .max_logits_rows = 2, .max_model_len = 65};

ModelConfig dense_config() {
  ModelConfig config;
  config.num_hidden_layers = 1;
  config.vocab_size = 10;
  config.hidden_size = 8;
  config.num_attention_heads = 2;
  config.intermediate_size = 6;
  config.kv_lora_rank = 4;
  config.qk_nope_head_dim = 4;
  config.qk_rope_head_dim = 2;
  config.v_head_dim = 3;
  return config;
}

ModelConfig moe_config() {
  ModelConfig config = dense_config();
  config.n_routed_experts = 4;
  config.num_experts_per_tok = 2;
  config.n_shared_experts = 3;
  config.moe_intermediate_size = 3;
  return config;
}

/// Weights without any: what a workspace's sizes follow.
ModelWeights whole(const ModelConfig& config, DType dtype) {
  ModelWeights weights;
  weights.plan = ShardPlan::create(config, {}, 0).value();
  weights.dtype = dtype;
  return weights;
}

TEST(WorkspaceTest, HoldsTheLargestStep) {
  test::FakeDevice device;
  const Workspace workspace(
      dense_config(), whole(dense_config(), DType::kBFloat16), kLimits, device);
  EXPECT_EQ(workspace.token_ids.to_string(), "int32[5]");
  EXPECT_EQ(workspace.slots.to_string(), "int64[5]");
  EXPECT_EQ(workspace.decode_lengths.to_string(), "int32[3]");
  EXPECT_EQ(workspace.block_tables.to_string(), "int32[3, 2]");  // 65 tokens: two blocks
  EXPECT_EQ(workspace.hidden.to_string(), "float32[5, 8]");
  EXPECT_EQ(workspace.attention_input.to_string(), "float32[5, 18]");  // 2 (4 + 2) + 4 + 2
  EXPECT_EQ(workspace.q.to_string(), "bfloat16[5, 12]");
  EXPECT_EQ(workspace.q_latent.to_string(), "bfloat16[3, 8]");
  EXPECT_EQ(workspace.context_kv.to_string(), "bfloat16[512, 14]");  // 2 (4 + 3)
  EXPECT_EQ(workspace.gate_up.to_string(), "float32[5, 12]");
  EXPECT_EQ(workspace.logits.to_string(), "float32[2, 10]");
}

// Every sum below is of the shapes in workspace.h, worked out by hand.
TEST(WorkspaceTest, CountsItsBytes) {
  test::FakeDevice device;
  const int64_t inputs = 20 + 20 + 40 + 12 + 24 + 8;
  const int64_t stream = 160 + 80 + 160;
  const int64_t attention =
      360 + 10 + 120 + 48 + 48 + 24 + 4096 + 2048 + 14336 + 120 + 40 + 40 + 60;
  const int64_t mlp = 240 + 60;
  const int64_t head = 64 + 64 + 32 + 80;
  EXPECT_EQ(Workspace(dense_config(), whole(dense_config(), DType::kBFloat16), kLimits, device)
                .num_bytes(),
            inputs + stream + attention + mlp + head);
}

TEST(WorkspaceTest, AWindowTakesQueriesOfAllColumns) {
  ModelConfig config = dense_config();
  config.kv_lora_rank = 16;
  ModelWeights weights = whole(config, DType::kBFloat16);
  ShardOptions sharding{.attention = AttentionSharding::kTpla, .num_ranks = 2, .num_slices = 2};
  const auto workspace_of = [&] {
    test::FakeDevice device;
    weights.plan = ShardPlan::create(config, sharding, 1).value();
    const Workspace workspace(config, weights, kLimits, device);
    return std::vector<std::string>{workspace.window_slots.to_string(),
                                    workspace.window_first_slots.to_string(),
                                    workspace.window_q_latent.to_string(),
                                    std::to_string(workspace.num_bytes())};
  };
  const int64_t without = std::stoll(workspace_of()[3]);
  sharding.window = {.num_first = 0, .num_last = 8};
  const std::vector<std::string> with = workspace_of();
  EXPECT_EQ(with[0], "int64[5]");
  EXPECT_EQ(with[1], "int64[3]");
  EXPECT_EQ(with[2], "bfloat16[3, 32]");  // both heads of the group
  EXPECT_EQ(std::stoll(with[3]) - without, 40 + 24 + 3 * 32 * 2);
}

TEST(WorkspaceTest, CompressesTheQueryWhenTheModelDoes) {
  ModelConfig config = dense_config();
  config.q_lora_rank = 5;
  test::FakeDevice device;
  const Workspace workspace(config, whole(config, DType::kBFloat16), kLimits, device);
  EXPECT_EQ(workspace.attention_input.to_string(), "float32[5, 11]");  // 5 + 4 + 2
  EXPECT_EQ(workspace.q_normed.to_string(), "bfloat16[5, 5]");
  EXPECT_EQ(workspace.q.to_string(), "bfloat16[5, 12]");
}

TEST(WorkspaceTest, HasNoExpertTensorsForADenseModel) {
  test::FakeDevice device;
  const Workspace workspace(
      dense_config(), whole(dense_config(), DType::kBFloat16), kLimits, device);
  EXPECT_EQ(workspace.gate_logits.data, nullptr);
  EXPECT_EQ(workspace.expert_out.data, nullptr);
}

TEST(WorkspaceTest, HoldsEachTokensExperts) {
  test::FakeDevice device;
  const Workspace workspace(moe_config(), whole(moe_config(), DType::kBFloat16), kLimits, device);
  EXPECT_EQ(workspace.gate_logits.to_string(), "float32[5, 4]");
  EXPECT_EQ(workspace.expert_ids.to_string(), "int32[5, 2]");
  EXPECT_EQ(workspace.permuted.to_string(), "bfloat16[10, 8]");
  EXPECT_EQ(workspace.expert_offsets.to_string(), "int32[5]");
  EXPECT_EQ(workspace.expert_gate_up.to_string(), "float32[10, 6]");
  EXPECT_EQ(workspace.gate_up.to_string(), "float32[5, 18]");  // three shared experts of 3
  const int64_t experts = 160 + 80 + 40 + 40 + 160 + 20 + 40 + 240 + 60 + 320;
  const int64_t wider_mlp = (360 + 90) - (240 + 60);
  EXPECT_EQ(workspace.num_bytes() -
                Workspace(dense_config(), whole(dense_config(), DType::kBFloat16), kLimits, device)
                    .num_bytes(),
            experts + wider_mlp);
}

TEST(WorkspaceTest, HasNoMoreDecodeRowsThanTokens) {
  StepLimits limits = kLimits;
  limits.max_sequences = 8;
  test::FakeDevice device;
  const Workspace workspace(dense_config(), whole(dense_config(), DType::kFloat32), limits, device);
  EXPECT_EQ(workspace.decode_lengths.to_string(), "int32[5]");
  EXPECT_EQ(workspace.q_latent.to_string(), "float32[5, 8]");
  EXPECT_EQ(workspace.block_tables.to_string(), "int32[8, 2]");
}

TEST(WorkspaceTest, GivesTheFirstRowsOfATensor) {
  test::FakeDevice device;
  const Workspace workspace(
      dense_config(), whole(dense_config(), DType::kFloat32), kLimits, device);
  const kernels::TensorView rows = first_rows(workspace.hidden, 2);
  EXPECT_EQ(rows.to_string(), "float32[2, 8]");
  EXPECT_EQ(rows.data, workspace.hidden.data);
}

TEST(WorkspaceTest, ThrowsWhenTheDeviceIsFull) {
  test::FakeDevice device;
  device.set_bytes_left(10'000);
  EXPECT_THROW(Workspace(dense_config(), whole(dense_config(), DType::kFloat32), kLimits, device),
               DeviceError);
}

}  // namespace
}  // namespace tessera
