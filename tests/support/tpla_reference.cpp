#include "tests/support/tpla_reference.h"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "tests/support/reference_ops.h"

namespace tessera::testing {
namespace {

class Model {
 public:
  Model(const ModelConfig& config, const Checkpoint& checkpoint, const TplaReference& options)
      : config_(config), checkpoint_(checkpoint), options_(options) {
    if (config.yarn) {
      throw std::invalid_argument("the reference knows plain RoPE only");
    }
  }

  Array logits(const std::vector<int32_t>& ids) {
    const Array embedding = tensor("model.embed_tokens.weight");
    Array hidden = reference::gather_rows(embedding, ids);
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      add(hidden,
          attention(layer, prefix + "self_attn.", norm(hidden, prefix + "input_layernorm")));
      const Array x = norm(hidden, prefix + "post_attention_layernorm");
      add(hidden,
          config_.is_moe_layer(layer) ? experts(prefix + "mlp.", x) : mlp(prefix + "mlp.", x));
    }
    const Array x = norm(hidden, "model.norm");
    return reference::linear(
        x, config_.tie_word_embeddings ? embedding : tensor("lm_head.weight"), {});
  }

 private:
  [[nodiscard]] Array tensor(const std::string& name) const {
    const auto view = checkpoint_.find(name);
    if (!view) {
      throw std::invalid_argument(name + " is missing");
    }
    Array array(std::vector<int64_t>(view->shape.begin(), view->shape.begin() + view->rank));
    for (size_t i = 0; i < array.values.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      array.values[i] = view->dtype == kernels::DType::kFloat32
                            ? static_cast<double>(view->as<float>()[at])
                            : static_cast<double>(view->as<kernels::BFloat16>()[at].to_float());
    }
    return array;
  }
  /// Zero-filled where the model has no such bias.
  [[nodiscard]] Array bias(const std::string& name) const {
    return checkpoint_.has(name) ? tensor(name) : Array();
  }
  [[nodiscard]] Array norm(const Array& x, const std::string& name) const {
    return reference::rms_norm(x, tensor(name + ".weight"), config_.rms_norm_eps);
  }
  static void add(Array& x, const Array& y) {
    for (size_t i = 0; i < x.values.size(); ++i) {
      x.values[i] += y.values[i];
    }
  }
  /// Columns [begin, end) of a matrix.
  static Array columns(const Array& x, int64_t begin, int64_t end) {
    Array part({x.dim(0), end - begin});
    for (int64_t t = 0; t < x.dim(0); ++t) {
      for (int64_t j = begin; j < end; ++j) {
        part.at(t, j - begin) = x.at(t, j);
      }
    }
    return part;
  }

  /// Rotates `x` [T, n, dr]; token t stands at position t.
  [[nodiscard]] Array rotate(const Array& x) const {
    const int64_t pairs = config_.qk_rope_head_dim / 2;
    reference::Rope rope;
    rope.cos = Array({x.dim(0), pairs});
    rope.sin = Array({x.dim(0), pairs});
    rope.is_interleaved = config_.rope_interleave;
    for (int64_t t = 0; t < x.dim(0); ++t) {
      rope.positions.push_back(static_cast<int32_t>(t));
      for (int64_t i = 0; i < pairs; ++i) {
        const double angle =
            static_cast<double>(t) *
            std::pow(config_.rope_theta, -static_cast<double>(i) / static_cast<double>(pairs));
        rope.cos.at(t, i) = std::cos(angle);
        rope.sin.at(t, i) = std::sin(angle);
      }
    }
    return reference::rope(x, rope);
  }

  struct Heads {
    Array q_nope;  ///< [T, H, dn]
    Array q_rope;  ///< [T, H, dr]
    Array latent;  ///< [T, R]: c / rms, in the layer's basis
    Array rope;    ///< [T, dr]
    Array kv_up;   ///< [H (dn + dv), R]: rows times diag(gamma) U
  };

  [[nodiscard]] Array project_queries(const std::string& prefix, const Array& x) const {
    if (config_.q_lora_rank == 0) {
      return reference::linear(x, tensor(prefix + "q_proj.weight"), {});
    }
    const Array low =
        reference::linear(x, tensor(prefix + "q_a_proj.weight"), bias(prefix + "q_a_proj.bias"));
    const Array normed = reference::rms_norm(low, tensor(prefix + "q_a_layernorm.weight"), 1e-6);
    return reference::linear(normed, tensor(prefix + "q_b_proj.weight"), {});
  }

