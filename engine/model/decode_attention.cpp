#include "engine/model/decode_attention.h"

#include <optional>

namespace tessera {

using kernels::LatentColumns;
using kernels::StreamView;
using kernels::TensorView;

namespace {

/// The first rows of a buffer that is sized for the layer that needs most, for `heads` heads of
/// `width` numbers each.
TensorView rows_of_heads(const TensorView& buffer, int64_t rows, int64_t heads, int64_t width) {
  return {buffer.data, buffer.dtype, {rows, heads, width}};
}

}  // namespace

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

void DecodeAttention::forward(const Layer& layer, int64_t num_decode, StreamView stream) {
  const TensorView attended = attend(layer, num_decode, stream);
  const kernels::LinearWeight* value_up = layer.weights.value_up.get();
  if (layer.part.group_size == 1) {
    ops_.batched_linear({.x = attended,
                         .weight = value_up,
                         .out = first_rows(workspace_.attention_output, num_decode)
                                    .split_last(plan_.own_heads.size(), config_.v_head_dim)},
                        stream);
    return;
  }
  // Up-projected before the sum: dv instead of R numbers a head travel between the ranks.
  const TensorView partial = rows_of_heads(
      workspace_.partial_values, num_decode, layer.part.decode_heads.size(), config_.v_head_dim);
  ops_.batched_linear({.x = attended, .weight = value_up, .out = partial}, stream);
  merge(partial, stream);
}

TensorView DecodeAttention::attend(const Layer& layer, int64_t num_decode, StreamView stream) {
  const int64_t num_heads = layer.part.decode_heads.size();
  const LatentColumns& columns = layer.part.columns;
  const TensorView q = first_rows(workspace_.q, num_decode)
                           .slice(1, 0, num_heads * config_.qk_head_dim())
                           .split_last(num_heads, config_.qk_head_dim());
  const TensorView q_latent =
      rows_of_heads(workspace_.q_latent, num_decode, num_heads, columns.width());
  const TensorView attended =
      rows_of_heads(workspace_.attended_latent, num_decode, num_heads, columns.width());
  const TensorView q_nope = q.slice(2, 0, config_.qk_nope_head_dim);
  ops_.batched_linear({.x = q_nope, .weight = layer.weights.key_absorb.get(), .out = q_latent},
                      stream);
  std::optional<kernels::DecodeWindow> window;
  if (layer.window != nullptr) {
    window = decode_window(layer, q_nope, stream);
  }
  ops_.mla_decode({.q_latent = q_latent,
                   .q_rope = q.slice(2, config_.qk_nope_head_dim, config_.qk_rope_head_dim),
                   .cache = layer.cache,
                   .block_tables = first_rows(workspace_.block_tables, num_decode),
                   .lengths = first_rows(workspace_.decode_lengths, num_decode),
                   .scale = softmax_scale_,
                   .window = window,
                   .out = attended,
                   .log_sum_exp = log_sum_exp(num_decode, num_heads)},
                  stream);
  return attended;
}

kernels::DecodeWindow DecodeAttention::decode_window(const Layer& layer,
                                                     const TensorView& q_nope,
                                                     StreamView stream) {
  const int64_t num_decode = q_nope.dim(0);
  const TensorView q_latent =
      rows_of_heads(workspace_.window_q_latent, num_decode, q_nope.dim(1), config_.kv_lora_rank);
  ops_.batched_linear(
      {.x = q_nope, .weight = layer.weights.window_key_absorb.get(), .out = q_latent}, stream);
  return {.cache = layer.window->layer_view(layer.index),
          .ring = layer.window->ring(),
          .columns = layer.part.columns,
          .q_latent = q_latent,
          .first_slots = first_rows(workspace_.window_first_slots, num_decode)};
}

TensorView DecodeAttention::log_sum_exp(int64_t num_decode, int64_t num_heads) const {
  return {workspace_.log_sum_exp.data, workspace_.log_sum_exp.dtype, {num_decode, num_heads}};
}

void DecodeAttention::merge(const TensorView& partial, StreamView stream) {
  const int64_t num_decode = partial.dim(0);
  if (plan_.attention == AttentionSharding::kDcp) {
    const TensorView own = log_sum_exp(num_decode, partial.dim(1));
    const TensorView all(
        workspace_.all_log_sum_exp.data, own.dtype, {plan_.num_ranks, num_decode, own.dim(1)});
    attention_group_->all_gather(own, all, stream);
    ops_.merge_scale({.log_sum_exp = all, .part = plan_.rank, .values = partial}, stream);
  }
  const TensorView output = first_rows(workspace_.attention_output, num_decode);
  const TensorView sum = output.dtype == kernels::DType::kFloat32
                             ? output
                             : first_rows(workspace_.own_values, num_decode);
  const auto in_heads = [&](const TensorView& rows) {
    return rows.split_last(plan_.own_heads.size(), config_.v_head_dim);
  };
  attention_group_->reduce_scatter_heads(partial, in_heads(sum), in_heads(output), ops_, stream);
}

}  // namespace tessera
