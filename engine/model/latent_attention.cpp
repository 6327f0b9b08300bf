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
    decode_.forward({.weights = layer.weights,
                     .part = plan_.layer(layer.index),
                     .cache = layer.images[0].cache,
                     .window = window_of(layer),
                     .index = layer.index},
                    input.num_decode,
                    stream);
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

LatentAttention::Projected LatentAttention::projected(const Layer& layer,
                                                      int64_t num_tokens) const {
  const int64_t rank = config_.kv_lora_rank;
  const int64_t query_width =
      config_.q_lora_rank > 0
          ? config_.q_lora_rank
          : plan_.layer(layer.index).decode_heads.size() * config_.qk_head_dim();
  const TensorView input = first_rows(workspace_.attention_input, num_tokens);
  return {.query = input.slice(1, 0, query_width),
          .latent = layer.weights.latent_basis != nullptr
                        ? first_rows(workspace_.latent, num_tokens)
                        : input.slice(1, query_width, rank),
          .rope = input.slice(1, query_width + rank, config_.qk_rope_head_dim)};
}

TensorView LatentAttention::queries(const Layer& layer, int64_t num_tokens) const {
  const int64_t num_heads = plan_.layer(layer.index).decode_heads.size();
  return first_rows(workspace_.q, num_tokens)
      .slice(1, 0, num_heads * config_.qk_head_dim())
      .split_last(num_heads, config_.qk_head_dim());
}

void LatentAttention::project(const Layer& layer, int64_t num_tokens, StreamView stream) {
  const AttentionWeights& weights = layer.weights;
  const Projected input = projected(layer, num_tokens);
  const int64_t query_width = input.query.dim(1);
  const TensorView all = first_rows(workspace_.attention_input, num_tokens)
                             .slice(1, 0, query_width + config_.latent_row_width());
  ops_.linear({.x = first_rows(workspace_.normed, num_tokens),
               .weight = weights.input.get(),
               .bias = weights.input_bias.view,
               .out = all},
              stream);
  project_queries(layer, input.query, stream);
  const TensorView normalised = all.slice(1, query_width, config_.kv_lora_rank);
  const TensorView q_heads = queries(layer, num_tokens);
  normalise_latents(layer, normalised, stream);
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
    observer_->observe({layer.index, normalised, input.rope, q_heads}, stream);
  }
  for (const LatentImageView& image : layer.images) {
    ops_.latent_write({.latent = input.latent,
                       .rope = input.rope,
                       .slots = first_rows(workspace_.slots, num_tokens),
                       .columns = image.columns,
                       .cache = image.cache},
                      stream);
  }
  if (const WindowCache* window = window_of(layer); window != nullptr) {
    ops_.latent_write({.latent = input.latent,
                       .rope = input.rope,
                       .slots = first_rows(workspace_.window_slots, num_tokens),
                       .columns = LatentColumns::all(config_.kv_lora_rank),
                       .cache = window->layer_view(layer.index)},
                      stream);
  }
  note_probes(layer, input, stream);
}

const WindowCache* LatentAttention::window_of(const Layer& layer) const {
  return plan_.is_sliced(layer.index) ? layer.window : nullptr;
}

void LatentAttention::normalise_latents(const Layer& layer,
                                        const TensorView& latent,
                                        StreamView stream) {
  // Exact on every rank: all columns are computed, whichever of them are kept.
  ops_.rms_norm({.x = latent,
                 .add = {},
                 .weight = layer.weights.kv_norm.view,
                 .epsilon = static_cast<float>(ModelConfig::kLatentNormEps),
                 .out = latent},
                stream);
  if (layer.weights.latent_basis != nullptr) {
    ops_.linear({.x = latent,
                 .weight = layer.weights.latent_basis.get(),
                 .bias = {},
                 .out = first_rows(workspace_.latent, latent.dim(0))},
                stream);
  }
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
                       .columns = image.columns,
                       .dtype = image.cache.dtype,
                       .sums = image.probes,
                       .sum_stride = image.probe_stride},
                      stream);
  }
}

