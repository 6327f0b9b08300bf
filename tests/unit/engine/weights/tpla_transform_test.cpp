#include "engine/weights/tpla_transform.h"

#include <cmath>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/weights/fingerprint.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

ModelConfig config_of(int64_t width, int64_t num_layers = 2) {
  ModelConfig config;
  config.num_hidden_layers = num_layers;
  config.kv_lora_rank = width;
  return config;
}

double dot_of_columns(std::span<const float> basis, int64_t width, int64_t a, int64_t b) {
  double sum = 0.0;
  for (int64_t i = 0; i < width; ++i) {
    sum += static_cast<double>(basis[static_cast<size_t>(i * width + a)]) *
           static_cast<double>(basis[static_cast<size_t>(i * width + b)]);
  }
  return sum;
}

TEST(TplaTransformTest, TheDefaultLeavesWeightsAlone) {
  const TplaTransform none;
  EXPECT_TRUE(none.is_identity());
  EXPECT_EQ(none.name(), "none");
  EXPECT_TRUE(none.basis(0).empty());
  EXPECT_EQ(none.logit_factor(3, 4), 4.0);
  std::vector<float> rows = {1, 2, 3, 4};
  none.rotate_rows(0, rows.data(), 2);
  none.rotate_columns(0, {}, rows.data(), 2);
  EXPECT_EQ(rows, (std::vector<float>{1, 2, 3, 4}));
}

TEST(TplaTransformTest, HadamardIsOrthogonalAndMixesBlocksEvenly) {
  for (const int64_t width : {8, 32, 72, 48}) {
    const int64_t block = width == 72 ? 8 : width == 48 ? 16 : width;
    const TplaTransform transform = TplaTransform::hadamard(config_of(width), 3).value();
    for (int64_t layer = 0; layer < 2; ++layer) {
      const auto basis = transform.basis(layer);
      for (int64_t i = 0; i < width; ++i) {
        for (int64_t j = 0; j < width; ++j) {
          EXPECT_NEAR(dot_of_columns(basis, width, i, j), i == j ? 1.0 : 0.0, 1e-6);
          const double size = std::abs(basis[static_cast<size_t>(i * width + j)]);
          const double expected =
              i / block == j / block ? 1.0 / std::sqrt(static_cast<double>(block)) : 0.0;
          EXPECT_NEAR(size, expected, 1e-7);
        }
      }
    }
  }
}

TEST(TplaTransformTest, HadamardDependsOnSeedAndLayer) {
  const auto first = TplaTransform::hadamard(config_of(32), 1).value();
  const auto same = TplaTransform::hadamard(config_of(32), 1).value();
  const auto other = TplaTransform::hadamard(config_of(32), 2).value();
  EXPECT_EQ(first.name(), "hadamard:1");
  EXPECT_EQ(first.fingerprint(), same.fingerprint());
  EXPECT_NE(first.fingerprint(), other.fingerprint());
  const std::vector<float> layer0(first.basis(0).begin(), first.basis(0).end());
  const std::vector<float> layer1(first.basis(1).begin(), first.basis(1).end());
  EXPECT_NE(layer0, layer1);
}

TEST(TplaTransformTest, HadamardRefusesWidthsThatItCannotMix) {
  EXPECT_THAT(TplaTransform::hadamard(config_of(100), 1).status().message(),
              HasSubstr("kv_lora_rank 100 has the power of two 4"));
}

TEST(TplaTransformTest, RotatesRowsAndColumnsByTheBasis) {
  const auto transform = TplaTransform::hadamard(config_of(8), 4).value();
  const auto basis = transform.basis(1);
  // Unit matrices: U^T I = U^T, and I diag(gamma) U has row i of U times gamma_i.
  std::vector<float> rows(64, 0.0F);
  std::vector<float> columns(64, 0.0F);
  std::vector<float> gamma;
  for (size_t i = 0; i < 8; ++i) {
    rows[9 * i] = 1.0F;
    columns[9 * i] = 1.0F;
    gamma.push_back(static_cast<float>(i) + 0.5F);
  }
  transform.rotate_rows(1, rows.data(), 8);
  transform.rotate_columns(1, gamma, columns.data(), 8);
  for (size_t i = 0; i < 8; ++i) {
    for (size_t j = 0; j < 8; ++j) {
      EXPECT_FLOAT_EQ(rows[8 * j + i], basis[8 * i + j]);
      EXPECT_FLOAT_EQ(columns[8 * i + j], gamma[i] * basis[8 * i + j]);
    }
  }
}

/// Two layers of 16 columns for two slices: a plane rotation, and a shear with its inverse.
TplaCalibration calibration_of() {
  TplaCalibration calibration;
  calibration.basis = "balanced";
  calibration.dealing = "fold";
  calibration.num_slices = 2;
  calibration.report = R"({"quality":{"kl":0.5}})";
  calibration.layers.resize(2);
  for (TplaCalibration::Layer& layer : calibration.layers) {
    layer.basis.assign(256, 0.0F);
    for (size_t i = 0; i < 16; ++i) {
      layer.basis[17 * i] = 1.0F;
    }
    layer.logit_factor = 1.5;
  }
  std::vector<float>& rotation = calibration.layers[0].basis;
  rotation[0] = 0.6F;
  rotation[1] = 0.8F;
  rotation[16] = -0.8F;
  rotation[17] = 0.6F;
  TplaCalibration::Layer& shear = calibration.layers[1];
  shear.inverse = shear.basis;
  shear.basis[16 * 2 + 5] = 3.0F;
  shear.inverse[16 * 2 + 5] = -3.0F;
  shear.num_shared = 8;
  for (int i = 0; i < 2 * 2 * 12 * 3; ++i) {  // two slices, two heads, 8 + 4 columns, dn 3
    shear.keys.push_back(static_cast<float>(i));
  }
  return calibration;
}

