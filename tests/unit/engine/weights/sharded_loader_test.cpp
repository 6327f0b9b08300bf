// A rank's weights are pieces of the whole model's.

#include <vector>

#include <gtest/gtest.h>

#include "engine/weights/weight_loader.h"
#include "tests/support/fake_backend.h"

namespace tessera {
namespace {

using test::FakeBackend;
using test::FakeLinearWeight;

const FakeLinearWeight& fake(const LinearWeightPtr& weight) {
  return dynamic_cast<const FakeLinearWeight&>(*weight);
}

ModelConfig small_config() {
  return ModelConfig::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 50, "hidden_size": 12,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 11,
    "max_position_embeddings": 64, "q_lora_rank": 6, "kv_lora_rank": 16, "qk_nope_head_dim": 3,
    "qk_rope_head_dim": 2, "v_head_dim": 5, "n_routed_experts": 5, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "moe_intermediate_size": 7, "first_k_dense_replace": 1,
    "attention_bias": true, "routed_scaling_factor": 1.0, "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "n_group": 1,
    "topk_group": 1})")
      .value();
}

class ShardedLoaderTest : public ::testing::Test {
 protected:
  ModelWeights load(const LoadOptions& options) {
    return make_dummy_weights(config_, backend_, options, 3).value();
  }
  ModelWeights load_rank(const ShardOptions& sharding, int64_t rank) {
    LoadOptions options;
    options.plan = ShardPlan::create(config_, sharding, rank).value();
    return load(options);
  }

  const ModelConfig config_ = small_config();
  FakeBackend backend_;
  const ModelWeights whole_ = load({});
};

/// Where a piece lies in a matrix of the whole model.
struct Place {
  size_t group = 0;
  int64_t row = 0;
  int64_t column = 0;
};

void expect_piece(const LinearWeightPtr& part,
                  size_t group,
                  const LinearWeightPtr& whole,
                  const Place& place) {
  for (int64_t row = 0; row < part->shape().out_features; ++row) {
    for (int64_t column = 0; column < part->shape().in_features; ++column) {
      ASSERT_EQ(fake(part).at(group, row, column),
                fake(whole).at(place.group, place.row + row, place.column + column));
    }
  }
}

TEST_F(ShardedLoaderTest, ReplicatedRanksHoldTheirHeads) {
  const ModelWeights part = load_rank({.num_ranks = 2}, 1);
  const AttentionWeights& own = part.layers[0].attention;
  const AttentionWeights& all = whole_.layers[0].attention;
  EXPECT_EQ(fake(own.input).groups, fake(all.input).groups);
  EXPECT_EQ(own.q_up->shape().out_features, 2 * 5);
  expect_piece(own.q_up, 0, all.q_up, {.row = 2 * 5});
  expect_piece(own.kv_up, 0, all.kv_up, {.row = 2 * 8});
  EXPECT_EQ(own.key_absorb->shape().num_groups, 2);
  expect_piece(own.key_absorb, 1, all.key_absorb, {.group = 3});
  expect_piece(own.value_up, 0, all.value_up, {.group = 2});
  EXPECT_EQ(own.output->shape().in_features, 2 * 5);
  expect_piece(own.output, 0, all.output, {.column = 2 * 5});
  EXPECT_TRUE(own.output_bias.view.is_empty()) << "added once, by rank 0";
  EXPECT_EQ(load_rank({.num_ranks = 2}, 0).layers[0].attention.output_bias.view.dim(0), 12);
}

TEST_F(ShardedLoaderTest, TplaRanksHoldTheirColumnsForTheHeadsOfTheirGroup) {
  const ShardOptions sharding{
      .attention = AttentionSharding::kTpla, .num_ranks = 4, .num_slices = 2};
  const ModelWeights part = load_rank(sharding, 3);  // head group 1, slice 1
  const AttentionWeights& own = part.layers[1].attention;
  const AttentionWeights& all = whole_.layers[1].attention;
  EXPECT_EQ(own.key_absorb->shape().num_groups, 2);
  EXPECT_EQ(own.key_absorb->shape().out_features, 8);
  // Twice the whole's keys: the logit factor of two slices.
  EXPECT_EQ(fake(own.key_absorb).at(1, 5, 2), 2.0F * fake(all.key_absorb).at(3, 8 + 5, 2));
  expect_piece(own.value_up, 1, all.value_up, {.group = 3, .column = 8});
  EXPECT_EQ(own.q_up->shape().out_features, 2 * 5);
  EXPECT_EQ(own.kv_up->shape().out_features, 8);
  expect_piece(own.kv_up, 0, all.kv_up, {.row = 3 * 8});
  expect_piece(own.output, 0, all.output, {.column = 3 * 5});
}

