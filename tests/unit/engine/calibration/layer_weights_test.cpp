#include "engine/calibration/layer_weights.h"

#include <gtest/gtest.h>

#include "engine/weights/dummy_source.h"
#include "engine/weights/float_convert.h"
#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera {
namespace {

std::vector<float> floats(TensorSource& source, const std::string& name) {
  const auto view = source.read(name);
  std::vector<float> values(static_cast<size_t>(view.num_elements()));
  convert_to_float(view, values.data());
  return values;
}

class LayerWeightsTest : public ::testing::Test {
 protected:
  const ModelConfig config_ = test::small_model_config();
  DummySource source_{config_, 5};
  const std::string prefix_ = "model.layers.1.self_attn.";
  const std::vector<float> norm_ = floats(source_, prefix_ + "kv_a_layernorm.weight");
  const std::vector<float> kv_ = floats(source_, prefix_ + "kv_b_proj.weight");   // [128, 32]
  const std::vector<float> output_ = floats(source_, prefix_ + "o_proj.weight");  // [32, 64]
};

TEST_F(LayerWeightsTest, KeysAreTransposedAndCarryTheNorm) {
  const LayerWeightsOfHeads weights = read_head_weights(config_, source_, 1);
  ASSERT_EQ(weights.keys.size(), 4U);
  EXPECT_EQ(read_latent_norm(source_, 1), norm_);
  const int64_t head = 2;
  for (int64_t column = 0; column < 32; ++column) {
    for (int64_t row = 0; row < 16; ++row) {
      const double expected = static_cast<double>(norm_[static_cast<size_t>(column)]) *
                              kv_[static_cast<size_t>((head * 32 + row) * 32 + column)];
      EXPECT_DOUBLE_EQ(weights.keys[2](column, row), expected);
    }
  }
}

TEST_F(LayerWeightsTest, ValueWeightsAreSquaredNormsOfTheProducts) {
  const LayerWeightsOfHeads weights = read_head_weights(config_, source_, 1);
  std::vector<double> squares(4, 0.0);
  double mean = 0.0;
  for (size_t head = 0; head < 4; ++head) {
    for (size_t i = 0; i < 32; ++i) {
      for (size_t column = 0; column < 32; ++column) {
        double product = 0.0;
        for (size_t k = 0; k < 16; ++k) {
          product += static_cast<double>(output_[i * 64 + head * 16 + k]) *
                     kv_[(head * 32 + 16 + k) * 32 + column] * norm_[column];
        }
        squares[head] += product * product;
      }
    }
    mean += squares[head] / 4.0;
  }
  for (size_t head = 0; head < 4; ++head) {
    EXPECT_NEAR(weights.value_weights[head], squares[head] / mean, 1e-9);
  }
}

TEST_F(LayerWeightsTest, ValuesAreTheUpProjectionTimesTheNorm) {
  const LayerWeightsOfHeads weights = read_head_weights(config_, source_, 1);
  ASSERT_EQ(weights.values.size(), 4U);
  for (size_t head = 0; head < 4; ++head) {
    for (size_t column = 0; column < 32; ++column) {
      for (size_t k = 0; k < 16; ++k) {
        EXPECT_FLOAT_EQ(static_cast<float>(weights.values[head](static_cast<Eigen::Index>(column),
                                                                static_cast<Eigen::Index>(k))),
                        kv_[(head * 32 + 16 + k) * 32 + column] * norm_[column]);
      }
    }
  }
}

}  // namespace
}  // namespace tessera
