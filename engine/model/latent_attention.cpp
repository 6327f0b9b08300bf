#include "engine/model/latent_attention.h"

#include <algorithm>

#include "kernels/core/check.h"

namespace tessera {

using kernels::StreamView;
using kernels::TensorView;

LatentAttention::LatentAttention(const ModelConfig& config,
                                 const ShardPlan& plan,
                                 const RankContext& ranks,
                                 const RopeTable& rope,
                                 Workspace& workspace)
    : config_(config),
      plan_(plan),
      rope_(rope),
      workspace_(workspace),
      ops_(ranks.backend->ops()),
      decode_(config, plan, ranks, workspace),
      observer_(ranks.observer),
      softmax_scale_(config.softmax_scale()) {}

void LatentAttention::forward(const Layer& layer, const ModelInput& input, StreamView stream) {
  const int64_t num_tokens = input.num_tokens();
  project(layer, num_tokens, stream);
  if (input.num_decode > 0) {
    TESSERA_CHECK(layer.images.size() == 1, "decode rows need a cache of one image");
    decode_.forward(layer.weights, layer.images[0].cache, input.num_decode, stream);
  }
  for (const PrefillChunk& chunk : input.chunks) {
    prefill(layer, chunk, stream);
  }
  ops_.linear({.x = first_rows(workspace_.attention_output, num_tokens),
               .weight = layer.weights.output.get(),
               .bias = layer.weights.output_bias.view,
               .out = first_rows(workspace_.delta, num_tokens)},
              stream);
}

LatentAttention::Projected LatentAttention::projected(int64_t num_tokens) const {
  const TensorView input = first_rows(workspace_.attention_input, num_tokens);
  const int64_t query_width = input.dim(1) - config_.latent_row_width();
  return {.query = input.slice(1, 0, query_width),
          .latent = input.slice(1, query_width, config_.kv_lora_rank),
          .rope = input.slice(1, query_width + config_.kv_lora_rank, config_.qk_rope_head_dim)};
}

void LatentAttention::project(const Layer& layer, int64_t num_tokens, StreamView stream) {
  const AttentionWeights& weights = layer.weights;
  ops_.linear({.x = first_rows(workspace_.normed, num_tokens),
               .weight = weights.input.get(),
               .bias = weights.input_bias.view,
               .out = first_rows(workspace_.attention_input, num_tokens)},
              stream);
  const Projected input = projected(num_tokens);
  project_queries(weights, input.query, stream);
  // Exact on every rank: all columns are computed, whichever of them are kept.
  ops_.rms_norm({.x = input.latent,
                 .add = {},
                 .weight = weights.kv_norm.view,
                 .epsilon = static_cast<float>(ModelConfig::kLatentNormEps),
                 .out = input.latent},
                stream);
  const TensorView q_heads = first_rows(workspace_.q, num_tokens)
                                 .split_last(plan_.decode_heads.size(), config_.qk_head_dim());
  for (const TensorView& rotated :
       {q_heads.slice(2, config_.qk_nope_head_dim, config_.qk_rope_head_dim),
        input.rope.split_last(1, config_.qk_rope_head_dim)}) {
    ops_.rope({.x = rotated,
               .positions = first_rows(workspace_.positions, num_tokens),
               .cos = rope_.cos(),
               .sin = rope_.sin(),
               .is_interleaved = config_.rope_interleave},
              stream);
  }
  if (observer_ != nullptr) {
    observer_->observe({layer.index, input.latent, input.rope, q_heads}, stream);
  }
  for (const LatentImageView& image : layer.images) {
    ops_.latent_write(
        {.latent = input.latent.slice(1, image.columns.begin, image.cache.latent_width),
         .rope = input.rope,
         .slots = first_rows(workspace_.slots, num_tokens),
         .cache = image.cache},
        stream);
  }
  note_probes(layer, input, stream);
}

void LatentAttention::note_probes(const Layer& layer, const Projected& input, StreamView stream) {
  const int64_t num_tokens = input.latent.dim(0);
  for (const LatentImageView& image : layer.images) {
    if (image.probes == nullptr) {
      return;  // decode and combined workers
    }
    ops_.latent_probe({.latent = input.latent,
                       .rope = input.rope,
                       .positions = first_rows(workspace_.positions, num_tokens),
                       .slots = first_rows(workspace_.slots, num_tokens),
                       .layer = layer.index,
                       .column_begin = image.columns.begin,
                       .num_columns = image.columns.end - image.columns.begin,
                       .dtype = image.cache.dtype,
                       .sums = image.probes,
                       .sum_stride = image.probe_stride},
                      stream);
  }
}

void LatentAttention::project_queries(const AttentionWeights& weights,
                                      const TensorView& input,
                                      StreamView stream) {
  const TensorView q = first_rows(workspace_.q, input.dim(0));
  if (weights.q_up == nullptr) {
    ops_.cast({.x = input, .out = q}, stream);
    return;
  }
  const TensorView q_normed = first_rows(workspace_.q_normed, input.dim(0));
  ops_.rms_norm({.x = input,
                 .add = {},
                 .weight = weights.q_norm.view,
                 .epsilon = static_cast<float>(ModelConfig::kLatentNormEps),
                 .out = q_normed},
                stream);
  ops_.linear({.x = q_normed, .weight = weights.q_up.get(), .bias = {}, .out = q}, stream);
}

void LatentAttention::prefill(const Layer& layer, const PrefillChunk& chunk, StreamView stream) {
  const int64_t num_heads = plan_.own_heads.size();
  const int64_t num_keys = chunk.context_begin + chunk.num_tokens;
  const auto chunk_rows = [&](const TensorView& view) {
    return view.slice(0, chunk.row_begin, chunk.num_tokens);
  };
  const TensorView q = chunk_rows(workspace_.q)
                           .split_last(plan_.decode_heads.size(), config_.qk_head_dim())
                           .slice(1, plan_.own_heads.begin - plan_.decode_heads.begin, num_heads);
  for (int64_t key = 0; key < num_keys; key += Workspace::kContextTile) {
    const int64_t count = std::min(Workspace::kContextTile, num_keys - key);
    load_context(layer, chunk, {key, key + count}, stream);
    const TensorView kv = first_rows(workspace_.context_kv, count);
    ops_.linear({.x = first_rows(workspace_.context_latent, count),
                 .weight = layer.weights.kv_up.get(),
                 .bias = {},
                 .out = kv},
                stream);
    ops_.mla_prefill(
        {.q = q,
         .kv = kv.split_last(num_heads, config_.qk_nope_head_dim + config_.v_head_dim),
         .k_rope = first_rows(workspace_.context_rope, count),
         .query_begin = chunk.context_begin,
         .key_begin = key,
         .scale = softmax_scale_,
         .is_first_tile = key == 0,
         .is_last_tile = key + count == num_keys,
         .accumulator = chunk_rows(workspace_.accumulator),
         .max_logit = chunk_rows(workspace_.max_logit),
         .sum = chunk_rows(workspace_.sum),
         .out = chunk_rows(workspace_.attention_output).split_last(num_heads, config_.v_head_dim)},
        stream);
  }
}

void LatentAttention::load_context(const Layer& layer,
                                   const PrefillChunk& chunk,
                                   const IndexRange& keys,
                                   StreamView stream) {
  const TensorView latent = first_rows(workspace_.context_latent, keys.size());
  const TensorView rope = first_rows(workspace_.context_rope, keys.size());
  if (plan_.attention_group_size() > 1) {
    TESSERA_CHECK(chunk.context_begin == 0, "a chunk in a sharded group is a whole prompt");
    // Rounded as the cache would round them.
    const Projected own = projected(chunk.row_begin + chunk.num_tokens);
    const int64_t row = chunk.row_begin + keys.begin;
    ops_.cast({.x = own.latent.slice(0, row, keys.size()), .out = latent}, stream);
    ops_.cast({.x = own.rope.slice(0, row, keys.size()), .out = rope}, stream);
    return;
  }
  const TensorView table = workspace_.block_tables.slice(0, chunk.table_row, 1);
  const TensorView block_table(table.data, table.dtype, {table.dim(1)});
  for (const LatentImageView& image : layer.images) {
    ops_.latent_gather({.cache = image.cache,
                        .block_table = block_table,
                        .begin = keys.begin,
                        .latent = latent.slice(1, image.columns.begin, image.cache.latent_width),
                        .rope = rope},
                       stream);
  }
}

}  // namespace tessera
