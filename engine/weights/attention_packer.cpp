#include "engine/weights/attention_packer.h"

#include <algorithm>
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
        part_(shard.plan.layer(layer)),
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
    pack_basis();
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
    const IndexRange query_rows = features(part_.decode_heads, config_.qk_head_dim());
    const int64_t input_width = has_q_lora ? config_.q_lora_rank : query_rows.size();
    const WeightPacker::Part query =
        has_q_lora ? WeightPacker::Part{prefix_ + "q_a_proj.weight"}
                   : WeightPacker::Part{prefix_ + "q_proj.weight", query_rows};
    weights_.input = input_product({query, {latent + ".weight"}}, input_width);
    if (has_q_lora) {
      weights_.q_norm = packer_.vector({prefix_ + "q_a_layernorm.weight"});
      weights_.q_up = packer_.linear({{prefix_ + "q_b_proj.weight", query_rows}});
    }
    if (config_.attention_bias) {
      std::vector<float> bias =
          has_q_lora ? packer_.floats({prefix_ + "q_a_proj.bias", latent + ".bias"})
                     : packer_.floats({latent + ".bias"}, input_width);  // q_proj has none
      if (transform_.is_folded(layer_)) {
        transform_.rotate_rows(layer_, bias.data() + input_width, 1);
      }
      weights_.input_bias = packer_.upload(bias);
    }
  }

  /// `input_width`: rows before the latent's.
  LinearWeightPtr input_product(const std::vector<WeightPacker::Part>& parts, int64_t input_width) {
    if (transform_.is_identity() || !transform_.is_folded(layer_)) {
      return packer_.linear(parts);
    }
    const kernels::TensorView input = packer_.stack(parts);
    transform_.rotate_rows(layer_, input.as<float>() + input_width * input.dim(1), input.dim(1));
    return packer_.linear(input, packer_.dtype());
  }

  /// A basis that does not pass through the norm: latents times A, as a product.
  void pack_basis() {
    if (!transform_.is_folded(layer_)) {
      const int64_t width = config_.kv_lora_rank;
      const ConstTensorView basis(transform_.basis(layer_).data(), DType::kFloat32, {width, width});
      weights_.latent_basis = packer_.linear(transposed(basis), DType::kFloat32);
    }
  }

  /// kv_b_proj in its forms, from one read.
  void pack_kv_up(const std::vector<float>& gamma) {
    const int64_t head_rows = config_.qk_nope_head_dim + config_.v_head_dim;
    const IndexRange rows = features(part_.decode_heads, head_rows);
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
    const int64_t num_heads = part_.decode_heads.size();
    const int64_t width = part_.columns.width();
    weights_.key_absorb = packer_.make_linear(num_heads, width, key_dim);
    weights_.value_up = packer_.make_linear(num_heads, value_dim, width);
    if (plan_.is_sliced(layer_) && !plan_.window.is_empty()) {
      weights_.window_key_absorb = packer_.make_linear(num_heads, config_.kv_lora_rank, key_dim);
    }
    for (int64_t head = 0; head < num_heads; ++head) {
      const int64_t row = head * (key_dim + value_dim);
      packer_.load(*weights_.key_absorb, head, keys(matrix.slice(0, row, key_dim), head));
      if (weights_.window_key_absorb != nullptr) {
        packer_.load(*weights_.window_key_absorb, head, transposed(matrix.slice(0, row, key_dim)));
      }
      packer_.load(*weights_.value_up, head, values(matrix.slice(0, row + key_dim, value_dim)));
    }
  }

  /// The columns of `rows` [n, R] that this rank caches, in the order of its cache rows, in
  /// kept_: valid until the next call.
  kernels::TensorView kept_columns(const ConstTensorView& rows) {
    const int64_t num_rows = rows.dim(0);
    const int64_t width = part_.columns.width();
    whole_.resize(static_cast<size_t>(rows.num_elements()));
    convert_to_float(rows, whole_.data());
    kept_.resize(static_cast<size_t>(num_rows * width));
    part_.columns.for_each_range([&](const kernels::ColumnRange& range, int64_t row_begin) {
      for (int64_t row = 0; row < num_rows; ++row) {
        std::copy_n(whole_.data() + row * rows.dim(1) + range.begin,
                    range.count,
                    kept_.data() + row * width + row_begin);
      }
    });
    return {kept_.data(), DType::kFloat32, {num_rows, width}};
  }

  /// [w, dn]: what a query of decode head `head` is multiplied by to match this rank's cache rows.
  /// `rows` [dn, R]: its keys. Where the latent is sliced, the fitted keys replace them, or the
  /// logit factor multiplies the slice's own columns.
  ConstTensorView keys(const ConstTensorView& rows, int64_t head) {
    const int64_t width = part_.columns.width();
    const bool is_sliced = plan_.is_sliced(layer_);
    if (is_sliced && !transform_.keys(layer_, plan_.slice).empty()) {
      const int64_t begin = (part_.decode_heads.begin + head) * width * rows.dim(0);
      return {transform_.keys(layer_, plan_.slice).data() + begin,
              DType::kFloat32,
              {width, rows.dim(0)}};
    }
    const kernels::TensorView kept = kept_columns(rows);
    const double factor = is_sliced ? transform_.logit_factor(layer_, plan_.num_slices) : 1.0;
    for (int64_t row = 0; row < kept.dim(0) && factor != 1.0; ++row) {
      for (int64_t column = part_.num_shared; column < width; ++column) {
        kept.as<float>()[row * width + column] *= static_cast<float>(factor);
      }
    }
    return transposed(kept);
  }

  /// `rows` [dv, R]: the values of one head. Every slice has its mean of the shared columns, and
  /// they are added up: each gives an equal part.
  ConstTensorView values(const ConstTensorView& rows) {
    const kernels::TensorView kept = kept_columns(rows);
    const int64_t num_shared = part_.group_size > 1 ? part_.num_shared : 0;
    const float share = 1.0F / static_cast<float>(plan_.num_slices);
    for (int64_t row = 0; row < kept.dim(0); ++row) {
      for (int64_t column = 0; column < num_shared; ++column) {
        kept.as<float>()[row * kept.dim(1) + column] *= share;
      }
    }
    return kept;
  }

  void pack_output() {
    const IndexRange columns = features(plan_.own_heads, config_.v_head_dim);
    weights_.output = packer_.linear({{prefix_ + "o_proj.weight", std::nullopt, columns}});
    if (config_.attention_bias && plan_.rank == 0) {  // the ranks' results are added up
      weights_.output_bias = packer_.vector({prefix_ + "o_proj.bias"});
    }
  }

  const ModelConfig& config_;
  const ShardPlan& plan_;
  const ShardPlan::Layer& part_;
  const TplaTransform& transform_;
  const AttentionForms forms_;
  const int64_t layer_;
  const std::string prefix_;
  WeightPacker& packer_;
  AttentionWeights weights_;
  std::vector<float> whole_;  // rows of one head, all columns
  std::vector<float> kept_;   // rows of one head, the rank's columns
};

}  // namespace

AttentionWeights pack_attention(const ShardContext& shard, int64_t layer, WeightPacker& packer) {
  return AttentionPacker(shard, layer, packer).pack();
}

}  // namespace tessera
