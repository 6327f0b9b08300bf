// What a step's layout must not change. The values themselves are compared in tests/parity.
#include "engine/model/causal_lm.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/cache/paged_latent_cache.h"
#include "engine/weights/weight_loader.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/step_input.h"

namespace tessera {
namespace {

using test::SequenceTokens;
using test::StepInput;
using ::testing::Each;
using ::testing::Truly;

constexpr int64_t kNumBlocks = 6;
/// Tables of four blocks for two sequences: eight entries.
constexpr StepLimits kLimits = {
    .max_tokens = 160, .max_sequences = 2, .max_logits_rows = 4, .max_model_len = 256};

ModelConfig small_config() {
  return ModelConfig::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 96, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 256, "q_lora_rank": 16, "kv_lora_rank": 32,
    "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 4,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 1.0})")
      .value();
}

class CausalLmTest : public ::testing::Test {
 protected:
  CausalLmTest()
      : config_(small_config()),
        backend_(kernels::cpu::create_cpu_backend(1)),
        weights_(make_dummy_weights(config_, *backend_, {}, 11).value()),
        cache_(PagedLatentCache::create(
                   backend_->device(),
                   LatentShard::full({.latent_widths = {config_.kv_lora_rank, config_.kv_lora_rank},
                                      .rope_width = config_.qk_rope_head_dim,
                                      .dtype = kernels::DType::kFloat32}),
                   kNumBlocks)
                   .value()),
        layers_(cache_.views()),
        model_(config_, weights_, kLimits, *backend_) {
    // All bits set is NaN: whoever reads the unused block 0, or an unwritten row, shows.
    std::memset(layers_[0].cache.base, 0xff, static_cast<size_t>(cache_.num_bytes()));
  }

  std::vector<float> run(const StepInput& step) {
    const kernels::TensorView logits = model_.forward(step.input(), {.images = layers_}, {});
    backend_->device().synchronize_blocking({});
    return {logits.as<float>(), logits.as<float>() + logits.num_elements()};
  }

  const ModelConfig config_;
  const std::unique_ptr<kernels::Backend> backend_;
  const ModelWeights weights_;
  PagedLatentCache cache_;
  const std::vector<LatentImageView> layers_;
  CausalLm model_;
  const SequenceTokens long_{test::make_ids(70, 96, 1), {3, 1}};
  const SequenceTokens short_{test::make_ids(40, 96, 2), {5}};
};

TEST_F(CausalLmTest, PrefillDoesNotDependOnTheWidthOfTheTables) {
  const auto prefill_both = [&](int64_t width) {
    return run(StepInput(width).prefill(long_, 0, 70).prefill(short_, 0, 40));
  };
  const std::vector<float> narrow = prefill_both(2);
  ASSERT_EQ(narrow.size(), 2U * 96U);
  EXPECT_THAT(narrow, Each(Truly([](float value) { return std::isfinite(value); })));
  EXPECT_EQ(prefill_both(3), narrow);
  EXPECT_EQ(prefill_both(4), narrow);
  EXPECT_EQ(prefill_both(2), narrow);
}

TEST_F(CausalLmTest, DecodeDoesNotDependOnTheWidthOfTheTables) {
  static_cast<void>(run(StepInput(4).prefill(long_, 0, 69).prefill(short_, 0, 39)));
  const auto decode_both = [&](int64_t width) {
    return run(StepInput(width).decode(short_, 40).decode(long_, 70));
  };
  const std::vector<float> wide = decode_both(4);
  ASSERT_EQ(wide.size(), 2U * 96U);
  EXPECT_THAT(wide, Each(Truly([](float value) { return std::isfinite(value); })));
  EXPECT_EQ(decode_both(2), wide);
  EXPECT_EQ(decode_both(3), wide);
  EXPECT_EQ(decode_both(4), wide);
}

TEST_F(CausalLmTest, OneSequenceMayUseTheTablesOfAll) {
  const std::vector<float> narrow = run(StepInput(1).prefill(short_, 0, 40));
  EXPECT_EQ(run(StepInput(8).prefill(short_, 0, 40)), narrow);
}

TEST_F(CausalLmTest, ReturnsNoLogitsWhenNoneAreWanted) {
  EXPECT_TRUE(run(StepInput(1).prefill(short_, 0, 39).without_logits()).empty());
  const std::vector<float> decoded = run(StepInput(1).decode(short_, 40));
  EXPECT_THAT(decoded, Each(Truly([](float value) { return std::isfinite(value); })));
}

using CausalLmDeathTest = CausalLmTest;

TEST_F(CausalLmDeathTest, RefusesTablesBeyondItsLimits) {
  EXPECT_DEATH(static_cast<void>(run(StepInput(9).prefill(short_, 0, 40))),
               "larger than its limits");
}

}  // namespace
}  // namespace tessera
