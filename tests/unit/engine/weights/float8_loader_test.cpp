// Matrices of an FP8 checkpoint keep their bytes and scales on a backend that multiplies by them,
// whole or cut for a rank.

#include <algorithm>
#include <cstring>
#include <iostream>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/text.h"
#include "engine/weights/tensor_table.h"
#include "engine/weights/weight_loader.h"
#include "tests/support/fake_backend.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace tessera {
namespace {

using kernels::DType;
using test::FakeBackend;
using test::FakeLinearWeight;
using test::TensorFileEntry;

constexpr int64_t kBlock = 128;

const FakeLinearWeight& fake(const LinearWeightPtr& weight) {
  return dynamic_cast<const FakeLinearWeight&>(*weight);
}

/// Blocks divide some of its matrices; others end inside one: kv_a has 96 rows.
ModelConfig small_config() {
  return ModelConfig::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 40, "hidden_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 384,
    "max_position_embeddings": 64, "q_lora_rank": 128, "kv_lora_rank": 64, "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32, "v_head_dim": 64, "n_routed_experts": 4, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "moe_intermediate_size": 128, "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.0, "norm_topk_prob": true, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "n_group": 1, "topk_group": 1,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})")
      .value();
}

struct Stored {
  int64_t columns = 0;
  std::string values;
  std::vector<float> scales;
  int64_t scale_columns = 0;
};

int64_t num_blocks(int64_t size) {
  return (size + kBlock - 1) / kBlock;
}

class Float8LoaderTest : public ::testing::Test {
 protected:
  Float8LoaderTest() {
    options_.dtype = DType::kBFloat16;
    for (const TensorSpec& spec : expected_tensors(config_)) {
      const bool is_plain = spec.shape.size() == 1 || spec.name == "model.embed_tokens.weight" ||
                            spec.name == "lm_head.weight" || spec.name.ends_with("mlp.gate.weight");
      if (is_plain) {
        tensors_.push_back(
            {spec.name,
             "F32",
             spec.shape,
             test::bytes_of(std::vector<float>(static_cast<size_t>(spec.num_elements()), 0.5F))});
      } else {
        add_float8(spec);
      }
    }
  }
  void TearDown() override {
    if (HasFailure()) {
      std::cerr << "random seed of this test: " << seed_ << '\n';
    }
  }

  void add_float8(const TensorSpec& spec) {
    Stored stored;
    stored.columns = spec.shape[1];
    for (int64_t i = 0; i < spec.num_elements(); ++i) {
      stored.values.push_back(static_cast<char>(engine_() % 0x7f));
    }
    const std::vector<int64_t> shape = {num_blocks(spec.shape[0]), num_blocks(spec.shape[1])};
    stored.scale_columns = shape[1];
    for (int64_t i = 0; i < shape[0] * shape[1]; ++i) {
      stored.scales.push_back(static_cast<float>(engine_() % 1000 + 1) / 64.0F);
    }
    tensors_.push_back({spec.name, "F8_E4M3", spec.shape, stored.values});
    tensors_.push_back({spec.name + "_scale_inv", "F32", shape, test::bytes_of(stored.scales)});
    stored_[spec.name] = std::move(stored);
  }

  std::string& bytes_of(const std::string& name) {
    return std::find_if(tensors_.begin(),
                        tensors_.end(),
                        [&](const TensorFileEntry& tensor) { return tensor.name == name; })
        ->bytes;
  }
  Result<ModelWeights> load() {
    const test::TempFolder folder;
    folder.write("model.safetensors", test::safetensors_bytes(tensors_));
    TESSERA_TRY(const Checkpoint checkpoint, Checkpoint::open(folder.path()));
    return load_model_weights(config_, checkpoint, backend_, options_);
  }
  ModelWeights load_rank(int64_t num_ranks, int64_t rank) {
    options_.plan = ShardPlan::create(config_, {.num_ranks = num_ranks}, rank).value();
    return load().value();
  }

