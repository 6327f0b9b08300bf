#include "tests/support/tpla_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "tests/support/reference_ops.h"

namespace tessera::testing {
namespace {

/// (A^-1)^T by Gauss and Jordan, in double; empty for the identity.
Array inverse_transposed(const Array& matrix) {
  if (matrix.values.empty()) {
    return {};
  }
  const int64_t n = matrix.dim(0);
  Array left = matrix;
  Array right({n, n});
  for (int64_t i = 0; i < n; ++i) {
    right.at(i, i) = 1.0;
  }
  for (int64_t pivot = 0; pivot < n; ++pivot) {
    int64_t best = pivot;
    for (int64_t i = pivot; i < n; ++i) {
      best = std::abs(left.at(i, pivot)) > std::abs(left.at(best, pivot)) ? i : best;
    }
    const double scale = 1.0 / left.at(best, pivot);
    for (int64_t j = 0; j < n; ++j) {
      std::swap(left.at(pivot, j), left.at(best, j));
      std::swap(right.at(pivot, j), right.at(best, j));
      left.at(pivot, j) *= scale;
      right.at(pivot, j) *= scale;
    }
    for (int64_t i = 0; i < n; ++i) {
      const double factor = i == pivot ? 0.0 : left.at(i, pivot);
      const double* left_pivot = left.row(pivot);
      const double* right_pivot = right.row(pivot);
      double* left_row = &left.at(i, 0);
      double* right_row = &right.at(i, 0);
      for (int64_t j = 0; j < n; ++j) {
        left_row[j] -= factor * left_pivot[j];
        right_row[j] -= factor * right_pivot[j];
      }
    }
  }
  Array transposed({n, n});
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      transposed.at(j, i) = right.at(i, j);
    }
  }
  return transposed;
}