ModelConfig two_heads() {
  ModelConfig config = config_of(16);
  config.num_attention_heads = 2;
  config.qk_nope_head_dim = 3;
  return config;
}

TEST(TplaTransformTest, TellsWhatACalibrationSays) {
  const TplaTransform transform = TplaTransform::create(two_heads(), calibration_of());
  EXPECT_EQ(transform.name(), "balanced fold");
  EXPECT_EQ(transform.num_slices(), 2);
  EXPECT_EQ(transform.shared_columns(), (std::vector<int64_t>{0, 8}));
  EXPECT_EQ(transform.report(), R"({"quality":{"kl":0.5}})");
  EXPECT_TRUE(transform.is_folded(0));
  EXPECT_FALSE(transform.is_folded(1));
  EXPECT_EQ(transform.basis(0)[16], -0.8F);
  EXPECT_EQ(transform.logit_factor(1, 2), 1.5);
  EXPECT_TRUE(transform.keys(0, 1).empty());
  ASSERT_EQ(transform.keys(1, 1).size(), 72U);
  EXPECT_EQ(transform.keys(1, 0)[5], 5.0F);
  EXPECT_EQ(transform.keys(1, 1)[5], 77.0F);
}

TEST(TplaTransformTest, WithoutSharedColumnsThereIsNoListOfThem) {
  TplaCalibration calibration = calibration_of();
  calibration.layers[1].num_shared = 0;
  calibration.layers[1].keys.clear();
  const TplaTransform transform = TplaTransform::create(two_heads(), calibration);
  EXPECT_TRUE(transform.shared_columns().empty());
}

TEST(TplaTransformTest, FingerprintFollowsTheBytesOfACacheAlone) {
  const auto fingerprint = [](const TplaCalibration& calibration) {
    return TplaTransform::create(two_heads(), calibration).fingerprint();
  };
  const std::string first = fingerprint(calibration_of());
  TplaCalibration calibration = calibration_of();
  calibration.layers[0].logit_factor = 7.0;
  calibration.layers[1].keys.clear();
  calibration.report = "{}";
  EXPECT_EQ(fingerprint(calibration), first);
  calibration.layers[1].num_shared = 0;
  EXPECT_NE(fingerprint(calibration), first);
  calibration = calibration_of();
  calibration.num_slices = 4;
  EXPECT_NE(fingerprint(calibration), first);
  calibration = calibration_of();
  calibration.layers[0].basis[0] = 0.5F;
  EXPECT_NE(fingerprint(calibration), first);
  calibration = calibration_of();
  calibration.window = {.num_first = 0, .num_last = 16};
  EXPECT_NE(fingerprint(calibration), first);
  EXPECT_EQ(TplaTransform::create(two_heads(), calibration).window(), calibration.window);
}

TEST(TplaTransformTest, ColumnsTakeTheTransposedInverse) {
  const TplaTransform transform = TplaTransform::create(two_heads(), calibration_of());
  // n A = (n_0, ..., n_5 + 3 n_2, ...), so weights w on n are w_2 - 3 w_5 on column 2, else w.
  std::vector<float> row(16);
  std::vector<float> gamma(16);
  for (size_t i = 0; i < 16; ++i) {
    row[i] = static_cast<float>(i) + 1.0F;
    gamma[i] = 2.0F;
  }
  transform.rotate_columns(1, gamma, row.data(), 1);
  for (size_t i = 0; i < 16; ++i) {
    const float own = 2.0F * (static_cast<float>(i) + 1.0F);
    EXPECT_EQ(row[i], i == 2 ? own - 3.0F * 12.0F : own) << "column " << i;
  }
}

TEST(TplaTransformDeathTest, RefusesToFoldABasisThatIsNotOrthogonal) {
  const TplaTransform transform = TplaTransform::create(two_heads(), calibration_of());
  std::vector<float> rows(16);
  EXPECT_DEATH(transform.rotate_rows(1, rows.data(), 1), "only an orthogonal basis");
}

TEST(ModelFingerprintTest, ChangesWithTheNumbersOfTheModel) {
  const ModelConfig config = config_of(32);
  ModelConfig other = config;
  EXPECT_EQ(model_fingerprint(other), model_fingerprint(config));
  EXPECT_EQ(model_fingerprint(config).size(), 32U);
  other.rope_theta = 50000.0;
  EXPECT_NE(model_fingerprint(other), model_fingerprint(config));
  other = config;
  other.yarn = YarnScaling{};
  EXPECT_NE(model_fingerprint(other), model_fingerprint(config));
}

}  // namespace
}  // namespace tessera