  /// Rows and columns of a stored matrix.
  struct Piece {
    std::string name;
    IndexRange rows, columns;
  };
  /// A byte and what scales it.
  using Element = std::pair<uint8_t, float>;
  void append(const Piece& piece, std::vector<Element>& elements) const {
    const Stored& stored = stored_.at(piece.name);
    for (int64_t row = piece.rows.begin; row < piece.rows.end; ++row) {
      for (int64_t column = piece.columns.begin; column < piece.columns.end; ++column) {
        const auto value = static_cast<size_t>(row * stored.columns + column);
        const int64_t scale = row / kBlock * stored.scale_columns + column / kBlock;
        elements.emplace_back(static_cast<uint8_t>(stored.values.at(value)),
                              stored.scales.at(static_cast<size_t>(scale)));
      }
    }
  }
  static std::vector<Element> held(const LinearWeightPtr& weight, size_t group) {
    const kernels::LinearShape& shape = weight->shape();
    const auto& float8 = fake(weight).float8_groups.at(group);
    std::vector<Element> elements;
    for (int64_t i = 0; i < shape.out_features * shape.in_features; ++i) {
      const int64_t scale = i / shape.in_features / shape.scales->rows * shape.scale_columns() +
                            (shape.scales->first_column + i % shape.in_features) / kBlock;
      elements.emplace_back(float8.values.at(static_cast<size_t>(i)),
                            float8.scales.at(static_cast<size_t>(scale)));
    }
    return elements;
  }
  /// Group `group` of `weight` is the pieces, stacked, byte by byte with the scale of each.
  void expect_pieces(const LinearWeightPtr& weight,
                     size_t group,
                     const std::vector<Piece>& pieces) const {
    ASSERT_TRUE(weight->shape().scales.has_value());
    EXPECT_TRUE(fake(weight).groups.at(group).empty());
    EXPECT_EQ(weight->shape().in_features, pieces.front().columns.size());
    std::vector<Element> expected;
    for (const Piece& piece : pieces) {
      append(piece, expected);
    }
    EXPECT_TRUE(held(weight, group) == expected) << pieces.front().name;
  }

  const ModelConfig config_ = small_config();
  const uint64_t seed_ = std::random_device{}();
  std::mt19937_64 engine_{seed_};
  std::vector<TensorFileEntry> tensors_;
  std::map<std::string, Stored> stored_;
  LoadOptions options_;
  FakeBackend backend_;
};

const std::string kDense = "model.layers.0.mlp.";
const std::string kMoe = "model.layers.1.mlp.";
const std::string kAttention = "model.layers.1.self_attn.";

TEST_F(Float8LoaderTest, BytesAndScalesStayAsTheyAre) {
  backend_.fake_ops().set_multiplies_float8();
  const auto loaded = load();
  ASSERT_TRUE(loaded.is_ok()) << loaded.status().to_string();
  const LayerWeights& layer = loaded.value().layers[1];
  expect_pieces(layer.attention.input,
                0,
                {{kAttention + "q_a_proj.weight", {0, 128}, {0, 256}},
                 {kAttention + "kv_a_proj_with_mqa.weight", {0, 96}, {0, 256}}});
  EXPECT_EQ(layer.attention.input->shape().scales->rows, kBlock);
  expect_pieces(layer.attention.q_up, 0, {{kAttention + "q_b_proj.weight", {0, 384}, {0, 128}}});
  expect_pieces(layer.attention.output, 0, {{kAttention + "o_proj.weight", {0, 256}, {0, 256}}});
  ASSERT_EQ(layer.moe.gate_up->shape().num_groups, 4);
  for (size_t expert = 0; expert < 4; ++expert) {
    const std::string prefix = str_cat(kMoe, "experts.", expert, ".");
    expect_pieces(layer.moe.gate_up,
                  expert,
                  {{prefix + "gate_proj.weight", {0, 128}, {0, 256}},
                   {prefix + "up_proj.weight", {0, 128}, {0, 256}}});
    expect_pieces(layer.moe.down, expert, {{prefix + "down_proj.weight", {0, 256}, {0, 128}}});
  }
  const MlpWeights& dense = loaded.value().layers[0].mlp;
  expect_pieces(dense.gate_up,
                0,
                {{kDense + "gate_proj.weight", {0, 384}, {0, 256}},
                 {kDense + "up_proj.weight", {0, 384}, {0, 256}}});
  EXPECT_EQ(dense.gate_up->shape().scales->rows, kBlock);
}

