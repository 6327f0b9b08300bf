#include "engine/calibration/layer_weights.h"

#include <string>
#include <utility>

#include "engine/base/check.h"
#include "engine/weights/float_convert.h"
#include "engine/weights/tensor_table.h"

namespace tessera {
namespace {

std::vector<float> read_floats(TensorSource& source, const std::string& name) {
  const kernels::ConstTensorView view = source.read(name);
  std::vector<float> values(static_cast<size_t>(view.num_elements()));
  convert_to_float(view, values.data());
  return values;
}

std::string attention_prefix(int64_t layer) {
  return layer_prefix(layer) + "self_attn.";
}

void make_relative(std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) {
    sum += value;
  }
  const double mean = sum / static_cast<double>(values.size());
  for (double& value : values) {
    value = mean > 0.0 ? value / mean : 1.0;
  }
}

}  // namespace

std::vector<float> read_latent_norm(TensorSource& source, int64_t layer) {
  return read_floats(source, attention_prefix(layer) + "kv_a_layernorm.weight");
}

LayerWeightsOfHeads read_head_weights(const ModelConfig& config,
                                      TensorSource& source,
                                      int64_t layer) {
  const std::vector<float> gamma = read_latent_norm(source, layer);
  const std::vector<float> kv = read_floats(source, attention_prefix(layer) + "kv_b_proj.weight");
  const std::vector<float> output = read_floats(source, attention_prefix(layer) + "o_proj.weight");
  const int64_t heads = config.num_attention_heads;
  const int64_t key_dim = config.qk_nope_head_dim;
  const int64_t value_dim = config.v_head_dim;
  const int64_t head_rows = key_dim + value_dim;
  const int64_t width = config.kv_lora_rank;
  TESSERA_CHECK(static_cast<int64_t>(kv.size()) == heads * head_rows * width, "size of kv_b_proj");
  const Vector scale = Eigen::Map<const Eigen::VectorXf>(gamma.data(), width).cast<double>();
  const FloatRows output_rows(output.data(), config.hidden_size, heads * value_dim);
  LayerWeightsOfHeads result;
  for (int64_t head = 0; head < heads; ++head) {
    const float* rows = kv.data() + head * head_rows * width;
    result.keys.emplace_back(scale.asDiagonal() *
                             FloatRows(rows, key_dim, width).cast<double>().transpose());
    Matrix values = scale.asDiagonal() *
                    FloatRows(rows + key_dim * width, value_dim, width).cast<double>().transpose();
    const Matrix own = output_rows.middleCols(head * value_dim, value_dim).cast<double>();
    // |W_O W_UV|^2 = tr(W_UV W_UV^T W_O^T W_O)
    const Matrix value_gram = values.transpose() * values;
    const Matrix output_gram = own.transpose() * own;
    result.value_weights.push_back(value_gram.cwiseProduct(output_gram).sum());
    result.values.push_back(std::move(values));
  }
  make_relative(result.value_weights);
  return result;
}

}  // namespace tessera
