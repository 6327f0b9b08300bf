#include "engine/model/workspace.h"

#include <algorithm>
#include <numeric>

#include "kernels/ops/attention_params.h"

namespace tessera {

using kernels::DType;

namespace {

/// The largest of some number over the layers.
template <typename Count>
int64_t widest(const ShardPlan& plan, const Count& count) {
  int64_t width = 0;
  for (const ShardPlan::Layer& layer : plan.layers) {
    width = std::max(width, count(layer));
  }
  return width;
}

}  // namespace

Workspace::Workspace(const ModelConfig& config,
                     const ModelWeights& weights,
                     const StepLimits& limits,
                     kernels::Device& device)
    : device_(device) {
  const ShardPlan& plan = weights.plan;
  const DType dtype = weights.dtype;
  const int64_t t = limits.max_tokens;
  const int64_t b = std::min(limits.max_sequences, t);
  const int64_t d = config.hidden_size;
  using Layer = ShardPlan::Layer;
  const int64_t heads = widest(plan, [](const Layer& layer) { return layer.decode_heads.size(); });
  const int64_t h = plan.own_heads.size();
  const int64_t r = config.kv_lora_rank;
  const int64_t q_width = heads * config.qk_head_dim();
  const int64_t q_input = config.q_lora_rank > 0 ? config.q_lora_rank : q_width;
  const int64_t max_blocks =
      (limits.max_model_len + kernels::kBlockTokens - 1) / kernels::kBlockTokens;

  token_ids = add(DType::kInt32, {t});
  positions = add(DType::kInt32, {t});
  slots = add(DType::kInt64, {t});
  decode_lengths = add(DType::kInt32, {b});
  if (!plan.window.is_empty()) {
    window_slots = add(DType::kInt64, {t});
    window_first_slots = add(DType::kInt64, {b});
    window_q_latent = add(dtype, {b, heads * r});
  }
  block_tables = add(DType::kInt32, {limits.max_sequences, max_blocks});
  logits_rows = add(DType::kInt32, {limits.max_logits_rows});

  hidden = add(DType::kFloat32, {t, d});
  normed = add(dtype, {t, d});
  delta = add(DType::kFloat32, {t, d});

  attention_input = add(DType::kFloat32, {t, q_input + config.latent_row_width()});
  q_normed = add(dtype, {t, std::max<int64_t>(config.q_lora_rank, 1)});
  q = add(dtype, {t, q_width});
  if (std::any_of(weights.layers.begin(), weights.layers.end(), [](const LayerWeights& layer) {
        return layer.attention.latent_basis != nullptr;
      })) {
    latent = add(DType::kFloat32, {t, r});
  }
  q_latent = add(dtype, {b, widest(plan, [](const Layer& layer) {
                           return layer.decode_heads.size() * layer.columns.width();
                         })});
  attended_latent = add(dtype, {b, widest(plan, [](const Layer& layer) {
                                  return layer.decode_heads.size() * layer.columns.width();
                                })});
  log_sum_exp = add(DType::kFloat32, {b, heads});
  if (plan.attention_group_size() > 1) {
    partial_values = add(DType::kFloat32, {b, heads * config.v_head_dim});
    own_values = add(DType::kFloat32, {b, h * config.v_head_dim});
  }
  if (plan.attention == AttentionSharding::kDcp) {
    all_log_sum_exp = add(DType::kFloat32, {plan.num_ranks, b, heads});
  }
  context_latent = add(dtype, {limits.context_tile, r});
  context_rope = add(dtype, {limits.context_tile, config.qk_rope_head_dim});
  context_kv = add(dtype, {limits.context_tile, h * (config.qk_nope_head_dim + config.v_head_dim)});
  if (limits.has_float8_cache && plan.attention_group_size() > 1) {
    add_rounding(config, limits.context_tile);
  }
  accumulator = add(DType::kFloat32, {t, h, config.v_head_dim});
  max_logit = add(DType::kFloat32, {t, h});
  sum = add(DType::kFloat32, {t, h});
  attention_output = add(dtype, {t, h * config.v_head_dim});

  const int64_t shared_width = config.n_shared_experts * config.moe_intermediate_size;
  const int64_t mlp_width = std::max(plan.inner_features(config.intermediate_size).size(),
                                     plan.inner_features(shared_width).size());
  gate_up = add(DType::kFloat32, {t, 2 * mlp_width});
  activated = add(dtype, {t, mlp_width});

  if (config.n_routed_experts > 0) {
    const int64_t k = config.num_experts_per_tok;
    const int64_t i = config.moe_intermediate_size;
    gate_input = add(DType::kFloat32, {t, d});
    gate_logits = add(DType::kFloat32, {t, config.n_routed_experts});
    expert_ids = add(DType::kInt32, {t, k});
    expert_weights = add(DType::kFloat32, {t, k});
    permuted = add(dtype, {t * k, d});
    expert_offsets = add(DType::kInt32, {config.n_routed_experts + 1});
    row_of_pair = add(DType::kInt32, {t, k});
    expert_gate_up = add(DType::kFloat32, {t * k, 2 * i});
    expert_activated = add(dtype, {t * k, i});
    expert_out = add(DType::kFloat32, {t * k, d});
  }

  last_hidden = add(DType::kFloat32, {limits.max_logits_rows, d});
  last_delta = add(DType::kFloat32, {limits.max_logits_rows, d});
  last_normed = add(dtype, {limits.max_logits_rows, d});
  own_logits = add(DType::kFloat32, {limits.max_logits_rows, plan.vocabulary.size()});
  if (plan.num_ranks == 1) {
    logits = own_logits;
  } else if (plan.rank == 0) {
    logits = add(DType::kFloat32, {limits.max_logits_rows, config.vocab_size});
  }
}

void Workspace::add_rounding(const ModelConfig& config, int64_t context_tile) {
  const int64_t num_blocks = (context_tile + kernels::kBlockTokens - 1) / kernels::kBlockTokens;
  const int64_t num_rows = num_blocks * kernels::kBlockTokens;
  const int64_t row_bytes =
      kernels::latent_row_layout(DType::kFloat8E4M3, config.kv_lora_rank, config.qk_rope_head_dim)
          .row_bytes;
  rounding_rows = add(DType::kUint8, {num_rows, row_bytes});
  rounding_slots = add(DType::kInt64, {num_rows});
  rounding_table = add(DType::kInt32, {num_blocks});
  std::vector<int64_t> rows(static_cast<size_t>(num_rows));
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<int32_t> blocks(static_cast<size_t>(num_blocks));
  std::iota(blocks.begin(), blocks.end(), 0);
  device_.copy_from_host(
      rounding_slots.data, rows.data(), num_rows * static_cast<int64_t>(sizeof(int64_t)), {});
  device_.copy_from_host(
      rounding_table.data, blocks.data(), num_blocks * static_cast<int64_t>(sizeof(int32_t)), {});
}

kernels::TensorView Workspace::add(DType dtype, std::initializer_list<int64_t> shape) {
  kernels::TensorView view(nullptr, dtype, shape);
  const int64_t num_bytes = view.num_elements() * kernels::dtype_bytes(dtype);
  buffers_.push_back(device_.allocate(num_bytes));
  num_bytes_ += num_bytes;
  view.data = buffers_.back().data();
  return view;
}

}  // namespace tessera