  /// Rows of `x` [n, R] times U.
  [[nodiscard]] Array to_basis(const Array& x, int64_t layer) const {
    if (options_.bases.empty()) {
      return x;
    }
    const Array& basis = options_.bases[static_cast<size_t>(layer)];
    Array out({x.dim(0), x.dim(1)});
    for (int64_t t = 0; t < x.dim(0); ++t) {
      for (int64_t i = 0; i < x.dim(1); ++i) {
        for (int64_t j = 0; j < x.dim(1); ++j) {
          out.at(t, j) += x.at(t, i) * basis.at(i, j);
        }
      }
    }
    return out;
  }

  [[nodiscard]] Heads project(int64_t layer, const std::string& prefix, const Array& x) const {
    const int64_t heads = config_.num_attention_heads;
    const int64_t dn = config_.qk_nope_head_dim;
    const int64_t dr = config_.qk_rope_head_dim;
    const int64_t rank = config_.kv_lora_rank;
    const Array q = project_queries(prefix, x);
    const Array down = reference::linear(
        x, tensor(prefix + "kv_a_proj_with_mqa.weight"), bias(prefix + "kv_a_proj_with_mqa.bias"));
    Heads out;
    out.q_nope = Array({x.dim(0), heads, dn});
    Array q_rope({x.dim(0), heads, dr});
    for (int64_t t = 0; t < x.dim(0); ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t j = 0; j < dn + dr; ++j) {
          (j < dn ? out.q_nope.at(t, h, j) : q_rope.at(t, h, j - dn)) = q.at(t, h * (dn + dr) + j);
        }
      }
    }
    out.q_rope = rotate(q_rope);
    Array k_rope = columns(down, rank, rank + dr);
    k_rope.shape = {x.dim(0), 1, dr};
    out.rope = rotate(k_rope);
    out.rope.shape = {x.dim(0), dr};
    const Array ones({rank}, 1.0);
    out.latent = to_basis(reference::rms_norm(columns(down, 0, rank), ones, 1e-6), layer);
    Array kv_up = tensor(prefix + "kv_b_proj.weight");
    const Array gamma = tensor(prefix + "kv_a_layernorm.weight");
    for (int64_t row = 0; row < kv_up.dim(0); ++row) {
      for (int64_t j = 0; j < rank; ++j) {
        kv_up.at(row, j) *= gamma.at(j);
      }
    }
    out.kv_up = to_basis(kv_up, layer);
    return out;
  }

  /// Adds to `out` [dv] what head h of token t takes from latent columns [begin, end).
  void attend(
      const Heads& in, int64_t t, int64_t h, int64_t begin, int64_t end, double* out) const {
    const int64_t dn = config_.qk_nope_head_dim;
    const int64_t dv = config_.v_head_dim;
    const int64_t row = h * (dn + dv);
    const bool is_whole = end - begin == config_.kv_lora_rank;
    const double factor = is_whole ? 1.0 : options_.logit_factor;
    std::vector<double> query(static_cast<size_t>(end - begin), 0.0);
    for (int64_t j = begin; j < end; ++j) {
      for (int64_t i = 0; i < dn; ++i) {
        query[static_cast<size_t>(j - begin)] +=
            factor * in.q_nope.at(t, h, i) * in.kv_up.at(row + i, j);
      }
    }
    std::vector<double> weights;
    double max_logit = -std::numeric_limits<double>::infinity();
    for (int64_t key = 0; key <= t; ++key) {
      double dot = 0.0;
      for (int64_t j = begin; j < end; ++j) {
        dot += query[static_cast<size_t>(j - begin)] * in.latent.at(key, j);
      }
      for (int64_t j = 0; j < config_.qk_rope_head_dim; ++j) {
        dot += in.q_rope.at(t, h, j) * in.rope.at(key, j);
      }
      weights.push_back(dot / std::sqrt(static_cast<double>(config_.qk_head_dim())));
      max_logit = std::max(max_logit, weights.back());
    }
    double sum = 0.0;
    for (double& weight : weights) {
      weight = std::exp(weight - max_logit);
      sum += weight;
    }
    for (int64_t j = begin; j < end; ++j) {
      double mean = 0.0;
      for (int64_t key = 0; key <= t; ++key) {
        mean += weights[static_cast<size_t>(key)] / sum * in.latent.at(key, j);
      }
      for (int64_t i = 0; i < dv; ++i) {
        out[i] += in.kv_up.at(row + dn + i, j) * mean;
      }
    }
  }

  [[nodiscard]] Array attention(int64_t layer, const std::string& prefix, const Array& x) const {
    const Heads in = project(layer, prefix, x);
    const int64_t heads = config_.num_attention_heads;
    const int64_t dv = config_.v_head_dim;
    Array out({x.dim(0), heads * dv});
    for (int64_t t = 0; t < x.dim(0); ++t) {
      const int64_t slices = t < options_.num_prompt_tokens ? 1 : options_.num_slices;
      const int64_t width = config_.kv_lora_rank / slices;
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t slice = 0; slice < slices; ++slice) {
          attend(in, t, h, slice * width, (slice + 1) * width, &out.at(t, h * dv));
        }
      }
    }
    return reference::linear(out, tensor(prefix + "o_proj.weight"), bias(prefix + "o_proj.bias"));
  }

  [[nodiscard]] Array mlp(const std::string& prefix, const Array& x) const {
    const Array gate = reference::linear(x, tensor(prefix + "gate_proj.weight"), {});
    const Array up = reference::linear(x, tensor(prefix + "up_proj.weight"), {});
    Array both({x.dim(0), 2 * gate.dim(1)});
    for (int64_t t = 0; t < x.dim(0); ++t) {
      for (int64_t j = 0; j < gate.dim(1); ++j) {
        both.at(t, j) = gate.at(t, j);
        both.at(t, gate.dim(1) + j) = up.at(t, j);
      }
    }
    return reference::linear(reference::silu_mul(both), tensor(prefix + "down_proj.weight"), {});
  }

  [[nodiscard]] Array experts(const std::string& prefix, const Array& x) const {
    const Array logits = reference::linear(x, tensor(prefix + "gate.weight"), {});
    const auto choice = reference::moe_gate(logits,
                                            bias(prefix + "gate.e_score_correction_bias"),
                                            {.scoring = scoring(),
                                             .topk = topk(),
                                             .top_k = config_.num_experts_per_tok,
                                             .num_groups = config_.n_group,
                                             .num_kept_groups = config_.topk_group,
                                             .normalize = config_.norm_topk_prob,
                                             .scale = config_.routed_scaling_factor});
    Array out = config_.n_shared_experts > 0 ? mlp(prefix + "shared_experts.", x)
                                             : Array({x.dim(0), x.dim(1)});
    for (int64_t expert = 0; expert < config_.n_routed_experts; ++expert) {
      const Array y = mlp(prefix + "experts." + std::to_string(expert) + ".", x);
      for (int64_t t = 0; t < x.dim(0); ++t) {
        for (int64_t k = 0; k < config_.num_experts_per_tok; ++k) {
          if (choice.expert_ids.at(t, k) != static_cast<double>(expert)) {
            continue;
          }
          for (int64_t j = 0; j < x.dim(1); ++j) {
            out.at(t, j) += choice.expert_weights.at(t, k) * y.at(t, j);
          }
        }
      }
    }
    return out;
  }
  [[nodiscard]] kernels::MoeScoring scoring() const {
    return config_.scoring_func == ScoringFunction::kSigmoid ? kernels::MoeScoring::kSigmoid
                                                             : kernels::MoeScoring::kSoftmax;
  }
  [[nodiscard]] kernels::MoeTopk topk() const {
    switch (config_.topk_method) {
      case TopkMethod::kGreedy:
        return kernels::MoeTopk::kGreedy;
      case TopkMethod::kGroupLimitedGreedy:
        return kernels::MoeTopk::kGroupLimitedGreedy;
      case TopkMethod::kNoauxTc:
        return kernels::MoeTopk::kNoauxTc;
    }
    return kernels::MoeTopk::kGreedy;
  }

  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  const TplaReference& options_;
};

}  // namespace

Array tpla_reference_logits(const ModelConfig& config,
                            const Checkpoint& checkpoint,
                            const std::vector<int32_t>& ids,
                            const TplaReference& options) {
  return Model(config, checkpoint, options).logits(ids);
}

}  // namespace tessera::testing
