#include "engine/serving/attention_choice.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/log.h"
#include "tests/support/temp_folder.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

/// Three layers of 32 latent and 8 rope columns.
ModelConfig config_of() {
  ModelConfig config;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 4;
  config.vocab_size = 16;
  config.intermediate_size = 16;
  config.kv_lora_rank = 32;
  config.qk_nope_head_dim = 4;
  config.qk_rope_head_dim = 8;
  return config;
}

TplaCalibration calibration_of(const std::vector<int64_t>& shared, int64_t num_slices) {
  TplaCalibration calibration;
  calibration.basis = "balanced";
  calibration.dealing = "fold";
  calibration.num_slices = num_slices;
  for (const int64_t s : shared) {
    TplaCalibration::Layer& layer = calibration.layers.emplace_back();
    layer.basis.assign(32 * 32, 0.0F);
    for (size_t i = 0; i < 32; ++i) {
      layer.basis[33 * i] = 1.0F;
    }
    layer.num_shared = s;
  }
  return calibration;
}

class AttentionChoiceTest : public ::testing::Test {
 protected:
  AttentionChoiceTest() { worker_.model = folder_.path(); }

  std::string write(const std::string& name, int64_t num_slices = 2) {
    const std::string path = folder_.file(name);
    const Status status =
        write_tpla_calibration(path, config_, calibration_of({16, 0, 32}, num_slices));
    EXPECT_TRUE(status.is_ok()) << status.to_string();
    return path;
  }
  [[nodiscard]] Result<AttentionChoice> choose(WorkerRole role = WorkerRole::kDecode) const {
    return choose_attention(worker_, config_, role);
  }

  [[nodiscard]] std::string logged_quality() const {
    [[maybe_unused]] static const bool is_ready = (init_logging(LogLevel::kInfo), true);
    ::testing::internal::CaptureStderr();
    log_quality(worker_, choose().value());
    return ::testing::internal::GetCapturedStderr();
  }

  const ModelConfig config_ = config_of();
  const test::TempFolder folder_;
  WorkerConfig worker_;
};

TEST_F(AttentionChoiceTest, AutoIsReplicatedWithoutACalibration) {
  const AttentionChoice choice = choose().value();
  EXPECT_EQ(choice.sharding.attention, AttentionSharding::kReplicated);
  EXPECT_EQ(choice.sharding.num_ranks, 2);
  EXPECT_TRUE(choice.refused.empty());
}

TEST_F(AttentionChoiceTest, AutoFindsTheCalibrationInTheModelsFolder) {
  const std::string path = write(kTplaCalibrationFile);
  for (const WorkerRole role : {WorkerRole::kDecode, WorkerRole::kPrefill}) {
    const AttentionChoice choice = choose(role).value();
    EXPECT_EQ(choice.sharding.attention, AttentionSharding::kTpla);
    EXPECT_EQ(choice.sharding.num_slices, 2);
    EXPECT_EQ(choice.sharding.num_ranks, role == WorkerRole::kDecode ? 2 : 1);
    EXPECT_EQ(choice.sharding.shared_columns, (std::vector<int64_t>{16, 0, 32}));
    EXPECT_EQ(choice.calibration, path);
  }
  EXPECT_EQ(choose(WorkerRole::kCombined).value().sharding.attention,
            AttentionSharding::kReplicated);
  worker_.load_format = "dummy";
  EXPECT_EQ(choose().value().sharding.attention, AttentionSharding::kReplicated);
}

TEST_F(AttentionChoiceTest, AutoPassesOverACalibrationThatIsNotForThis) {
  write(kTplaCalibrationFile, 4);
  const AttentionChoice slices = choose().value();
  EXPECT_EQ(slices.sharding.attention, AttentionSharding::kReplicated);
  EXPECT_EQ(slices.sharding.num_slices, 1);
  EXPECT_TRUE(slices.sharding.shared_columns.empty());
  EXPECT_TRUE(slices.transform.is_identity());
  EXPECT_THAT(slices.refused, HasSubstr("a calibration for 4 slices, --tpla-slices is 2"));
  folder_.write(kTplaCalibrationFile, "no safetensors");
  EXPECT_FALSE(choose().value().refused.empty());
}