void LatentAttention::project_queries(const Layer& layer,
                                      const TensorView& input,
                                      StreamView stream) {
  const AttentionWeights& weights = layer.weights;
  const int64_t width = plan_.layer(layer.index).decode_heads.size() * config_.qk_head_dim();
  const TensorView q = first_rows(workspace_.q, input.dim(0)).slice(1, 0, width);
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
  const int64_t first_head = plan_.layer(layer.index).decode_heads.begin;
  const int64_t num_keys = chunk.context_begin + chunk.num_tokens;
  const auto chunk_rows = [&](const TensorView& view) {
    return view.slice(0, chunk.row_begin, chunk.num_tokens);
  };
  const TensorView q = queries(layer, chunk.row_begin + chunk.num_tokens)
                           .slice(0, chunk.row_begin, chunk.num_tokens)
                           .slice(1, plan_.own_heads.begin - first_head, num_heads);
  const int64_t tile = workspace_.context_latent.dim(0);
  for (int64_t key = 0; key < num_keys; key += tile) {
    const int64_t count = std::min(tile, num_keys - key);
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
  if (plan_.layer(layer.index).group_size > 1) {
    TESSERA_CHECK(chunk.context_begin == 0, "a chunk in a sharded group is a whole prompt");
    const int64_t row = chunk.row_begin + keys.begin;
    load_own(layer,
             projected(layer, chunk.row_begin + chunk.num_tokens),
             {row, row + keys.size()},
             stream);
    return;
  }
  const TensorView table = workspace_.block_tables.slice(0, chunk.table_row, 1);
  const TensorView block_table(table.data, table.dtype, {table.dim(1)});
  for (const LatentImageView& image : layer.images) {
    ops_.latent_gather({.cache = image.cache,
                        .block_table = block_table,
                        .begin = keys.begin,
                        .columns = image.columns,
                        .latent = latent,
                        .rope = rope},
                       stream);
    if (image.columns.width() == config_.kv_lora_rank) {
      return;  // the other images, if any, hold the same
    }
  }
}

void LatentAttention::load_own(const Layer& layer,
                               const Projected& own,
                               const IndexRange& rows,
                               StreamView stream) {
  const TensorView latent = own.latent.slice(0, rows.begin, rows.size());
  const TensorView rope = own.rope.slice(0, rows.begin, rows.size());
  const TensorView latent_out = first_rows(workspace_.context_latent, rows.size());
  const TensorView rope_out = first_rows(workspace_.context_rope, rows.size());
  if (!layer.images[0].cache.is_float8()) {
    ops_.cast({.x = latent, .out = latent_out}, stream);
    ops_.cast({.x = rope, .out = rope_out}, stream);
    return;
  }
  const int64_t num_shared = plan_.layer(layer.index).num_shared;
  for (int64_t slice = 0; slice < plan_.num_slices; ++slice) {
    const LatentColumns columns =
        ShardPlan::slice_columns(config_, num_shared, slice, plan_.num_slices);
    kernels::LatentCacheView scratch = layer.images[0].cache;
    scratch.base = workspace_.rounding_rows.data;
    scratch.num_blocks = workspace_.rounding_table.dim(0);
    scratch.latent_width = columns.width();
    scratch.block_stride_bytes = kBlockTokens * scratch.layout().row_bytes;
    ops_.latent_write({.latent = latent,
                       .rope = rope,
                       .slots = first_rows(workspace_.rounding_slots, rows.size()),
                       .columns = columns,
                       .cache = scratch},
                      stream);
    ops_.latent_gather({.cache = scratch,
                        .block_table = workspace_.rounding_table,
                        .columns = columns,
                        .latent = latent_out,
                        .rope = rope_out},
                       stream);
  }
}

}  // namespace tessera
