#include "engine/model/decode_attention.h"

namespace tessera {

using kernels::LatentCacheView;
using kernels::StreamView;
using kernels::TensorView;

DecodeAttention::DecodeAttention(const ModelConfig& config,
                                 const ShardPlan& plan,
                                 const RankContext& ranks,
                                 Workspace& workspace)
    : config_(config),
      plan_(plan),
      attention_group_(ranks.attention),
      workspace_(workspace),
      ops_(ranks.backend->ops()),
      softmax_scale_(config.softmax_scale()) {}

void DecodeAttention::forward(const AttentionWeights& weights,
                              const LatentCacheView& cache,
                              int64_t num_decode,
                              StreamView stream) {
  attend(weights, cache, num_decode, stream);
  const TensorView attended = first_rows(workspace_.attended_latent, num_decode);
  if (plan_.attention_group_size() == 1) {
    ops_.batched_linear({.x = attended,
                         .weight = weights.value_up.get(),
                         .out = first_rows(workspace_.attention_output, num_decode)
                                    .split_last(plan_.own_heads.size(), config_.v_head_dim)},
                        stream);
    return;
  }
  // Up-projected before the sum: dv instead of R numbers a head travel between the ranks.
  const TensorView partial = first_rows(workspace_.partial_values, num_decode);
  ops_.batched_linear({.x = attended, .weight = weights.value_up.get(), .out = partial}, stream);
  merge(partial, stream);
}

void DecodeAttention::attend(const AttentionWeights& weights,
                             const LatentCacheView& cache,
                             int64_t num_decode,
                             StreamView stream) {
  const TensorView q = first_rows(workspace_.q, num_decode)
                           .split_last(plan_.decode_heads.size(), config_.qk_head_dim());
  const TensorView q_latent = first_rows(workspace_.q_latent, num_decode);
  ops_.batched_linear({.x = q.slice(2, 0, config_.qk_nope_head_dim),
                       .weight = weights.key_absorb.get(),
                       .out = q_latent},
                      stream);
  ops_.mla_decode({.q_latent = q_latent,
                   .q_rope = q.slice(2, config_.qk_nope_head_dim, config_.qk_rope_head_dim),
                   .cache = cache,
                   .block_tables = first_rows(workspace_.block_tables, num_decode),
                   .lengths = first_rows(workspace_.decode_lengths, num_decode),
                   .scale = softmax_scale_,
                   .out = first_rows(workspace_.attended_latent, num_decode),
                   .log_sum_exp = first_rows(workspace_.log_sum_exp, num_decode)},
                  stream);
}

void DecodeAttention::merge(const TensorView& partial, StreamView stream) {
  const int64_t num_decode = partial.dim(0);
  if (plan_.attention == AttentionSharding::kDcp) {
    const TensorView own = first_rows(workspace_.log_sum_exp, num_decode);
    const TensorView all(
        workspace_.all_log_sum_exp.data, own.dtype, {plan_.num_ranks, num_decode, own.dim(1)});
    attention_group_->all_gather(own, all, stream);
    ops_.merge_scale({.log_sum_exp = all, .part = plan_.rank, .values = partial}, stream);
  }
  const TensorView output = first_rows(workspace_.attention_output, num_decode);
  const bool is_float = output.dtype == kernels::DType::kFloat32;
  const TensorView sum = is_float ? output : first_rows(workspace_.own_values, num_decode);
  attention_group_->reduce_scatter_heads(
      partial, sum.split_last(plan_.own_heads.size(), config_.v_head_dim), stream);
  if (!is_float) {
    ops_.cast({.x = sum, .out = output}, stream);
  }
}

}  // namespace tessera