TEST_F(AttentionChoiceTest, WhatIsAskedForByNameIsNotPassedOver) {
  const std::string path = write(kTplaCalibrationFile, 4);
  worker_.attention_sharding = "tpla";
  EXPECT_THAT(choose().status().message(),
              HasSubstr(path + ": is a calibration for 4 slices, --tpla-slices is 2; --tpla-basis "
                               "hadamard does without"));
  worker_.attention_sharding = "auto";
  worker_.tpla_calibration = path;
  EXPECT_EQ(choose().status().code(), StatusCode::kInvalidArgument);
  worker_.tpla_calibration = folder_.file("none");
  EXPECT_EQ(choose().status().code(), StatusCode::kNotFound);
}

TEST_F(AttentionChoiceTest, ANamedCalibrationGoesBeforeTheBundledOne) {
  write(kTplaCalibrationFile, 4);
  worker_.tpla_calibration = write("other");
  EXPECT_EQ(choose().value().calibration, worker_.tpla_calibration);
}

TEST_F(AttentionChoiceTest, OtherBasesAndModesLeaveTheCalibrationAlone) {
  write(kTplaCalibrationFile, 4);
  worker_.attention_sharding = "tpla";
  worker_.tpla_basis = "hadamard";
  EXPECT_EQ(choose().value().transform.name(), "hadamard:0");
  worker_.tpla_basis = "none";
  EXPECT_TRUE(choose().value().transform.is_identity());
  worker_.tpla_basis = "auto";
  worker_.tpla_slices = 1;
  EXPECT_TRUE(choose().value().transform.is_identity());
  worker_.attention_sharding = "dcp";
  EXPECT_EQ(choose().value().sharding.attention, AttentionSharding::kDcp);
}

TEST_F(AttentionChoiceTest, CountsAndDescribesLayersOfTheirOwnWidths) {
  write(kTplaCalibrationFile);
  const AttentionChoice choice = choose().value();
  // 16 + 8, 0 + 16 and 32 columns, each beside 8 of the rope part.
  const CacheShape decode = cache_shape(config_, choice, choice.sharding, 0);
  EXPECT_EQ(decode.rank_elements, 32 + 24 + 40);
  EXPECT_EQ(decode.worker_elements, 2 * (32 + 24 + 40));
  const CacheShape prefill = cache_shape(config_, choice, {.num_ranks = 3}, 2);
  EXPECT_EQ(prefill.num_ranks, 3);
  EXPECT_EQ(prefill.rank_elements, 2 * (32 + 24 + 40));
  EXPECT_EQ(prefill.worker_elements, 6 * (32 + 24 + 40));
  EXPECT_EQ(describe(choice, config_, 2),
            "tpla, 2 slices on 2 ranks, basis balanced fold, 16 of 32 columns shared on average");
}

TEST_F(AttentionChoiceTest, CountsFloat8RowsInNumbersOfTheActivations) {
  write(kTplaCalibrationFile);
  const AttentionChoice choice = choose().value();
  constexpr CacheTypes kTypes{.activations = kernels::DType::kBFloat16,
                              .cache = kernels::DType::kFloat8E4M3};
  // 24, 16 and 32 latents with a scale, and 8 of the rope part: 32 + 16, 32 + 16, 48 + 16 bytes.
  const CacheShape decode = cache_shape(config_, choice, choice.sharding, 0, kTypes);
  EXPECT_EQ(decode.rank_elements, (48 + 48 + 64) / 2);
  EXPECT_EQ(decode.worker_elements, 48 + 48 + 64);
  EXPECT_EQ(decode.whole_elements, 3 * 64 / 2);
}