TEST_F(Float8LoaderTest, WhatIsComputedFromAMatrixOrNotStoredInFp8IsNot) {
  backend_.fake_ops().set_multiplies_float8();
  const auto loaded = load();
  ASSERT_TRUE(loaded.is_ok()) << loaded.status().to_string();
  const AttentionWeights& attention = loaded.value().layers[0].attention;
  for (const auto* weight : {&attention.kv_up,
                             &attention.key_absorb,
                             &attention.value_up,
                             &loaded.value().head,
                             &loaded.value().layers[1].moe.gate}) {
    EXPECT_FALSE((*weight)->shape().scales.has_value());
    EXPECT_FALSE(fake(*weight).groups.at(0).empty());
  }
}

TEST_F(Float8LoaderTest, ARankCutsBlocksOfRows) {
  backend_.fake_ops().set_multiplies_float8();
  const ModelWeights weights = load_rank(2, 1);
  const MlpWeights& dense = weights.layers[0].mlp;
  expect_pieces(dense.gate_up,
                0,
                {{kDense + "gate_proj.weight", {192, 384}, {0, 256}},
                 {kDense + "up_proj.weight", {192, 384}, {0, 256}}});
  EXPECT_EQ(dense.gate_up->shape().scales->rows, 1);
  expect_pieces(weights.layers[1].attention.q_up,
                0,
                {{kAttention + "q_b_proj.weight", {192, 384}, {0, 128}}});
}

/// Those of the second matrix are whole in their own, and not in the stack.
TEST_F(Float8LoaderTest, BlocksOfTheStackAreCutToo) {
  backend_.fake_ops().set_multiplies_float8();
  const ModelWeights weights = load_rank(2, 0);
  expect_pieces(weights.layers[0].mlp.gate_up,
                0,
                {{kDense + "gate_proj.weight", {0, 192}, {0, 256}},
                 {kDense + "up_proj.weight", {0, 192}, {0, 256}}});
}

TEST_F(Float8LoaderTest, ARankCutsBlocksOfColumns) {
  backend_.fake_ops().set_multiplies_float8();
  const ModelWeights half = load_rank(2, 1);
  expect_pieces(half.layers[0].mlp.down, 0, {{kDense + "down_proj.weight", {0, 256}, {192, 384}}});
  EXPECT_EQ(half.layers[0].mlp.down->shape().scales->first_column, 64);
  expect_pieces(
      half.layers[1].attention.output, 0, {{kAttention + "o_proj.weight", {0, 256}, {128, 256}}});
  EXPECT_EQ(half.layers[1].attention.output->shape().scales->first_column, 0);
  const ModelWeights quarter = load_rank(4, 3);
  expect_pieces(quarter.layers[1].attention.output,
                0,
                {{kAttention + "o_proj.weight", {0, 256}, {192, 256}}});
  // The second of four ranks has inner features [96, 192): of two blocks.
  expect_pieces(
      load_rank(4, 1).layers[0].mlp.down, 0, {{kDense + "down_proj.weight", {0, 256}, {96, 192}}});
}

TEST_F(Float8LoaderTest, ARankHoldsItsExperts) {
  backend_.fake_ops().set_multiplies_float8();
  const ModelWeights weights = load_rank(2, 1);
  const MoeWeights& moe = weights.layers[1].moe;
  ASSERT_EQ(moe.down->shape().num_groups, 2);
  expect_pieces(moe.down, 0, {{kMoe + "experts.2.down_proj.weight", {0, 256}, {0, 128}}});
  expect_pieces(moe.down, 1, {{kMoe + "experts.3.down_proj.weight", {0, 256}, {0, 128}}});
}

TEST_F(Float8LoaderTest, OtherBackendsAndTypesGetDequantisedWeights) {
  const auto dequantised = load();
  backend_.fake_ops().set_multiplies_float8();
  options_.dtype = DType::kFloat32;
  const auto in_float32 = load();
  ASSERT_TRUE(dequantised.is_ok() && in_float32.is_ok());
  const Stored& stored = stored_.at(kDense + "down_proj.weight");
  for (const ModelWeights* weights : {&dequantised.value(), &in_float32.value()}) {
    const LinearWeightPtr& down = weights->layers[0].mlp.down;
    ASSERT_FALSE(down->shape().scales.has_value());
    EXPECT_EQ(fake(down).at(0, 130, 200),
              kernels::float8_e4m3_to_float(static_cast<uint8_t>(stored.values[130 * 384 + 200])) *
                  stored.scales[1 * 3 + 1]);
  }
}

