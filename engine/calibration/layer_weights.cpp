#include "engine/calibration/layer_weights.h"

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

}  // namespace

std::vector<float> read_latent_norm(TensorSource& source, int64_t layer) {
  return read_floats(source, attention_prefix(layer) + "kv_a_layernorm.weight");
}

HeadKeys read_head_keys(const ModelConfig& config, TensorSource& source, int64_t layer) {
  const std::vector<float> gamma = read_latent_norm(source, layer);
  const std::vector<float> kv = read_floats(source, attention_prefix(layer) + "kv_b_proj.weight");
  const int64_t key_dim = config.qk_nope_head_dim;
  const int64_t head_rows = key_dim + config.v_head_dim;
  const int64_t width = config.kv_lora_rank;
  TESSERA_CHECK(static_cast<int64_t>(kv.size()) == config.num_attention_heads * head_rows * width,
                "kv_b_proj of the config's size");
  const Vector scale = Eigen::Map<const Eigen::VectorXf>(gamma.data(), width).cast<double>();
  HeadKeys keys;
  for (int64_t head = 0; head < config.num_attention_heads; ++head) {
    const FloatRows rows(kv.data() + head * head_rows * width, key_dim, width);
    keys.emplace_back(scale.asDiagonal() * rows.cast<double>().transpose());
  }
  return keys;
}

LatentMoments latent_moments(const LatentStatistics& statistics,
                             const HeadKeys& keys,
                             int64_t layer) {
  LatentMoments moments;
  moments.covariance = statistics.latent_covariance(layer);
  moments.query = Matrix::Zero(moments.covariance.rows(), moments.covariance.cols());
  for (size_t head = 0; head < keys.size(); ++head) {
    const Matrix queries = statistics.query_moment(layer, static_cast<int64_t>(head));
    moments.query += keys[head] * queries * keys[head].transpose();
  }
  return moments;
}

}  // namespace tessera