TEST_F(ShardedLoaderTest, DcpRanksHoldAllHeadsToDecodeAndTheirOwnOtherwise) {
  const ModelWeights part = load_rank({.attention = AttentionSharding::kDcp, .num_ranks = 4}, 2);
  const AttentionWeights& own = part.layers[0].attention;
  const AttentionWeights& all = whole_.layers[0].attention;
  EXPECT_EQ(fake(own.key_absorb).groups, fake(all.key_absorb).groups);
  EXPECT_EQ(fake(own.value_up).groups, fake(all.value_up).groups);
  EXPECT_EQ(fake(own.q_up).groups, fake(all.q_up).groups);
  expect_piece(own.kv_up, 0, all.kv_up, {.row = 2 * 8});
}

TEST_F(ShardedLoaderTest, MlpsExpertsAndHeadAreSplitUnevenly) {
  const ModelWeights part = load_rank({.num_ranks = 2}, 1);
  // 11 inner features: 5 and 6. Gate rows stand before up rows.
  const MlpWeights& mlp = part.layers[0].mlp;
  EXPECT_EQ(mlp.gate_up->shape().out_features, 12);
  EXPECT_EQ(fake(mlp.gate_up).at(0, 0, 4), fake(whole_.layers[0].mlp.gate_up).at(0, 5, 4));
  EXPECT_EQ(fake(mlp.gate_up).at(0, 6, 4), fake(whole_.layers[0].mlp.gate_up).at(0, 11 + 5, 4));
  expect_piece(mlp.down, 0, whole_.layers[0].mlp.down, {.column = 5});
  // 5 experts: 2 and 3; 7 shared features: 3 and 4.
  const MoeWeights& moe = part.layers[1].moe;
  EXPECT_EQ(moe.gate_up->shape().num_groups, 3);
  expect_piece(moe.gate_up, 2, whole_.layers[1].moe.gate_up, {.group = 4});
  expect_piece(moe.down, 0, whole_.layers[1].moe.down, {.group = 2});
  EXPECT_EQ(fake(moe.gate).groups, fake(whole_.layers[1].moe.gate).groups);
  expect_piece(moe.shared.down, 0, whole_.layers[1].moe.shared.down, {.column = 3});
  expect_piece(part.head, 0, whole_.head, {.row = 25});
  EXPECT_EQ(part.embedding.view.dim(0), 50);
}

TEST_F(ShardedLoaderTest, KeepsOnlyTheFormsThatAreAskedFor) {
  LoadOptions options;
  options.forms = AttentionForms::kPrefill;
  const ModelWeights prefill = load(options);
  EXPECT_EQ(prefill.layers[0].attention.key_absorb, nullptr);
  EXPECT_EQ(prefill.layers[0].attention.value_up, nullptr);
  EXPECT_NE(prefill.layers[0].attention.kv_up, nullptr);
  options.forms = AttentionForms::kDecode;
  const ModelWeights decode = load(options);
  EXPECT_NE(decode.layers[0].attention.key_absorb, nullptr);
  EXPECT_EQ(decode.layers[0].attention.kv_up, nullptr);
  EXPECT_LT(decode.num_bytes, whole_.num_bytes);
}