/// By the tensors' bytes and by their dequantised values alike.
TEST_F(Float8LoaderTest, RefusesNanWeightsAndScalesThatAreNotFinite) {
  const std::string down = kDense + "down_proj.weight";      // [256, 384]
  const std::string kv_b = kAttention + "kv_b_proj.weight";  // [512, 64], dequantised anyway
  bytes_of(down).at(130 * 384 + 200) = '\x7f';
  bytes_of(down).at(255 * 384 + 383) = '\xff';
  bytes_of(kv_b).at(3 * 64 + 5) = '\xff';
  const float infinity = std::numeric_limits<float>::infinity();
  std::memcpy(bytes_of(down + "_scale_inv").data() + 4 * sizeof(float), &infinity, sizeof(float));
  const Status expected =
      invalid_argument("the weights are not all numbers (3 faults)\n" + down +
                       ": 2 of 98304 elements are NaN, the first at [130, 200]\n" + down +
                       "_scale_inv: 1 of 6 scales are not finite, the first at [1, 1]\n" + kv_b +
                       ": 1 of 32768 elements are NaN, the first at [3, 5]");
  EXPECT_EQ(load().status(), expected);
  backend_.fake_ops().set_multiplies_float8();
  EXPECT_EQ(load().status(), expected);
}

TEST_F(Float8LoaderTest, ARankLooksAtItsPartAndTellsPlacesInTheWhole) {
  backend_.fake_ops().set_multiplies_float8();
  const std::string down = kDense + "down_proj.weight";  // [256, 384]; a rank has 192 columns
  bytes_of(down).at(130 * 384 + 200) = '\x7f';
  options_.plan = ShardPlan::create(config_, {.num_ranks = 2}, 0).value();
  EXPECT_TRUE(load().is_ok());
  options_.plan = ShardPlan::create(config_, {.num_ranks = 2}, 1).value();
  EXPECT_EQ(load().status(),
            invalid_argument("the weights are not all numbers (1 faults)\n" + down +
                             ": 1 of 49152 elements are NaN, the first at [130, 200]"));
}

TEST_F(Float8LoaderTest, BlocksOfAnotherWidthAreDequantised) {
  backend_.fake_ops().set_multiplies_float8();
  ModelConfig config = config_;
  config.quantization = BlockQuantization{128, 64};
  for (TensorFileEntry& tensor : tensors_) {
    if (tensor.name.ends_with("_scale_inv")) {
      const int64_t columns = stored_.at(tensor.name.substr(0, tensor.name.size() - 10)).columns;
      tensor.shape[1] = (columns + 63) / 64;
      tensor.bytes = test::bytes_of(
          std::vector<float>(static_cast<size_t>(tensor.shape[0] * tensor.shape[1]), 2.0F));
    }
  }
  const test::TempFolder folder;
  folder.write("model.safetensors", test::safetensors_bytes(tensors_));
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint.is_ok());
  const auto loaded = load_model_weights(config, checkpoint.value(), backend_, options_);
  ASSERT_TRUE(loaded.is_ok()) << loaded.status().to_string();
  EXPECT_FALSE(loaded.value().layers[0].mlp.down->shape().scales.has_value());
}

TEST_F(Float8LoaderTest, PlainCheckpointsAreUnchanged) {
  backend_.fake_ops().set_multiplies_float8();
  ModelConfig config = config_;
  config.quantization.reset();
  std::erase_if(tensors_, [](const auto& tensor) { return tensor.name.ends_with("_scale_inv"); });
  for (TensorFileEntry& tensor : tensors_) {
    if (tensor.dtype == "F8_E4M3") {
      tensor.dtype = "BF16";
      tensor.bytes += tensor.bytes;
    }
  }
  const test::TempFolder folder;
  folder.write("model.safetensors", test::safetensors_bytes(tensors_));
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint.is_ok());
  FakeBackend other;
  const auto here = load_model_weights(config, checkpoint.value(), backend_, options_);
  const auto there = load_model_weights(config, checkpoint.value(), other, options_);
  ASSERT_TRUE(here.is_ok() && there.is_ok()) << here.status().to_string();
  EXPECT_EQ(here.value().num_bytes, there.value().num_bytes);
  for (size_t layer = 0; layer < 2; ++layer) {
    const AttentionWeights& attention = here.value().layers[layer].attention;
    EXPECT_FALSE(attention.input->shape().scales.has_value());
    EXPECT_EQ(fake(attention.input).groups,
              fake(there.value().layers[layer].attention.input).groups);
  }
  EXPECT_EQ(fake(here.value().layers[1].moe.gate_up).groups,
            fake(there.value().layers[1].moe.gate_up).groups);
}