class Model {
 public:
  Model(const ModelConfig& config, const Checkpoint& checkpoint, const TplaReference& options)
      : config_(config), checkpoint_(checkpoint), options_(options) {
    if (static_cast<int64_t>(options.layers.size()) != config.num_hidden_layers) {
      throw std::invalid_argument("the reference wants every layer");
    }
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
    Array latent;  ///< [T, R]: c / rms, times A
    Array rope;    ///< [T, dr]
    Array kv_up;   ///< [H (dn + dv), R]: rows times diag(gamma) A^-T
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

  /// Rows of `x` [n, R] times `matrix`; as they are where it is empty.
  [[nodiscard]] static Array times(const Array& x, const Array& matrix) {
    if (matrix.values.empty()) {
      return x;
    }
    Array out({x.dim(0), x.dim(1)});
    for (int64_t t = 0; t < x.dim(0); ++t) {
      double* sums = &out.at(t, 0);
      for (int64_t i = 0; i < x.dim(1); ++i) {
        const double factor = x.at(t, i);
        const double* row = matrix.row(i);
        for (int64_t j = 0; j < x.dim(1); ++j) {
          sums[j] += factor * row[j];
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
    out.latent =
        times(reference::rms_norm(columns(down, 0, rank), ones, 1e-6), this->layer(layer).basis);
    Array kv_up = tensor(prefix + "kv_b_proj.weight");
    const Array gamma = tensor(prefix + "kv_a_layernorm.weight");
    for (int64_t row = 0; row < kv_up.dim(0); ++row) {
      for (int64_t j = 0; j < rank; ++j) {
        kv_up.at(row, j) *= gamma.at(j);
      }
    }
    out.kv_up = times(kv_up, inverse_transposed(this->layer(layer).basis));
    return out;
  }

  [[nodiscard]] const TplaReference::Layer& layer(int64_t index) const {
    return options_.layers[static_cast<size_t>(index)];
  }

  /// One softmax: what it matches and what it sums.
  struct Part {
    int64_t slice = -1;                 ///< of the fitted keys; -1: they are not for it
    std::vector<int64_t> columns = {};  ///< of the latent
    size_t num_shared = 0;       ///< the first of `columns` that the logit factor leaves alone
    double shared_weight = 1.0;  ///< of those columns as values: every slice adds its own
  };
  /// All columns, with the model's own keys.
  [[nodiscard]] Part whole_part() const {
    Part whole;
    for (int64_t j = 0; j < config_.kv_lora_rank; ++j) {
      whole.columns.push_back(j);
    }
    whole.num_shared = whole.columns.size();
    return whole;
  }
  [[nodiscard]] std::vector<Part> parts(int64_t index, bool is_prompt) const {
    const int64_t slices = options_.num_slices;
    const int64_t rank = config_.kv_lora_rank;
    const int64_t shared = layer(index).num_shared;
    std::vector<Part> all;
    if (is_prompt || slices == 1 || shared == rank) {
      return {whole_part()};
    }
    const int64_t own = (rank - shared) / slices;
    for (int64_t slice = 0; slice < slices; ++slice) {
      Part part;
      part.slice = slice;
      for (int64_t j = 0; j < shared; ++j) {
        part.columns.push_back(j);
      }
      part.shared_weight = 1.0 / static_cast<double>(slices);
      part.num_shared = part.columns.size();
      for (int64_t j = shared + slice * own; j < shared + (slice + 1) * own; ++j) {
        part.columns.push_back(j);
      }
      all.push_back(part);
    }
    return all;
  }

  struct Row {
    int64_t layer = 0;
    int64_t token = 0;
    int64_t head = 0;
  };

  /// What the part's columns are multiplied by to match one head's query.
  [[nodiscard]] std::vector<double> query(const Heads& in, const Row& at, const Part& part) const {
    const TplaReference::Layer& options = layer(at.layer);
    const int64_t row = at.head * (config_.qk_nope_head_dim + config_.v_head_dim);
    const bool is_fitted = part.slice >= 0 && !options.keys.values.empty();
    std::vector<double> query(part.columns.size(), 0.0);
    for (size_t c = 0; c < query.size(); ++c) {
      for (int64_t i = 0; i < config_.qk_nope_head_dim; ++i) {
        const double q = in.q_nope.at(at.token, at.head, i);
        query[c] +=
            q * (is_fitted ? options.keys.at(part.slice, at.head, static_cast<int64_t>(c), i)
                           : in.kv_up.at(row + i, part.columns[c]));
      }
      query[c] *= is_fitted || c < part.num_shared ? 1.0 : options.logit_factor;
    }
    return query;
  }

  /// Adds to `out` [dv] what one head of one token takes from one part.
  void attend(const Heads& in, const Row& at, const Part& part, double* out) const {
    const std::vector<double> query = this->query(in, at, part);
    const Part whole = whole_part();
    const std::vector<double> exact_query = this->query(in, at, whole);
    std::vector<double> weights;
    double max_logit = -std::numeric_limits<double>::infinity();
    for (int64_t key = 0; key <= at.token; ++key) {
      const bool is_exact = options_.window.contains(key, at.token + 1);
      const std::vector<double>& factors = is_exact ? exact_query : query;
      const std::vector<int64_t>& columns = is_exact ? whole.columns : part.columns;
      double dot = 0.0;
      for (size_t c = 0; c < factors.size(); ++c) {
        dot += factors[c] * in.latent.at(key, columns[c]);
      }
      for (int64_t j = 0; j < config_.qk_rope_head_dim; ++j) {
        dot += in.q_rope.at(at.token, at.head, j) * in.rope.at(key, j);
      }
      weights.push_back(dot / std::sqrt(static_cast<double>(config_.qk_head_dim())));
      max_logit = std::max(max_logit, weights.back());
    }
    double sum = 0.0;
    for (double& weight : weights) {
      weight = std::exp(weight - max_logit);
      sum += weight;
    }
    const int64_t dv = config_.v_head_dim;
    const int64_t row = at.head * (config_.qk_nope_head_dim + dv) + config_.qk_nope_head_dim;
    for (size_t c = 0; c < part.columns.size(); ++c) {
      double mean = 0.0;
      for (int64_t key = 0; key <= at.token; ++key) {
        mean += weights[static_cast<size_t>(key)] / sum * in.latent.at(key, part.columns[c]);
      }
      for (int64_t i = 0; i < dv; ++i) {
        out[i] += (c < part.num_shared ? part.shared_weight : 1.0) *
                  in.kv_up.at(row + i, part.columns[c]) * mean;
      }
    }
  }

  [[nodiscard]] Array attention(int64_t layer, const std::string& prefix, const Array& x) const {
    const Heads in = project(layer, prefix, x);
    const int64_t heads = config_.num_attention_heads;
    const int64_t dv = config_.v_head_dim;
    Array out({x.dim(0), heads * dv});
    for (int64_t t = 0; t < x.dim(0); ++t) {
      const std::vector<Part> all = parts(layer, t < options_.num_prompt_tokens);
      for (int64_t h = 0; h < heads; ++h) {
        for (const Part& part : all) {
          attend(in, {.layer = layer, .token = t, .head = h}, part, &out.at(t, h * dv));
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