TEST_F(AttentionChoiceTest, AWindowComesWithTheCalibration) {
  TplaCalibration calibration = calibration_of({16, 0, 32}, 2);
  calibration.window = {.num_first = 4, .num_last = 16};
  const std::string path = folder_.file(kTplaCalibrationFile);
  ASSERT_TRUE(write_tpla_calibration(path, config_, calibration).is_ok());
  const AttentionChoice choice = choose().value();
  EXPECT_EQ(choice.sharding.window, calibration.window);
  EXPECT_THAT(describe(choice, config_, 2),
              HasSubstr(", exact window of the first 4 and the last 16 tokens"));
}

TEST_F(AttentionChoiceTest, CountsBasesAndWindows) {
  TplaCalibration calibration = calibration_of({16, 0, 32}, 2);
  calibration.window = {.num_first = 3, .num_last = 66};
  calibration.layers[0].inverse = calibration.layers[0].basis;  // of the identity
  worker_.tpla_calibration = folder_.file("window");
  ASSERT_TRUE(write_tpla_calibration(worker_.tpla_calibration, config_, calibration).is_ok());
  worker_.tensor_parallel_size = 4;
  const AttentionChoice choice = choose().value();
  EXPECT_EQ(choice.sharding.window, calibration.window);
  const CacheShape decode = cache_shape(config_, choice, choice.sharding, 0);
  EXPECT_EQ(decode.basis_elements, 4 * 32 * 32) << "one layer's, on each rank";
  // Layers 0 and 1 are sliced; each of two slices has the keys of 4 heads.
  EXPECT_EQ(decode.window_key_elements, 2 * 2 * 4 * 32 * 4);
  EXPECT_EQ(decode.window_elements, 2 * 4 * (3 + 66) * (32 + 8));
  EXPECT_EQ(decode.landing_blocks, 1 + 3) << "66 tokens can touch three blocks";
  const CacheShape prefill = cache_shape(config_, choice, {.num_ranks = 3}, 2);
  EXPECT_EQ(prefill.basis_elements, 3 * 32 * 32);
  EXPECT_EQ(prefill.window_key_elements, 0);
  EXPECT_EQ(prefill.window_elements, 0);
  EXPECT_EQ(prefill.landing_blocks, 0);
}

TEST_F(AttentionChoiceTest, CountsWholeAndStripedLatents) {
  const AttentionChoice replicated = choose().value();
  const CacheShape whole = cache_shape(config_, replicated, replicated.sharding, 0);
  EXPECT_EQ(whole.rank_elements, 3 * 40);
  EXPECT_EQ(whole.worker_elements, 2 * 3 * 40);
  worker_.attention_sharding = "dcp";
  const AttentionChoice striped = choose().value();
  EXPECT_EQ(cache_shape(config_, striped, striped.sharding, 0).rank_elements, 3 * 40 / 2);
  EXPECT_EQ(cache_shape(config_, striped, striped.sharding, 0).worker_elements, 3 * 40);
  EXPECT_EQ(describe(replicated, config_, 1), "replicated, 1 slice on 1 rank, basis none");
}

TEST_F(AttentionChoiceTest, SaysWhatIsKnownOfTheLoss) {
  worker_.attention_sharding = "tpla";
  EXPECT_THAT(logged_quality(), HasSubstr("tessera calibrate " + worker_.model + " --text FILE"));

  TplaCalibration calibration = calibration_of({0, 0, 0}, 2);
  worker_.tpla_calibration = folder_.file("measured");
  ASSERT_TRUE(write_tpla_calibration(worker_.tpla_calibration, config_, calibration).is_ok());
  EXPECT_THAT(logged_quality(), HasSubstr("tpla_loss_is_unknown"));

  calibration.report = R"({"quality":{"kl":0.0125,"top1_agreement":0.97,"decode_tokens":256}})";
  ASSERT_TRUE(write_tpla_calibration(worker_.tpla_calibration, config_, calibration).is_ok());
  const std::string text = logged_quality();
  EXPECT_THAT(text, HasSubstr("kl_nats_a_token=0.0125"));
  EXPECT_THAT(text, HasSubstr("top1_agreement=0.97"));
}

}  // namespace
}  // namespace tessera
