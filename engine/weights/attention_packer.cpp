#include "engine/weights/attention_packer.h"

#include <string>
#include <utility>
#include <vector>

#include "engine/weights/float_convert.h"
#include "engine/weights/tensor_table.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;
using kernels::DType;

ConstTensorView transposed(ConstTensorView matrix) {
  std::swap(matrix.shape[0], matrix.shape[1]);
  std::swap(matrix.stride[0], matrix.stride[1]);
  return matrix;
}

/// Packs one layer.
class AttentionPacker final {
 public:
  AttentionPacker(const ShardContext& shard, int64_t layer, WeightPacker& packer)
      : config_(shard.config),
        plan_(shard.plan),
        transform_(shard.transform),
        forms_(shard.forms),
        layer_(layer),
        prefix_(layer_prefix(layer) + "self_attn."),
        packer_(packer) {}

  AttentionWeights pack() {
    pack_input();
    const std::vector<float> gamma = packer_.floats({prefix_ + "kv_a_layernorm.weight"});
    weights_.kv_norm =
        packer_.upload(transform_.is_identity() ? gamma : std::vector<float>(gamma.size(), 1.0F));
    pack_kv_up(gamma);
    pack_output();
    return std::move(weights_);
  }

 private:
  /// Features of some heads of `width` each.
  static IndexRange features(const IndexRange& heads, int64_t width) {
    return {heads.begin * width, heads.end * width};
  }

  void pack_input() {
    const bool has_q_lora = config_.q_lora_rank > 0;
    const std::string latent = prefix_ + "kv_a_proj_with_mqa";
    const IndexRange query_rows = features(plan_.decode_heads, config_.qk_head_dim());
    const int64_t input_width = has_q_lora ? config_.q_lora_rank : query_rows.size();
    const kernels::TensorView input =
        has_q_lora ? packer_.stack({{prefix_ + "q_a_proj.weight"}, {latent + ".weight"}})
                   : packer_.stack({{prefix_ + "q_proj.weight", query_rows}, {latent + ".weight"}});
    transform_.rotate_rows(layer_, input.as<float>() + input_width * input.dim(1), input.dim(1));
    weights_.input = packer_.linear(input, packer_.dtype());
    if (has_q_lora) {
      weights_.q_norm = packer_.vector({prefix_ + "q_a_layernorm.weight"});
      const ConstTensorView rows =
          packer_.read(prefix_ + "q_b_proj.weight").slice(0, query_rows.begin, query_rows.size());
      weights_.q_up = packer_.linear(rows, packer_.dtype());
    }
    if (config_.attention_bias) {
      std::vector<float> bias =
          has_q_lora ? packer_.floats({prefix_ + "q_a_proj.bias", latent + ".bias"})
                     : packer_.floats({latent + ".bias"}, input_width);  // q_proj has none
      transform_.rotate_rows(layer_, bias.data() + input_width, 1);
      weights_.input_bias = packer_.upload(bias);
    }
  }

  /// kv_b_proj in its forms, from one read.
  void pack_kv_up(const std::vector<float>& gamma) {
    const int64_t head_rows = config_.qk_nope_head_dim + config_.v_head_dim;
    const IndexRange rows = features(plan_.decode_heads, head_rows);
    ConstTensorView matrix =
        packer_.read(prefix_ + "kv_b_proj.weight").slice(0, rows.begin, rows.size());
    std::vector<float> rotated;
    if (!transform_.is_identity()) {
      rotated.resize(static_cast<size_t>(matrix.num_elements()));
      convert_to_float(matrix, rotated.data());
      transform_.rotate_columns(layer_, gamma, rotated.data(), matrix.dim(0));
      matrix = {rotated.data(), DType::kFloat32, {matrix.dim(0), matrix.dim(1)}};
    }
    if (forms_ != AttentionForms::kPrefill) {
      pack_absorbed(matrix);
    }
    if (forms_ != AttentionForms::kDecode) {
      const IndexRange own = features(plan_.own_heads, head_rows);
      weights_.kv_up =
          packer_.linear(matrix.slice(0, own.begin - rows.begin, own.size()), packer_.dtype());
    }
  }

  /// `matrix`: rows of the decode heads, all columns.
  void pack_absorbed(const ConstTensorView& matrix) {
    const int64_t key_dim = config_.qk_nope_head_dim;
    const int64_t value_dim = config_.v_head_dim;
    const int64_t num_heads = plan_.decode_heads.size();
    const IndexRange& columns = plan_.latent_columns[static_cast<size_t>(layer_)];
    const ConstTensorView slice = matrix.slice(1, columns.begin, columns.size());
    weights_.key_absorb = packer_.make_linear(num_heads, columns.size(), key_dim);
    weights_.value_up = packer_.make_linear(num_heads, value_dim, columns.size());
    for (int64_t head = 0; head < num_heads; ++head) {
      const int64_t row = head * (key_dim + value_dim);
      packer_.load(
          *weights_.key_absorb, head, transposed(scaled_keys(slice.slice(0, row, key_dim))));
      packer_.load(*weights_.value_up, head, slice.slice(0, row + key_dim, value_dim));
    }
  }

  /// Keys times the logit factor, which only a slice of the latent needs.
  ConstTensorView scaled_keys(const ConstTensorView& keys) {
    const bool is_sliced = plan_.attention == AttentionSharding::kTpla && plan_.num_slices > 1;
    const auto factor =
        static_cast<float>(is_sliced ? transform_.logit_factor(layer_, plan_.num_slices) : 1.0);
    if (factor == 1.0F) {
      return keys;
    }
    const int64_t width = keys.dim(1);
    keys_.resize(static_cast<size_t>(keys.num_elements()));
    for (int64_t row = 0; row < keys.dim(0); ++row) {
      convert_to_float(keys.slice(0, row, 1), keys_.data() + row * width);
    }
    for (float& value : keys_) {
      value *= factor;
    }
    return {keys_.data(), DType::kFloat32, {keys.dim(0), width}};
  }

  void pack_output() {
    const IndexRange columns = features(plan_.own_heads, config_.v_head_dim);
    const ConstTensorView matrix = packer_.read(prefix_ + "o_proj.weight");
    weights_.output =
        packer_.linear(matrix.slice(1, columns.begin, columns.size()), packer_.dtype());
    if (config_.attention_bias && plan_.rank == 0) {  // the ranks' results are added up
      weights_.output_bias = packer_.vector({prefix_ + "o_proj.bias"});
    }
  }

  const ModelConfig& config_;
  const ShardPlan& plan_;
  const TplaTransform& transform_;
  const AttentionForms forms_;
  const int64_t layer_;
  const std::string prefix_;
  WeightPacker& packer_;
  AttentionWeights weights_;
  std::vector<float> keys_;  // of one head, scaled
};

}  // namespace

AttentionWeights pack_attention(const ShardContext& shard, int64_t layer, WeightPacker& packer) {
  return AttentionPacker(shard, layer, packer).pack();
}

}  // namespace tessera
