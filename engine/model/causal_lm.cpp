#include "engine/model/causal_lm.h"

#include "engine/model/local_input.h"
#include "kernels/core/check.h"

namespace tessera {

using kernels::StreamView;
using kernels::TensorView;

CausalLm::CausalLm(const ModelConfig& config,
                   const ModelWeights& weights,
                   const StepLimits& limits,
                   const RankContext& ranks)
    : config_(config),
      weights_(weights),
      world_(weights.plan.num_ranks > 1 ? ranks.world : nullptr),
      device_(ranks.backend->device()),
      ops_(ranks.backend->ops()),
      workspace_(config, weights, limits, device_),
      table_capacity_(workspace_.block_tables.num_elements()),
      rope_(config, limits.max_model_len, device_),
      attention_(config, weights.plan, ranks, rope_, workspace_),
      mlp_(config, weights.plan, workspace_, ops_) {
  const ShardPlan& plan = weights.plan;
  TESSERA_CHECK(plan.num_ranks == 1 || (world_ != nullptr && world_->size() == plan.num_ranks &&
                                        world_->rank() == plan.rank),
                "the communicator is of other ranks than the weights");
  TESSERA_CHECK(
      plan.attention_group_size() == 1 ||
          (ranks.attention != nullptr && ranks.attention->size() == plan.attention_group_size()),
      "the attention subgroup is of another size than the weights'");
}

const ModelInput& CausalLm::upload(const ModelInput& of_group, StreamView stream) {
  const ModelInput& input = local_input(of_group);
  const auto copy = [&](const TensorView& target, const auto& values) {
    TESSERA_CHECK(static_cast<int64_t>(values.size()) <= target.num_elements(),
                  "the step is larger than its limits");
    const auto num_bytes = static_cast<int64_t>(values.size() * sizeof(values[0]));
    device_.copy_from_host(target.data, values.data(), num_bytes, stream);
  };
  // The step's tables are as wide as its longest one; the memory is for the widest of all.
  if (input.max_blocks_per_sequence > 0) {
    const int64_t width = input.max_blocks_per_sequence;
    workspace_.block_tables = TensorView(
        workspace_.block_tables.data, kernels::DType::kInt32, {table_capacity_ / width, width});
  }
  copy(workspace_.token_ids, input.token_ids);
  copy(workspace_.positions, input.positions);
  copy(workspace_.slots, input.slots);
  copy(workspace_.decode_lengths, input.decode_lengths);
  if (!weights_.plan.window.is_empty()) {
    TESSERA_CHECK(input.window_slots.size() == input.token_ids.size() &&
                      input.window_first_slots.size() == input.decode_lengths.size(),
                  "a group with an exact window is told where its rows lie");
    copy(workspace_.window_slots, input.window_slots);
    copy(workspace_.window_first_slots, input.window_first_slots);
  }
  copy(workspace_.block_tables, input.block_tables);
  copy(workspace_.logits_rows, input.logits_rows);
  return input;
}

const ModelInput& CausalLm::local_input(const ModelInput& input) {
  const ShardPlan& plan = weights_.plan;
  if (plan.attention != AttentionSharding::kDcp || plan.num_ranks == 1) {
    return input;
  }
  make_local_input(input, {plan.rank, plan.num_ranks}, local_input_);
  return local_input_;
}

TensorView CausalLm::forward(const ModelInput& input, const StepCache& cache, StreamView stream) {
  TESSERA_CHECK(weights_.plan.window.is_empty() == (cache.window == nullptr),
                "an exact window and a cache for it go together");
  return compute(upload(input, stream), cache, stream);
}

TensorView CausalLm::compute(const ModelInput& input, const StepCache& cache, StreamView stream) {
  ops_.embedding({.ids = first_rows(workspace_.token_ids, input.num_tokens()),
                  .table = weights_.embedding.view,
                  .out = first_rows(workspace_.hidden, input.num_tokens())},
                 stream);
  layers(input, cache, stream);
  return head(static_cast<int64_t>(input.logits_rows.size()), stream);
}

void CausalLm::layers(const ModelInput& input, const StepCache& cache, StreamView stream) {
  const int64_t num_tokens = input.num_tokens();
  const TensorView hidden = first_rows(workspace_.hidden, num_tokens);
  const TensorView normed = first_rows(workspace_.normed, num_tokens);
  const TensorView delta = first_rows(workspace_.delta, num_tokens);
  const auto epsilon = static_cast<float>(config_.rms_norm_eps);
  const size_t num_images = cache.images.size() / weights_.layers.size();
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const LayerWeights& layer = weights_.layers[i];
    // The previous sublayer's result joins the residual stream inside the next norm.
    ops_.rms_norm({.x = hidden,
                   .add = i == 0 ? TensorView{} : delta,
                   .weight = layer.input_norm.view,
                   .epsilon = epsilon,
                   .out = normed},
                  stream);
    attention_.forward({.weights = layer.attention,
                        .images = cache.images.subspan(i * num_images, num_images),
                        .window = cache.window,
                        .index = static_cast<int64_t>(i)},
                       input,
                       stream);
    add_up_delta(num_tokens, stream);
    ops_.rms_norm({.x = hidden,
                   .add = delta,
                   .weight = layer.post_attention_norm.view,
                   .epsilon = epsilon,
                   .out = normed},
                  stream);
    if (layer.mlp.down != nullptr) {
      mlp_.forward_dense(layer.mlp, num_tokens, stream);
    } else {
      mlp_.forward_experts(layer.moe, num_tokens, stream);
    }
    add_up_delta(num_tokens, stream);
  }
}

void CausalLm::add_up_delta(int64_t num_tokens, StreamView stream) {
  if (world_ != nullptr) {
    world_->all_reduce(first_rows(workspace_.delta, num_tokens), stream);
  }
}

TensorView CausalLm::head(int64_t num_rows, StreamView stream) {
  const TensorView logits =
      workspace_.logits.data == nullptr ? TensorView{} : first_rows(workspace_.logits, num_rows);
  if (num_rows == 0) {
    return logits;
  }
  const TensorView rows = first_rows(workspace_.logits_rows, num_rows);
  const TensorView hidden = first_rows(workspace_.last_hidden, num_rows);
  const TensorView normed = first_rows(workspace_.last_normed, num_rows);
  const TensorView delta = first_rows(workspace_.last_delta, num_rows);
  const TensorView own_logits = first_rows(workspace_.own_logits, num_rows);
  ops_.gather_rows({.x = workspace_.hidden, .rows = rows, .out = hidden}, stream);
  ops_.gather_rows({.x = workspace_.delta, .rows = rows, .out = delta}, stream);
  ops_.rms_norm({.x = hidden,
                 .add = delta,
                 .weight = weights_.final_norm.view,
                 .epsilon = static_cast<float>(config_.rms_norm_eps),
                 .out = normed},
                stream);
  ops_.linear({.x = normed, .weight = weights_.head.get(), .bias = {}, .out = own_logits}, stream);
  if (world_ != nullptr) {
    world_->all_gather_columns(own_logits, logits, stream);
  }
  return logits;
}

}  // namespace tessera