TEST_F(ShardedLoaderTest, RotatesLatentsAndLeavesQueriesAlone) {
  const TplaTransform transform = TplaTransform::hadamard(config_, 9).value();
  LoadOptions options;
  options.transform = &transform;
  const ModelWeights rotated = load(options);
  const AttentionWeights& own = rotated.layers[1].attention;
  const AttentionWeights& all = whole_.layers[1].attention;
  const auto basis = transform.basis(1);
  for (int64_t column = 0; column < 12; ++column) {
    EXPECT_EQ(fake(own.input).at(0, 5, column), fake(all.input).at(0, 5, column));  // q_a
    EXPECT_EQ(fake(own.input).at(0, 6 + 16, column),
              fake(all.input).at(0, 6 + 16, column));  // rope
    double sum = 0.0;
    for (int64_t i = 0; i < 16; ++i) {
      sum += static_cast<double>(basis[static_cast<size_t>(16 * i + 3)]) *
             static_cast<double>(fake(all.input).at(0, 6 + i, column));
    }
    EXPECT_NEAR(fake(own.input).at(0, 6 + 3, column), sum, 1e-6);
  }
  for (int64_t i = 0; i < 16; ++i) {
    EXPECT_EQ(own.kv_norm.view.as<float>()[i], 1.0F);
  }
  // Value row 4 of head 2: times gamma, times U.
  double sum = 0.0;
  for (int64_t i = 0; i < 16; ++i) {
    sum += static_cast<double>(fake(all.value_up).at(2, 4, i)) *
           static_cast<double>(all.kv_norm.view.as<float>()[i]) *
           static_cast<double>(basis[static_cast<size_t>(16 * i + 7)]);
  }
  EXPECT_NEAR(fake(own.value_up).at(2, 4, 7), sum, 1e-6);
}

/// For two slices: layer 0 shares 8 of 16 columns, layer 1 everything. No rotation.
TplaCalibration shared_calibration() {
  TplaCalibration calibration;
  calibration.basis = "none";
  calibration.dealing = "contiguous";
  calibration.num_slices = 2;
  calibration.layers.resize(2);
  for (TplaCalibration::Layer& layer : calibration.layers) {
    layer.basis.assign(256, 0.0F);
    for (size_t i = 0; i < 16; ++i) {
      layer.basis[17 * i] = 1.0F;
    }
    layer.logit_factor = 4.0;
  }
  calibration.layers[0].num_shared = 8;
  calibration.layers[1].num_shared = 16;
  return calibration;
}

class SharedColumnsLoaderTest : public ShardedLoaderTest {
 protected:
  ModelWeights load_slice(const TplaCalibration& calibration, int64_t rank) {
    const TplaTransform transform = TplaTransform::create(config_, calibration);
    LoadOptions options;
    options.transform = &transform;
    options.plan = ShardPlan::create(config_,
                                     {.attention = AttentionSharding::kTpla,
                                      .num_ranks = 4,
                                      .num_slices = 2,
                                      .shared_columns = transform.shared_columns(),
                                      .window = transform.window()},
                                     rank)
                       .value();
    return load(options);
  }
  /// W_UK or W_UV element of the whole model, column `column`, times the norm's weight.
  [[nodiscard]] float folded(const LinearWeightPtr& whole,
                             size_t group,
                             int64_t row,
                             int64_t column) const {
    const bool is_key = whole == whole_.layers[0].attention.key_absorb;
    const float gamma = whole_.layers[0].attention.kv_norm.view.as<float>()[column];
    return gamma *
           (is_key ? fake(whole).at(group, column, row) : fake(whole).at(group, row, column));
  }
};

TEST_F(SharedColumnsLoaderTest, SlicesScaleTheirOwnKeysAndShareValues) {
  const ModelWeights part = load_slice(shared_calibration(), 3);  // head group 1, slice 1
  const AttentionWeights& own = part.layers[0].attention;
  const AttentionWeights& all = whole_.layers[0].attention;
  // Cache rows: shared 0-7, own 12-15.
  const std::vector<int64_t> columns = {0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15};
  ASSERT_EQ(own.key_absorb->shape().out_features, 12);
  ASSERT_EQ(own.value_up->shape().in_features, 12);
  for (int64_t i = 0; i < 12; ++i) {
    const int64_t column = columns[static_cast<size_t>(i)];
    const float factor = i < 8 ? 1.0F : 4.0F;
    EXPECT_FLOAT_EQ(fake(own.key_absorb).at(1, i, 2), factor * folded(all.key_absorb, 3, 2, column))
        << "column " << i;
    const float share = i < 8 ? 0.5F : 1.0F;
    EXPECT_FLOAT_EQ(fake(own.value_up).at(1, 3, i), share * folded(all.value_up, 3, 3, column))
        << "column " << i;
  }
}