TEST_F(Float8LoaderTest, OneExpertInAnotherTypeMakesAllOfThemDequantised) {
  backend_.fake_ops().set_multiplies_float8();
  const std::string name = kMoe + "experts.2.down_proj.weight";
  std::erase_if(tensors_, [&](const auto& tensor) { return tensor.name.starts_with(name); });
  tensors_.push_back(
      {name, "F32", {256, 128}, test::bytes_of(std::vector<float>(size_t{256} * 128, 3.0F))});
  const auto loaded = load();
  ASSERT_TRUE(loaded.is_ok()) << loaded.status().to_string();
  const MoeWeights& moe = loaded.value().layers[1].moe;
  EXPECT_FALSE(moe.down->shape().scales.has_value());
  EXPECT_EQ(fake(moe.down).at(2, 5, 5), 3.0F);
  EXPECT_TRUE(moe.gate_up->shape().scales.has_value());
}

TEST_F(Float8LoaderTest, ARotatedInputIsNot) {
  backend_.fake_ops().set_multiplies_float8();
  const auto transform = TplaTransform::hadamard(config_, 0);
  ASSERT_TRUE(transform.is_ok());
  options_.transform = &transform.value();
  const auto loaded = load();
  ASSERT_TRUE(loaded.is_ok()) << loaded.status().to_string();
  EXPECT_FALSE(loaded.value().layers[0].attention.input->shape().scales.has_value());
  EXPECT_TRUE(loaded.value().layers[0].attention.q_up->shape().scales.has_value());
}

TEST_F(Float8LoaderTest, CountsTheBytesOfValuesAndScales) {
  const auto dequantised = load();
  backend_.fake_ops().set_multiplies_float8();
  const auto kept = load();
  ASSERT_TRUE(dequantised.is_ok() && kept.is_ok());
  int64_t saved = 0;
  for (const auto& [name, stored] : stored_) {
    if (!name.ends_with("kv_b_proj.weight")) {
      saved += static_cast<int64_t>(stored.values.size()) -
               4 * static_cast<int64_t>(stored.scales.size());
    }
  }
  EXPECT_EQ(dequantised.value().num_bytes - kept.value().num_bytes, saved);
  EXPECT_EQ(kept.value().num_parameters, dequantised.value().num_parameters);
}

TEST_F(Float8LoaderTest, ScalesOfAnotherShapeAreNamed) {
  backend_.fake_ops().set_multiplies_float8();
  const std::string name = kDense + "down_proj.weight_scale_inv";
  for (TensorFileEntry& tensor : tensors_) {
    if (tensor.name == name) {
      tensor.shape = {3, 2};
    }
  }
  EXPECT_THAT(load().status().message(),
              ::testing::HasSubstr(name + ": has shape [3, 2], expected [2, 3]"));
}

TEST_F(Float8LoaderTest, DummiesAreMadeSoToo) {
  backend_.fake_ops().set_multiplies_float8();
  const auto made = make_dummy_weights(config_, backend_, options_, 7);
  ASSERT_TRUE(made.is_ok()) << made.status().to_string();
  const LinearWeightPtr& down = made.value().layers[0].mlp.down;
  ASSERT_TRUE(down->shape().scales.has_value());
  const auto& held = fake(down).float8_groups.at(0);
  double square = 0.0;
  for (const uint8_t value : held.values) {
    const double number = static_cast<double>(kernels::float8_e4m3_to_float(value)) *
                          static_cast<double>(held.scales.at(0));
    square += number * number;
  }
  // Uniform with standard deviation 0.02; 98,304 numbers, so that the mean square is within 1 %.
  EXPECT_NEAR(square / static_cast<double>(held.values.size()), 0.0004, 0.00001);
  EXPECT_FALSE(made.value().head->shape().scales.has_value());
}

}  // namespace
}  // namespace tessera
