#include "engine/model/mlp.h"

namespace tessera {

using kernels::StreamView;
using kernels::TensorView;

namespace {

kernels::MoeTopk to_kernel(TopkMethod method) {
  switch (method) {
    case TopkMethod::kGreedy:
      return kernels::MoeTopk::kGreedy;
    case TopkMethod::kGroupLimitedGreedy:
      return kernels::MoeTopk::kGroupLimitedGreedy;
    case TopkMethod::kNoauxTc:
      return kernels::MoeTopk::kNoauxTc;
  }
  return kernels::MoeTopk::kGreedy;
}

}  // namespace

void Mlp::forward_dense(const MlpWeights& weights, int64_t num_tokens, StreamView stream) {
  const int64_t width = weights.down->shape().in_features;
  // The buffers are as wide as the widest MLP: a narrower one uses them as a smaller matrix.
  const TensorView gate_up(
      workspace_.gate_up.data, workspace_.gate_up.dtype, {num_tokens, 2 * width});
  const TensorView activated(
      workspace_.activated.data, workspace_.activated.dtype, {num_tokens, width});
  ops_.linear({.x = first_rows(workspace_.normed, num_tokens),
               .weight = weights.gate_up.get(),
               .bias = {},
               .out = gate_up},
              stream);
  ops_.silu_mul({.x = gate_up, .out = activated}, stream);
  ops_.linear({.x = activated,
               .weight = weights.down.get(),
               .bias = {},
               .out = first_rows(workspace_.delta, num_tokens)},
              stream);
}

void Mlp::choose_experts(const MoeWeights& weights, int64_t num_tokens, StreamView stream) {
  TensorView gate_input = first_rows(workspace_.normed, num_tokens);
  if (gate_input.dtype != kernels::DType::kFloat32) {
    gate_input = first_rows(workspace_.gate_input, num_tokens);
    ops_.cast({.x = first_rows(workspace_.normed, num_tokens), .out = gate_input}, stream);
  }
  const TensorView logits = first_rows(workspace_.gate_logits, num_tokens);
  ops_.linear({.x = gate_input, .weight = weights.gate.get(), .bias = {}, .out = logits}, stream);
  ops_.moe_gate(
      {.logits = logits,
       .bias = weights.gate_bias.view,
       .scoring = config_.scoring_func == ScoringFunction::kSigmoid ? kernels::MoeScoring::kSigmoid
                                                                    : kernels::MoeScoring::kSoftmax,
       .topk = to_kernel(config_.topk_method),
       .num_groups = config_.n_group,
       .num_kept_groups = config_.topk_group,
       .normalize = config_.norm_topk_prob,
       .scale = static_cast<float>(config_.routed_scaling_factor),
       .expert_ids = first_rows(workspace_.expert_ids, num_tokens),
       .expert_weights = first_rows(workspace_.expert_weights, num_tokens)},
      stream);
}

void Mlp::forward_experts(const MoeWeights& weights, int64_t num_tokens, StreamView stream) {
  choose_experts(weights, num_tokens, stream);
  const bool has_shared = weights.shared.down != nullptr;
  if (has_shared) {
    forward_dense(weights.shared, num_tokens, stream);
  }
  const int64_t num_pairs = num_tokens * config_.num_experts_per_tok;
  const TensorView permuted = first_rows(workspace_.permuted, num_pairs);
  const TensorView row_of_pair = first_rows(workspace_.row_of_pair, num_tokens);
  const TensorView gate_up = first_rows(workspace_.expert_gate_up, num_pairs);
  const TensorView activated = first_rows(workspace_.expert_activated, num_pairs);
  const TensorView expert_out = first_rows(workspace_.expert_out, num_pairs);
  ops_.moe_permute({.x = first_rows(workspace_.normed, num_tokens),
                    .expert_ids = first_rows(workspace_.expert_ids, num_tokens),
                    .permuted = permuted,
                    .offsets = workspace_.expert_offsets,
                    .row_of_pair = row_of_pair},
                   stream);
  const TensorView own_offsets =
      workspace_.expert_offsets.slice(0, plan_.experts.begin, plan_.experts.size() + 1);
  ops_.grouped_linear(
      {.x = permuted, .offsets = own_offsets, .weight = weights.gate_up.get(), .out = gate_up},
      stream);
  ops_.silu_mul({.x = gate_up, .out = activated}, stream);
  ops_.grouped_linear(
      {.x = activated, .offsets = own_offsets, .weight = weights.down.get(), .out = expert_out},
      stream);
  ops_.moe_combine({.expert_out = expert_out,
                    .row_of_pair = row_of_pair,
                    .expert_weights = first_rows(workspace_.expert_weights, num_tokens),
                    .offsets = own_offsets,
                    .accumulate = has_shared,
                    .out = first_rows(workspace_.delta, num_tokens)},
                   stream);
}

}  // namespace tessera