TEST_F(SharedColumnsLoaderTest, ALayerThatSharesEverythingIsLoadedAsReplicated) {
  const ModelWeights part = load_slice(shared_calibration(), 3);
  const ModelWeights replicated = load_rank({.num_ranks = 4}, 3);
  const AttentionWeights& own = part.layers[1].attention;
  const AttentionWeights& other = replicated.layers[1].attention;
  EXPECT_EQ(own.q_up->shape().out_features, other.q_up->shape().out_features);
  EXPECT_EQ(own.key_absorb->shape().num_groups, 1);
  EXPECT_EQ(own.key_absorb->shape().out_features, 16);
  EXPECT_EQ(own.value_up->shape().in_features, 16);
  const float gamma = whole_.layers[1].attention.kv_norm.view.as<float>()[9];
  EXPECT_FLOAT_EQ(fake(own.key_absorb).at(0, 9, 1), gamma * fake(other.key_absorb).at(0, 9, 1));
}

TEST_F(SharedColumnsLoaderTest, FittedKeysReplaceTheBasissOwn) {
  TplaCalibration calibration = shared_calibration();
  std::vector<float>& keys = calibration.layers[0].keys;
  for (int i = 0; i < 2 * 4 * 12 * 3; ++i) {  // slices, heads, columns, dn
    keys.push_back(static_cast<float>(i));
  }
  const ModelWeights part = load_slice(calibration, 3);
  const AttentionWeights& own = part.layers[0].attention;
  // Slice 1, head 3, column 7, element 2: not scaled again.
  EXPECT_EQ(fake(own.key_absorb).at(1, 7, 2), static_cast<float>(((4 + 3) * 12 + 7) * 3 + 2));
  EXPECT_EQ(fake(load_slice(calibration, 0).layers[0].attention.key_absorb).at(1, 7, 2),
            static_cast<float>((1 * 12 + 7) * 3 + 2));
}

TEST_F(SharedColumnsLoaderTest, AWindowHasTheExactKeysOfAllColumnsWhereTheLayerIsSliced) {
  TplaCalibration calibration = shared_calibration();
  calibration.layers[0].keys.assign(2 * 4 * 12 * 3, 1.0F);
  EXPECT_EQ(load_slice(calibration, 3).layers[0].attention.window_key_absorb, nullptr);
  calibration.window = {.num_first = 0, .num_last = 16};
  const ModelWeights part = load_slice(calibration, 3);
  const AttentionWeights& own = part.layers[0].attention;
  const AttentionWeights& all = whole_.layers[0].attention;
  ASSERT_NE(own.window_key_absorb, nullptr);
  EXPECT_EQ(own.window_key_absorb->shape().num_groups, 2);
  ASSERT_EQ(own.window_key_absorb->shape().out_features, 16);
  for (int64_t column = 0; column < 16; ++column) {
    EXPECT_FLOAT_EQ(fake(own.window_key_absorb).at(1, column, 2),
                    folded(all.key_absorb, 3, 2, column));
  }
  EXPECT_EQ(fake(own.key_absorb).at(1, 7, 2), 1.0F) << "the slice's are fitted all the same";
  EXPECT_EQ(part.layers[1].attention.window_key_absorb, nullptr) << "it shares everything";
}

TEST_F(SharedColumnsLoaderTest, ABasisThatIsNotOrthogonalIsAProductOfItsOwn) {
  TplaCalibration calibration = shared_calibration();
  TplaCalibration::Layer& layer = calibration.layers[0];
  layer.inverse = layer.basis;
  layer.basis[16 * 2 + 5] = 3.0F;
  layer.inverse[16 * 2 + 5] = -3.0F;
  const ModelWeights part = load_slice(calibration, 3);
  const AttentionWeights& own = part.layers[0].attention;
  EXPECT_EQ(fake(own.input).groups, fake(whole_.layers[0].attention.input).groups);
  EXPECT_EQ(own.kv_norm.view.as<float>()[3], 1.0F);
  ASSERT_NE(own.latent_basis, nullptr);
  EXPECT_EQ(own.latent_basis->shape().dtype, kernels::DType::kFloat32);
  EXPECT_EQ(fake(own.latent_basis).at(0, 5, 2), 3.0F) << "column 5 takes three times number 2";
  EXPECT_EQ(fake(own.latent_basis).at(0, 2, 5), 0.0F);
  EXPECT_EQ(part.layers[1].attention.latent_basis, nullptr);
}

}  // namespace
}  // namespace tessera
