#include "engine/weights/tpla_transform.h"

#include <cmath>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/text.h"
#include "engine/weights/fingerprint.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

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

/// A calibration file for config_of(2, 2): two rotations of the plane.
class CalibrationTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string write() const {
    std::string header = str_cat("{\"__metadata__\":{", metadata_, "}");
    std::string data;
    for (size_t layer = 0; layer < bases_.size(); ++layer) {
      header += str_cat(",\"layers.",
                        layer,
                        ".basis\":{\"dtype\":\"F32\",\"shape\":[",
                        bases_[layer].size() / 2,
                        ",2],\"data_offsets\":[",
                        data.size(),
                        ",");
      data += test::bytes_of(bases_[layer]);
      header += str_cat(data.size(), "]}");
    }
    folder_.write("calibration.safetensors", test::safetensors_bytes(header + "}", data));
    return folder_.file("calibration.safetensors");
  }
  [[nodiscard]] Result<TplaTransform> load() const { return TplaTransform::load(write(), config_); }
  [[nodiscard]] static std::string metadata_of(const std::string& fingerprint,
                                               const std::string& more) {
    return str_cat("\"format\":\"tessera-tpla-calibration-1\",\"model_fingerprint\":\"",
                   fingerprint,
                   "\",\"basis\":\"pca\"",
                   more);
  }

  const ModelConfig config_ = config_of(2);
  test::TempFolder folder_;
  std::string metadata_ = metadata_of(model_fingerprint(config_), ",\"alpha\":\"1.5,2\"");
  std::vector<std::vector<float>> bases_ = {{0.6F, 0.8F, -0.8F, 0.6F}, {0, 1, 1, 0}};
};

TEST_F(CalibrationTest, IsReadWithItsFactors) {
  const auto transform = load();
  ASSERT_TRUE(transform.is_ok()) << transform.status().to_string();
  EXPECT_EQ(transform.value().name(), "pca");
  EXPECT_EQ(transform.value().basis(0)[2], -0.8F);
  EXPECT_EQ(transform.value().logit_factor(0, 4), 1.5);
  EXPECT_EQ(transform.value().logit_factor(1, 4), 2.0);
}

TEST_F(CalibrationTest, FactorsAreTheSlicesUnlessGivenAndNotPartOfTheFingerprint) {
  const auto with = load();
  metadata_ = metadata_of(model_fingerprint(config_), "");
  const auto without = load();
  ASSERT_TRUE(with.is_ok() && without.is_ok());
  EXPECT_EQ(without.value().logit_factor(1, 4), 4.0);
  EXPECT_EQ(with.value().fingerprint(), without.value().fingerprint());
  bases_[0] = {1, 0, 0, 1};
  EXPECT_NE(load().value().fingerprint(), without.value().fingerprint());
}

TEST_F(CalibrationTest, ReportsEveryFault) {
  metadata_ = "\"format\":\"other\",\"model_fingerprint\":\"abc\",\"alpha\":\"1.5,,2\"";
  bases_ = {{0.6F, 0.8F, 0.8F, 0.6F}};
  const Status status = load().status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(),
              HasSubstr("format is \"other\", expected \"tessera-tpla-calibration-1\""));
  EXPECT_THAT(status.message(),
              HasSubstr(str_cat(
                  "model_fingerprint is \"abc\", expected \"", model_fingerprint(config_), "\"")));
  EXPECT_THAT(status.message(), HasSubstr("basis is missing"));
  EXPECT_THAT(status.message(), HasSubstr("layers.0.basis: is not orthogonal"));
  EXPECT_THAT(status.message(), HasSubstr("layers.1.basis: missing, expected shape [2, 2]"));
  EXPECT_THAT(status.message(), HasSubstr("alpha \"1.5,,2\" is not 2 numbers"));
}

TEST_F(CalibrationTest, ReportsWrongShapesNansAndStrangers) {
  bases_ = {{1, 0, 0, 1, 0, 0}, {NAN, 0, 0, 1}, {1, 0, 0, 1}};
  const Status status = load().status();
  EXPECT_THAT(status.message(),
              HasSubstr("layers.0.basis: is float32[3, 2], expected float32[2, 2]"));
  EXPECT_THAT(status.message(), HasSubstr("layers.1.basis: is not orthogonal"));
  EXPECT_THAT(status.message(), HasSubstr("layers.2.basis: unexpected"));
}

TEST_F(CalibrationTest, RefusesFactorsThatAreNoGains) {
  for (const char* alpha : {"", "2", "2,2,2", "2,0", "2,-1", "2,inf", "2,nan", "2,x", "2,2,"}) {
    metadata_ = metadata_of(model_fingerprint(config_), str_cat(",\"alpha\":\"", alpha, "\""));
    EXPECT_THAT(load().status().message(), HasSubstr("is not 2 numbers above 0")) << alpha;
  }
}

TEST_F(CalibrationTest, ReportsAMissingFile) {
  EXPECT_EQ(TplaTransform::load(folder_.file("none"), config_).status().code(),
            StatusCode::kNotFound);
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
